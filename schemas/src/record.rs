//! Pure: no I/O, no clock, no async.
//!
//! A record on the log: what every producer writes and every consumer reads, on either backbone.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::topics::Topic;

type Pairs = SmallVec<[(&'static str, Bytes); 4]>;

/// Record headers in the order they were written; names are short ASCII, see [`crate::codec::header`]. A pointer, since
/// records are moved about a good deal; copies share what it points to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Option<Arc<Pairs>>);

impl Headers {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Bytes>) -> Self {
        Arc::make_mut(self.0.get_or_insert_default()).push((name, value.into()));
        self
    }

    /// Those whose names are wanted.
    #[must_use]
    pub fn only(&self, wants: impl Fn(&str) -> bool) -> Self {
        let wanted = self.iter().filter(|(name, _)| wants(name));
        wanted.fold(Self::new(), |headers, (name, value)| headers.with(name, value.clone()))
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.pairs().iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        self.pairs().iter().map(|(key, value)| (*key, value))
    }

    fn pairs(&self) -> &[(&'static str, Bytes)] {
        self.0.as_ref().map_or(&[], |pairs| pairs.as_slice())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs().is_empty()
    }
}

/// A record to be appended. `partition: None` lets the key decide ([`crate::topics::partition_for`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    pub topic: Topic,
    pub partition: Option<u32>,
    /// Never empty: an empty key would hash every record to one hot partition.
    pub key: Bytes,
    /// `None` is a tombstone: compaction forgets the key.
    pub value: Option<Bytes>,
    pub headers: Headers,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl NewRecord {
    /// Bytes of key and value, for memory bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A record as read back, with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: Topic,
    pub partition: u32,
    pub offset: u64,
    pub timestamp_ms: i64,
    pub key: Bytes,
    pub value: Option<Bytes>,
    pub headers: Headers,
}

impl Record {
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic, partition: self.partition }
    }

    /// Bytes of key and value, for throughput counters and memory bounds.
    #[must_use]
    pub fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Topic,
    pub partition: u32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic.name(), self.partition)
    }
}

/// A consumer group's place in a partition: the next offset to read, and what the group wants to remember with it
/// (the landing keeps its plan there, the merge stage its replay position).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: u64,
    pub metadata: String,
}
