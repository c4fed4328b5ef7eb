//! The engine's ports on Apache Kafka, through rdkafka.

mod batch;
mod committer;
mod config;
mod decisions;
mod errors;
mod hanging;
mod reader;
mod source;
mod unowned;

use std::sync::Arc;

pub use committer::{KafkaOffsetCommitter, KafkaTransactions};
pub use config::KafkaConfig;
pub use hanging::Scope;
pub use reader::KafkaReader;
pub use source::KafkaSource;

use neonhub_schemas::trace::Tracer;

use super::ports::{EngineError, Part, Ports};

/// Ports for a worker that commits outputs and offsets in one transaction. `slot` names the worker within its group, and
/// must be the same after a restart.
///
/// # Errors
/// The brokers refuse the settings or are away.
pub fn transactional(config: &KafkaConfig, scope: Scope<'_>, slot: &str, tracer: Tracer) -> Result<Ports, EngineError> {
    let reader = KafkaReader::new(config)?;
    let source = KafkaSource::subscribe(config, scope.group, slot, scope.inputs, Part::of_stage(&tracer))?;
    let committer = KafkaTransactions::new(config, scope, slot, Arc::clone(source.consumer()), &reader)?;
    Ok(Ports {
        source: Box::new(source),
        committer: Box::new(committer),
        reader: Box::new(reader),
        states: None,
        tracer,
    })
}

/// Ports for the landing, which commits offsets only.
///
/// # Errors
/// The brokers refuse the settings or are away.
pub fn offsets_only(
    config: &KafkaConfig,
    group: &str,
    slot: &str,
    topics: &[neonhub_schemas::Topic],
) -> Result<Ports, EngineError> {
    let source = KafkaSource::subscribe(config, group, slot, topics, Part::Whole)?;
    let committer = KafkaOffsetCommitter::new(config, Arc::clone(source.consumer()));
    let reader = Box::new(KafkaReader::new(config)?);
    Ok(Ports {
        source: Box::new(source),
        committer: Box::new(committer),
        reader,
        states: None,
        tracer: Tracer::default(),
    })
}
