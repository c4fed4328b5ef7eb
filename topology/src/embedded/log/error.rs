//! Pure: no I/O, no clock, no async.
//!
//! What can go wrong on the log, named by what the caller should do next.

use std::path::PathBuf;

use neonhub_schemas::record::TopicPartition;

/// Cloneable, because one failed disk write answers every commit of its group.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// Try again later: the writers are faster than the disk.
    #[error("the commit queue is full")]
    QueueFull,
    /// Make room or wait for retention, then try again: nothing was written and the log is still usable.
    #[error("the disk is full: {free_bytes} bytes free")]
    DiskFull { free_bytes: u64 },
    /// Split it: no commit may be so large.
    #[error("a commit of {bytes} bytes is over the limit of {limit}")]
    TooLarge { bytes: usize, limit: usize },
    /// Correct the input: the same unit will be refused again.
    #[error("rejected: {detail}")]
    Rejected { detail: String },
    #[error("no such partition: {topic_partition}")]
    UnknownPartition { topic_partition: TopicPartition },
    /// Drop what is in flight, ask for the assignment again and resume from the committed offsets.
    #[error("member {member_id} of group {group} no longer holds this generation")]
    Fenced { group: String, member_id: String },
    /// Resume from `start` (the records before were deleted), or from `end`.
    #[error("offset {offset} of {topic_partition} is outside {start}..={end}")]
    OffsetOutOfRange { topic_partition: TopicPartition, offset: u64, start: u64, end: u64 },
    /// Report it; the records after can be read from `offset + 1`.
    #[error("damaged record at {topic_partition}@{offset}: {detail}")]
    Damaged { topic_partition: TopicPartition, offset: u64, detail: &'static str },
    /// Restore the folder from a copy: what was durable is not there any more.
    #[error("the log's file {file} is damaged at byte {offset}: {detail}", file = file.display())]
    DamagedFile { file: PathBuf, offset: u64, detail: String },
    /// Look at the folder and its disk.
    #[error("the log in {folder} cannot be opened: {detail}", folder = folder.display())]
    OpenFailed { folder: PathBuf, detail: String },
    /// Open the log with the partitions it was created with, or start with a new folder.
    #[error("topic {topic} was created with {stored} partitions, but {asked} are asked for")]
    PartitionCountChanged { topic: &'static str, stored: u32, asked: u32 },
    /// Use a program that knows this folder's format, or start with a new folder.
    #[error("the log has another format: {detail}")]
    ForeignFormat { detail: String },
    /// Try again, then look at the disk: reading failed, nothing was changed.
    #[error("the log could not be read: {detail}")]
    ReadFailed { detail: String },
    /// Close the log and open it anew: a write or fsync failed, so what is on the disk is unknown until recovery. Reads
    /// still work. The failed unit is all there or not there at all after reopening.
    #[error("the log must be reopened: {detail}")]
    ReopenNeeded { detail: String },
    /// The log was shut down.
    #[error("the log is closed")]
    Closed,
}
