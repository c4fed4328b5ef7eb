//! The port to the topics that the API writes: `control`, by which everybody learns of definitions and keys, and
//! `audit.log`.

pub mod kafka;
pub mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use neonhub_schemas::record::NewRecord;

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

    /// Every record on `control`, in the log's order, as key and value; tombstones are left out.
    ///
    /// # Errors
    /// See [`ControlError`].
    async fn read_all(&self) -> Result<Vec<(Bytes, Bytes)>, ControlError>;
}
