//! The embedded log: NeonHub's own small Kafka, in one process.
//!
//! Topics with partitions, consumer groups, offsets with metadata, commits of records and offsets that are atomic over
//! topics, retention, compaction, offsets by time, blocking and async reads. On disk it lives in a fjall database; in
//! memory the very same code runs over ordered maps, without threads, which is what the simulation tests.
//!
//! | module | what |
//! |---|---|
//! | `unit`, `writer`, `committer` | a commit: prepared by the caller, written in groups with one fsync, then shown |
//! | `reader`, `tail`, `time_index` | reading, from memory where it is recent |
//! | `groups`, `membership` | who reads what, and whose commits count |
//! | `retention`, `compaction`, `maintenance` | forgetting, in small steps, when the caller says so |
//! | `store`, `store_fjall`, `store_memory`, `keys`, `encoding`, `recovery` | how it is kept |
//! | `integrity`, `torn_journal` | damage noticed before opening; a commit torn by a power failure dropped |
//!
//! **Durability.** A commit is answered, and shown to readers, after its fsync. If the disk is nearly full, commits are
//! refused with [`LogError::DiskFull`] before anything is written, and the log stays usable. If a write or an fsync
//! fails, the state of the disk is unknown: reads go on, every further write is refused with
//! [`LogError::ReopenNeeded`], and opening the log again finds each unit whole or not at all.
//!
//! **Time.** The log reads no clock: retention and compaction go by the records' own timestamps and the `now` that is
//! handed in.

mod committer;
mod compaction;
mod encoding;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod groups;
mod integrity;
mod keys;
mod maintenance;
mod membership;
mod options;
mod partition;
mod reader;
mod recovery;
mod retention;
mod signal;
mod store;
mod store_fjall;
mod store_memory;
mod tail;
mod time_index;
mod torn_journal;
mod unit;
mod writer;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use neonhub_schemas::record::{CommittedOffset, NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use committer::{Answer, CommitQueue, Committer, WhenFull};
pub use error::LogError;
use groups::Groups;
pub use groups::{Assignment, Fence};
pub use maintenance::Maintained;
use maintenance::Maintenance;
pub use membership::Membership;
pub use options::LogOptions;
use partition::Partitions;
pub use reader::Fetched;
use signal::Signal;
pub use store::{Batch, Durability, Operation, Space, Store, StoreError, Visitor};
pub use store_fjall::FjallStore;
pub use store_memory::MemoryStore;
pub use unit::{Appended, CommitUnit};
use writer::Writer;

/// How commits reach the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// In a thread of the log, in groups.
    Grouped,
    /// In the caller's thread, one by one: deterministic, for the simulation.
    Inline,
}

struct Shared {
    store: Arc<dyn Store>,
    options: LogOptions,
    partitions: Partitions,
    groups: RwLock<Groups>,
    queue: CommitQueue,
    writer: Writer,
    signal: Signal,
    maintenance: Maintenance,
}

/// A handle on the log; clones share it. When the last one is dropped, what is queued is written and commits end; the
/// folder can be opened again when its memberships are dropped, too.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    /// `None`: commits are inline.
    committer: Option<Arc<Committer>>,
}

impl Log {
    /// Opens the log in a folder, or creates it there. To learn whether a torn commit was dropped on the way, open a
    /// [`FjallStore`] and hand it to [`Log::over`].
    pub fn open(folder: &Path, options: LogOptions) -> Result<Self, LogError> {
        let store = FjallStore::open(folder, &options)?;
        if store.dropped_torn_commit() {
            tracing::warn!(folder = %folder.display(), "dropped a last commit torn by a power failure");
        }
        Self::over(Arc::new(store), options, CommitMode::Grouped)
    }

    /// The twin in memory: the same log, single-threaded and deterministic.
    pub fn in_memory(options: LogOptions) -> Result<Self, LogError> {
        Self::over(Arc::new(MemoryStore::new()), options, CommitMode::Inline)
    }

    /// Opens the log over any store; a `MemoryStore` kept by the caller can be opened again after a simulated crash.
    pub fn over(store: Arc<dyn Store>, options: LogOptions, mode: CommitMode) -> Result<Self, LogError> {
        let partitions = recovery::recover(store.as_ref(), options.partitions)?;
        let shared = Arc::new(Shared {
            store,
            partitions,
            groups: RwLock::default(),
            queue: CommitQueue::new(options.queue_bytes, options.group_bytes, options.unit_bytes),
            writer: Writer::default(),
            signal: Signal::new(),
            maintenance: Maintenance::default(),
            options,
        });
        let committer = match mode {
            CommitMode::Inline => None,
            CommitMode::Grouped => Some(Arc::new(
                Committer::start(shared.clone())
                    .map_err(|error| LogError::Rejected { detail: format!("no thread for the committer: {error}") })?,
            )),
        };
        Ok(Self { shared, committer })
    }

    /// # Errors
    /// Why a commit would be refused now.
    pub fn health(&self) -> Result<(), LogError> {
        if self.shared.queue.is_closed() {
            return Err(LogError::Closed);
        }
        match self.shared.writer.broken() {
            Some(detail) => Err(LogError::ReopenNeeded { detail }),
            None if self.shared.queue.is_full() => Err(LogError::QueueFull),
            None => Ok(()),
        }
    }

    #[must_use]
    pub fn partitions(&self, topic: Topic) -> u32 {
        self.shared.partitions.count(topic)
    }

    /// Appends and waits until the records are durable. Must not be called from async code; see [`Log::submit`].
    pub fn append(&self, records: Vec<NewRecord>) -> Result<Vec<(u32, u64)>, LogError> {
        self.commit(CommitUnit::of_records(records)).map(|appended| appended.placements)
    }

    /// Commits all of the unit or nothing, and waits until it is durable and visible. Waits, too, while the queue is
    /// full. Must not be called from async code; see [`Log::submit`].
    pub fn commit(&self, unit: CommitUnit) -> Result<Appended, LogError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.enqueue(unit, Answer::Thread(sender), WhenFull::Wait);
        receiver.recv().unwrap_or(Err(LogError::Closed))
    }

    /// Queues the unit; the receiver is answered when it is durable and visible, or at once with `QueueFull`. Dropping
    /// the receiver does not take the unit back.
    #[must_use = "the receiver tells whether the unit is durable"]
    pub fn submit(&self, unit: CommitUnit) -> oneshot::Receiver<Result<Appended, LogError>> {
        let (sender, receiver) = oneshot::channel();
        self.enqueue(unit, Answer::Task(sender), WhenFull::Refuse);
        receiver
    }

    fn enqueue(&self, unit: CommitUnit, answer: Answer, when_full: WhenFull) {
        let queue = &self.shared.queue;
        if queue.is_closed() {
            return answer.send(Err(LogError::Closed));
        }
        if when_full == WhenFull::Refuse && queue.is_full() {
            return answer.send(Err(LogError::QueueFull));
        }
        match unit::prepare(unit, &self.shared.partitions) {
            Err(error) => answer.send(Err(error)),
            Ok(prepared) if self.committer.is_some() => queue.push(prepared, answer, when_full),
            Ok(prepared) => {
                let outcome = self.shared.writer.commit(&self.shared, vec![prepared]).pop();
                answer.send(outcome.unwrap_or(Err(LogError::Closed)));
            }
        }
    }

    /// Reads from an offset, at most so many records and bytes of keys and values, but at least one record if there is
    /// one. Fewer than asked for do not mean the end: compare `next_offset` with `end_offset`.
    pub fn read(
        &self,
        topic_partition: TopicPartition,
        from_offset: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Fetched, LogError> {
        reader::read(&self.shared, topic_partition, from_offset, max_records, max_bytes)
    }

    /// The first offset that may still be there.
    pub fn start_offset(&self, topic_partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.shared.partitions.get(topic_partition)?.visible.read().start)
    }

    /// The offset the next record will get.
    pub fn end_offset(&self, topic_partition: TopicPartition) -> Result<u64, LogError> {
        Ok(self.shared.partitions.get(topic_partition)?.visible.read().end)
    }

    /// The earliest offset with a timestamp at or after this one; `None` if there is none.
    pub fn offset_for_time(&self, topic_partition: TopicPartition, timestamp_ms: i64) -> Result<Option<u64>, LogError> {
        reader::offset_for_time(&self.shared, topic_partition, timestamp_ms)
    }

    /// Waits until a partition has records at or after its position, and says whether one has; `false` at the deadline
    /// or on shutdown. An inline log never waits: nobody else could append.
    #[must_use]
    pub fn wait_for_data(&self, positions: &[(TopicPartition, u64)], deadline: Duration) -> bool {
        let has_data =
            || positions.iter().any(|(place, position)| self.end_offset(*place).is_ok_and(|end| end > *position));
        if self.committer.is_some() && !has_data() {
            self.shared.signal.wait_until(deadline, || has_data() || self.shared.queue.is_closed());
        }
        has_data()
    }

    /// A counter that changes with every commit, membership change and the shutdown.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.signal.subscribe()
    }

    /// The group's committed offsets, in the order asked for.
    pub fn committed(
        &self,
        group: &str,
        topic_partitions: &[TopicPartition],
    ) -> Result<Vec<Option<CommittedOffset>>, LogError> {
        topic_partitions
            .iter()
            .map(|place| {
                let value = self.shared.store.get(Space::Meta, &keys::group_offset(group, *place))?;
                Ok(value.and_then(|value| keys::decode_committed(&value)))
            })
            .collect()
    }

    /// Joins a group. Joining under an id that is taken fences its older holder.
    #[must_use]
    pub fn join(&self, group: &str, member_id: &str, topics: &[Topic]) -> Membership {
        let epoch = self.shared.groups.write().join(group, member_id, topics);
        self.shared.signal.notify();
        let (group, member_id) = (group.to_owned(), member_id.to_owned());
        Membership { shared: self.shared.clone(), group, member_id, epoch }
    }

    /// One bounded step of retention and compaction; call again at once while `more` is set, else after a while.
    pub fn maintain(&self, now_ms: i64) -> Result<Maintained, LogError> {
        maintenance::step(&self.shared, now_ms)
    }

    /// Refuses further commits and wakes all that wait; what is queued is still written, and reading goes on.
    pub fn shutdown(&self) {
        self.shared.queue.close();
        self.shared.signal.notify();
    }
}
