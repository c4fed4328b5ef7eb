//! rdkafka's errors by what to do next.

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
