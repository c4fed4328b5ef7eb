//! One partition of a stage's input and what came out of it, kept as the log would keep it.

use neonhub_processors::engine::{Outputs, Restore, Stage};
use neonhub_schemas::record::{CommittedOffset, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

/// A stage with one task, its committed offset and everything it committed.
pub struct Bench<S: Stage> {
    pub stage: S,
    task: S::Task,
    place: TopicPartition,
    input: Vec<Record>,
    position: Option<u64>,
    pub committed: Option<CommittedOffset>,
    pub outputs: Vec<Record>,
    pub late: u64,
    pub capped: u64,
}

impl<S: Stage> Bench<S> {
    pub fn new(stage: S, topic: Topic) -> Self {
        let place = TopicPartition { topic, partition: 0 };
        let task = stage.open(place, None, None).unwrap();
        Self {
            stage,
            task,
            place,
            input: Vec::new(),
            position: None,
            committed: None,
            outputs: Vec::new(),
            late: 0,
            capped: 0,
        }
    }

    /// Appends a record to the input and processes it.
    pub fn feed(&mut self, record: NewRecord, now_ms: i64) {
        let offset = self.input.len() as u64;
        self.input.push(as_record(record, 0, offset));
        self.process_from(offset, now_ms);
    }

    fn process_from(&mut self, offset: u64, now_ms: i64) {
        let mut out = Outputs::default();
        for record in self.input.iter().filter(|record| record.offset >= offset) {
            self.stage.process(&mut self.task, record, now_ms, &mut out);
            self.position = Some(record.offset + 1);
        }
        self.take(out);
    }

    pub fn commit(&mut self, now_ms: i64) {
        let mut out = Outputs::default();
        let committed = self.stage.prepare_commit(&mut self.task, self.position, now_ms, &mut out);
        self.take(out);
        if let Some(committed) = committed {
            self.committed = Some(committed);
        }
    }

    fn take(&mut self, out: Outputs) {
        self.late += out.late;
        self.capped += out.capped;
        for record in out.records {
            let offset = self.outputs.len() as u64;
            self.outputs.push(as_record(record, 0, offset));
        }
    }

    /// A crash right after a commit: the state is rebuilt from what is committed, and the input is read again from there.
    pub fn restart(&mut self, now_ms: i64) {
        self.task = self.stage.open(self.place, self.committed.as_ref(), None).unwrap();
        self.position = None;
        for part in self.stage.restore_plan(self.place, self.committed.as_ref()) {
            let (Restore::Whole(place) | Restore::Since(place, _)) = part;
            for record in self.outputs.iter().filter(|record| record.topic == place.topic) {
                self.stage.restore(&mut self.task, record).unwrap();
            }
        }
        let from = self.committed.as_ref().map_or(0, |committed| committed.offset);
        self.process_from(from, now_ms);
    }

    pub fn entries(&self) -> usize {
        self.stage.state_size(&self.task).0
    }

    pub fn state_bytes(&self) -> usize {
        self.stage.state_size(&self.task).1
    }

    pub fn is_due(&self, now_ms: i64) -> bool {
        self.stage.is_due(&self.task, now_ms)
    }

    pub fn watermark_ms(&self) -> Option<i64> {
        self.stage.watermark_ms(&self.task)
    }
}

fn as_record(new: NewRecord, partition: u32, offset: u64) -> Record {
    Record {
        topic: new.topic,
        partition: new.partition.unwrap_or(partition),
        offset,
        timestamp_ms: new.timestamp_ms,
        key: new.key,
        value: new.value,
        headers: new.headers,
    }
}
