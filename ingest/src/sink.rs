//! The port to the log, and its adapters. The embedded log's adapter lives with that log.

pub mod kafka;
pub mod memory;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use neonhub_schemas::NewRecord;

/// A future of a sink's operation.
pub type SinkFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where accepted events and dead letters go.
pub trait EventSink: Send + Sync {
    /// Appends the records, those of one key in the given order. `Ok` means that all of them are durable; with an error
    /// some may be too, which the sender's retry and the deduplication make harmless.
    fn append(&self, records: Vec<NewRecord>) -> SinkFuture<'_, Result<(), SinkError>>;

    /// # Errors
    /// Says why an append would fail now.
    fn ready(&self) -> Result<(), String>;

    /// Waits, at most so long, for whatever is still under way; called once, after the last append.
    fn close(&self, deadline: Duration) -> SinkFuture<'_, Result<(), SinkError>>;
}

/// Why an append failed, named by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The log is away, or has not confirmed in time: the same request may be sent again later.
    #[error("the log is not available: {detail}")]
    Unavailable { detail: String, retry_after: Duration },
    /// More is waiting for the log than may wait: the same request may be sent again soon.
    #[error("too many events are waiting for the log")]
    QueueFull { retry_after: Duration },
    /// The log will not take these records, however often they are sent.
    #[error("the log refused a record: {detail}")]
    Rejected { detail: String },
}

impl SinkError {
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::Unavailable { detail: detail.into(), retry_after: Duration::from_secs(5) }
    }

    #[must_use]
    pub fn queue_full() -> Self {
        Self::QueueFull { retry_after: Duration::from_secs(1) }
    }
}
