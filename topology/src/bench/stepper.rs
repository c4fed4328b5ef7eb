//! One partition of a stage, stepped by hand under a clock that the caller turns.

use neonhub_processors::engine::{LocalState, Marker, Outputs, Stage};
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

/// A stage and its one task; what it puts out is handed to the caller and kept nowhere.
pub struct Stepper<S: Stage> {
    pub stage: S,
    task: S::Task,
    topic: Topic,
    next_offset: u64,
    outputs: Outputs,
    /// Messages that were dropped as retries, and committed.
    pub duplicates: u64,
}

impl<S: Stage> Stepper<S> {
    pub fn new(stage: S, topic: Topic) -> anyhow::Result<Self> {
        Self::with_local(stage, topic, None)
    }

    pub fn with_local(stage: S, topic: Topic, local: Option<LocalState>) -> anyhow::Result<Self> {
        let task = stage.open(TopicPartition { topic, partition: 0 }, None, local)?;
        Ok(Self { stage, task, topic, next_offset: 0, outputs: Outputs::default(), duplicates: 0 })
    }

    pub fn process(&mut self, new: NewRecord, now_ms: i64) {
        let record = as_record(new, self.topic, self.next_offset);
        self.next_offset += 1;
        self.stage.process(&mut self.task, &record, now_ms, &mut self.outputs);
    }

    /// What a commit puts out.
    pub fn commit(&mut self, now_ms: i64) -> anyhow::Result<Vec<NewRecord>> {
        let mut outputs = std::mem::take(&mut self.outputs);
        let position = (self.next_offset > 0).then_some(self.next_offset);
        // Where the group stands is of no interest: nothing begins again.
        let _committed = self.stage.prepare_commit(&mut self.task, position, now_ms, &mut outputs);
        if let Some(error) = outputs.failure {
            return Err(error.into());
        }
        if self.stage.may_save(&self.task) {
            self.stage.save(&mut self.task, &Marker::detached(now_ms))?;
        }
        anyhow::ensure!(outputs.dead_letters == 0, "{} set {} records aside", self.stage.name(), outputs.dead_letters);
        self.duplicates += outputs.duplicates;
        Ok(outputs.records)
    }

    /// Whether something waits although no record came.
    pub fn has_to_commit(&self, now_ms: i64) -> bool {
        self.stage.is_due(&self.task, now_ms)
    }

    /// Entries and bytes of state, as the stage estimates them.
    pub fn state_size(&self) -> (usize, usize) {
        self.stage.state_size(&self.task)
    }
}

pub fn as_record(new: NewRecord, topic: Topic, offset: u64) -> Record {
    Record {
        topic,
        partition: 0,
        offset,
        timestamp_ms: new.timestamp_ms,
        key: new.key,
        value: new.value,
        headers: new.headers,
    }
}
