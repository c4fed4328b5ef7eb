//! What a processor is to the engine. Implementations are pure: they see records and a given time, and return effects.

use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::{EngineError, LocalState, Marker, Outputs};

/// A part of the log to be read before a task may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    Whole(TopicPartition),
    /// Records that are not older than this.
    Since(TopicPartition, i64),
}

impl Restore {
    #[must_use]
    pub fn place(&self) -> TopicPartition {
        let (Self::Whole(place) | Self::Since(place, _)) = self;
        *place
    }
}

/// A processor: how to make, restore and run the task of one input partition.
pub trait Stage: Send {
    type Task: Send;

    fn name(&self) -> &'static str;

    fn inputs(&self) -> Vec<Topic>;

    /// Every topic that it may write to.
    fn outputs(&self) -> Vec<Topic>;

    /// Topics of one partition that every worker reads whole before it starts, and follows: before records are
    /// processed, everything that was on these topics when the records were read has been observed.
    fn globals(&self) -> Vec<Topic> {
        Vec::new()
    }

    fn observe_global(&mut self, _record: &Record) {}

    /// Whether its tasks keep a local state.
    fn has_local_state(&self) -> bool {
        false
    }

    /// A task for a partition whose committed offset is this. A local state holds what the restore plan would have brought
    /// up to its marker, or nothing.
    ///
    /// # Errors
    /// The local state cannot be read.
    fn open(
        &self,
        partition: TopicPartition,
        committed: Option<&CommittedOffset>,
        local: Option<LocalState>,
    ) -> Result<Self::Task, EngineError>;

    /// What is to be read before the task may run; what the local state holds is left out.
    fn restore_plan(&self, partition: TopicPartition, committed: Option<&CommittedOffset>) -> Vec<Restore>;

    /// # Errors
    /// The local state cannot be read or written.
    fn restore(&self, task: &mut Self::Task, record: &Record) -> Result<(), EngineError>;

    /// The record comes without its headers: all that counts is in key and value.
    fn process(&self, task: &mut Self::Task, record: &Record, now_ms: i64, out: &mut Outputs);

    /// The partition has delivered everything it had.
    fn at_end(&self, _task: &mut Self::Task, _now_ms: i64) {}

    /// Whether something waits to be committed now although no record came. `next_offset` is the position.
    fn is_due(&self, _task: &Self::Task, _now_ms: i64) -> bool {
        false
    }

    /// Whether no more may come before the next commits have made room; something is due then.
    fn is_full(&self, _task: &Self::Task) -> bool {
        false
    }

    /// Puts out what is to be committed and says what to remember: the offset to begin from after a restart, and
    /// metadata. `next_offset` is the offset after the last processed record, if the task knows of any.
    fn prepare_commit(
        &self,
        task: &mut Self::Task,
        next_offset: Option<u64>,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset>;

    /// Whether what the last [`Stage::prepare_commit`] put out leaves the task as its outputs have it, so that it may be saved
    /// once they are committed.
    fn may_save(&self, _task: &Self::Task) -> bool {
        false
    }

    /// Saves the task's state, true at this marker, after its outputs were committed.
    ///
    /// # Errors
    /// The local state cannot be written.
    fn save(&self, _task: &mut Self::Task, _marker: &Marker) -> Result<(), EngineError> {
        Ok(())
    }

    /// How far event time has come in the task's input, in milliseconds since the Unix epoch; for the gauge.
    fn watermark_ms(&self, _task: &Self::Task) -> Option<i64> {
        None
    }

    /// Entries and bytes of state, for gauges.
    fn state_size(&self, _task: &Self::Task) -> (usize, usize) {
        (0, 0)
    }
}
