//! What the engine needs from a log. Adapters: [`super::kafka`], and the embedded log in the topology crate.

use std::time::Duration;

use neonhub_schemas::codec::header;
use neonhub_schemas::record::{CommittedOffset, NewRecord, Record, TopicPartition};
use neonhub_schemas::trace::Tracer;

/// What a source has to say, in order.
#[derive(Debug)]
pub enum SourceEvent {
    /// These partitions are ours now. They deliver nothing before [`Source::resume`].
    Assigned(Vec<TopicPartition>),
    /// These are no longer ours; nothing of them may be committed.
    Revoked(Vec<TopicPartition>),
    /// In order within each partition.
    Records(Vec<Record>),
    /// Everything that the partition had has been delivered. Said once, until there is more.
    AtEnd(TopicPartition),
}

/// Why the engine could not go on, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Drop the worker, wait a little, and begin again from what is committed.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// Somebody else has our place: begin again from what is committed.
    #[error("fenced: {0}")]
    Fenced(String),
    /// Nothing will make it better without a person.
    #[error("{0}")]
    Fatal(String),
}

/// How much of its records a source hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What stages work on. A Kafka client allocates each header that it is asked for.
    KeyAndValue,
    /// Of the headers only the one that carries the trace.
    Traced,
    Whole,
}

impl Part {
    /// What a stage needs.
    #[must_use]
    pub fn of_stage(tracer: &Tracer) -> Self {
        if tracer.is_on() { Self::Traced } else { Self::KeyAndValue }
    }

    #[must_use]
    pub fn wants(self, name: &str) -> bool {
        match self {
            Self::KeyAndValue => false,
            Self::Traced => name == header::TRACE_PARENT,
            Self::Whole => true,
        }
    }
}

/// Records of the partitions that a group gave us.
pub trait Source: Send {
    /// Waits for something at most this long.
    ///
    /// # Errors
    /// The log is away or we are fenced.
    fn poll(&mut self, wait: Duration) -> Result<Vec<SourceEvent>, EngineError>;

    /// Where the group stands.
    ///
    /// # Errors
    /// The log is away.
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError>;

    /// Lets partitions deliver, from their committed offset on.
    ///
    /// # Errors
    /// The log is away or we are fenced.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError>;

    /// Holds partitions back.
    ///
    /// # Errors
    /// The log is away or we are fenced.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError>;

    /// Records of our partitions that are not delivered yet, as far as is known without asking the log.
    fn lag(&mut self) -> Vec<(TopicPartition, u64)> {
        Vec::new()
    }
}

/// What is committed together: all of it or nothing.
#[derive(Debug, Default)]
pub struct CommitUnit {
    pub records: Vec<NewRecord>,
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
}

/// Commits units atomically, fenced by the group's generation.
pub trait Committer: Send {
    /// # Errors
    /// After any error the outcome is unknown: the caller drops its state and begins again from what is committed.
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError>;
}

/// Reads partitions outside of any group: for restoring state and for topics that every worker reads whole.
pub trait LogReader: Send {
    /// The first offset there is, and the one after the last (open transactions included).
    ///
    /// # Errors
    /// The log is away.
    fn bounds(&mut self, partition: TopicPartition) -> Result<(u64, u64), EngineError>;

    /// The first offset whose timestamp is not before `timestamp_ms`, or the end.
    ///
    /// # Errors
    /// The log is away.
    fn offset_for_time(&mut self, partition: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError>;

    /// Hands over every committed record in `[from, to)`; waits for transactions that are still open below `to`.
    ///
    /// # Errors
    /// The log is away.
    fn read(
        &mut self,
        partition: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError>;
}

/// One change of a local store: a key, and its value or its removal.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Ordered bytes on a local disk: a copy of state that the log can rebuild at any time.
pub trait StateStore: Send {
    /// # Errors
    /// The disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError>;

    /// Hands over the entries in `[from, to)` by their keys, until `each` answers `false`.
    ///
    /// # Errors
    /// The disk fails.
    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError>;

    /// All changes or none.
    ///
    /// # Errors
    /// The disk fails, or another has opened the store since.
    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError>;

    /// What was written outlives a kill from now on; a store may see to that earlier, too.
    ///
    /// # Errors
    /// The disk fails, or another has opened the store since.
    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The disk fails, or another has opened the store since.
    fn clear(&self) -> Result<(), EngineError>;
}

/// The local stores of a process.
pub trait StateStores: Send {
    /// The store of a stage's partition. Who opened it before can write to it no more.
    ///
    /// # Errors
    /// The disk fails.
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError>;
}

/// What one worker needs.
pub struct Ports {
    pub source: Box<dyn Source>,
    pub committer: Box<dyn Committer>,
    pub reader: Box<dyn LogReader>,
    /// Without it state stays in memory and is rebuilt from the log at every start.
    pub states: Option<Box<dyn StateStores>>,
    /// Follows the traces of records whose source hands over [`Part::Traced`] or more.
    pub tracer: Tracer,
}
