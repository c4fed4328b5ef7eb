//! rdkafka's errors by what to do next.

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::engine::EngineError;

#[must_use]
pub fn classify(error: &KafkaError) -> EngineError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        Some(Code::FencedInstanceId | Code::ProducerFenced) => EngineError::Fenced(format!(
            "{error}; if another process runs the same processors, give each a NEONHUB_INSTANCE of its own"
        )),
        Some(
            Code::Fenced
            | Code::InvalidProducerEpoch
            | Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::RebalanceInProgress
            | Code::AssignmentLost
            | Code::State,
        ) => EngineError::Fenced(error.to_string()),
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedVersion
            | Code::InvalidConfig,
        ) => EngineError::Fatal(error.to_string()),
        _ => EngineError::Unavailable(error.to_string()),
    }
}

/// What librdkafka says beside any call. The end of a partition is no error.
pub fn report(error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::warn!(%error, reason, "librdkafka");
    }
}

/// The context of clients that nobody calls back.
pub struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Quiet {}
