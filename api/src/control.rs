//! The port to the topic `control`: definitions go there so that the processors learn of them.

pub mod kafka;
pub mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;

/// Try again later; whether the record was appended is not known, and appending it again does no harm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log is away: {0}")]
pub struct ControlError(pub String);

#[async_trait]
pub trait ControlLog: Send + Sync {
    /// Appends one record; returns when it is durable.
    ///
    /// # Errors
    /// See [`ControlError`].
    async fn append(&self, record: NewRecord) -> Result<(), ControlError>;

    /// Every record on `control`, in the log's order: its values only, tombstones left out.
    ///
    /// # Errors
    /// See [`ControlError`].
    async fn read_all(&self) -> Result<Vec<Bytes>, ControlError>;
}

/// # Errors
/// The definition has no JSON form, which does not happen.
pub fn definition_record(record: &DefinitionRecord) -> Result<NewRecord, ControlError> {
    let value = serde_json::to_vec(record).map_err(|error| ControlError(error.to_string()))?;
    Ok(NewRecord {
        topic: Topic::Control,
        partition: None,
        key: Bytes::from(record.key()),
        value: Some(Bytes::from(value)),
        headers: Headers::new()
            .with(header::SCHEMA, Bytes::from_static(b"1"))
            .with(header::WORKSPACE, Bytes::from(record.workspace.clone())),
        timestamp_ms: record.updated_at,
    })
}
