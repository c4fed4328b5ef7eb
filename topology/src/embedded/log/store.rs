//! Pure: no I/O, no clock, no async.
//!
//! What the log needs of a disk: ordered keys, atomic batches, range scans. The store is the only thing in which the
//! log on disk and its twin in memory differ.

use std::ops::ControlFlow;
use std::path::PathBuf;

use bytes::Bytes;
use neonhub_schemas::record::TopicPartition;

use super::error::LogError;

/// A key space of its own: keys are ordered within it. Each partition has one, so that appending to it never rewrites
/// another partition's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    Meta,
    Records(TopicPartition),
}

#[derive(Clone, Debug)]
pub enum Operation {
    Put { space: Space, key: Bytes, value: Bytes },
    Delete { space: Space, key: Bytes },
}

/// Operations that happen together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub operations: Vec<Operation>,
    /// Bytes of keys and values.
    pub bytes: u64,
}

impl Batch {
    #[must_use]
    pub fn with_capacity(operations: usize) -> Self {
        Self { operations: Vec::with_capacity(operations), bytes: 0 }
    }

    pub fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.bytes += (key.len() + value.len()) as u64;
        self.operations.push(Operation::Put { space, key, value });
    }

    pub fn delete(&mut self, space: Space, key: Bytes) {
        self.bytes += key.len() as u64;
        self.operations.push(Operation::Delete { space, key });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On the disk (fsync) before `write` returns, and before anyone can read it.
    Synced,
    /// On the disk at the latest with the next synced write, and never before an earlier write.
    Buffered,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Refused before anything was written.
    #[error("the disk is full: {free_bytes} bytes free")]
    Full { free_bytes: u64 },
    /// The write may or may not be there after reopening, but never half of it.
    #[error("write failed: {0}")]
    WriteFailed(String),
    #[error("read failed: {0}")]
    ReadFailed(String),
    /// Only when opening: what was durable is not there any more. Nothing is changed.
    #[error("{file} is damaged at byte {offset}: {detail}", file = file.display())]
    Damaged { file: PathBuf, offset: u64, detail: String },
    #[error("{folder} cannot be opened: {detail}", folder = folder.display())]
    OpenFailed { folder: PathBuf, detail: String },
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { free_bytes } => Self::DiskFull { free_bytes },
            StoreError::WriteFailed(detail) => Self::ReopenNeeded { detail },
            StoreError::ReadFailed(detail) => Self::ReadFailed { detail },
            StoreError::Damaged { file, offset, detail } => Self::DamagedFile { file, offset, detail },
            StoreError::OpenFailed { folder, detail } => Self::OpenFailed { folder, detail },
        }
    }
}

/// Called with key and value; `Break` ends the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], Bytes) -> ControlFlow<()> + 'a;

pub trait Store: Send + Sync {
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits the entries with `from <= key < until` in the order of keys.
    fn scan(&self, space: Space, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError>;

    fn first_key(&self, space: Space) -> Result<Option<Bytes>, StoreError>;

    fn last_key(&self, space: Space) -> Result<Option<Bytes>, StoreError>;
}
