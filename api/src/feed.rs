//! Live metric windows: the port to a topic that is tailed, the hub that tails it once for everybody, and what a
//! subscriber follows.

pub mod filter;
pub mod follow;
pub mod hub;
pub mod kafka;
pub mod memory;
pub mod position;
pub mod update;

use std::time::Duration;

use neonhub_schemas::record::Record;

/// The offsets of a partition that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub start: u64,
    /// After the last committed record.
    pub end: u64,
}

/// Named by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// Make a new reader from where the last one was.
    #[error("the log is away: {0}")]
    Away(String),
    /// Start again from the partition's start.
    #[error("partition {partition} can only be read from offset {start} on")]
    OutOfRange { partition: u32, start: u64 },
}

/// What a reader found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order within each partition.
    pub records: Vec<Record>,
    /// By partition: the offset to go on from. It passes over offsets that hold no record.
    pub next: Vec<u64>,
    /// Partitions that were read to their end: whatever lies there without being a record has been passed.
    pub at_end: Vec<u32>,
}

/// A topic that is tailed, committed records only. Every call may block: callers keep it off the async threads.
pub trait FeedLog: Send + Sync {
    /// By partition; their number never changes while we run.
    ///
    /// # Errors
    /// See [`FeedError`].
    fn bounds(&self) -> Result<Vec<Bounds>, FeedError>;

    /// A reader of all partitions, each from the offset given.
    ///
    /// # Errors
    /// See [`FeedError`].
    fn reader(&self, from: &[u64]) -> Result<Box<dyn FeedReader>, FeedError>;
}

pub trait FeedReader: Send {
    /// Waits for records until `timeout`, and takes at most `max_records` of each partition; an empty batch is fine.
    ///
    /// # Errors
    /// See [`FeedError`].
    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Batch, FeedError>;
}
