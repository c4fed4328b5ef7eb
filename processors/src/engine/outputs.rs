//! What a stage gives back: records, and what it counted.

use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::record::{NewRecord, Record};
use neonhub_schemas::trace::TraceContext;

use super::EngineError;

/// Collected by the stage, committed by the worker.
#[derive(Debug, Default)]
pub struct Outputs {
    pub records: Vec<NewRecord>,
    pub duplicates: u64,
    pub late: u64,
    pub dead_letters: u64,
    pub capped: u64,
    /// The stage could not go on: nothing of this may be committed.
    pub failure: Option<EngineError>,
    /// Of the record that is being processed.
    pub trace: Option<TraceContext>,
}

impl Outputs {
    pub(super) fn add_counts(&mut self, other: &Self) {
        self.duplicates += other.duplicates;
        self.late += other.late;
        self.dead_letters += other.dead_letters;
        self.capped += other.capped;
    }

    /// Puts out what follows from the record that is being processed: it goes on in its trace.
    pub fn put(&mut self, mut record: NewRecord) {
        record.headers = TraceContext::stamp_if(self.trace, record.headers);
        self.records.push(record);
    }

    /// Says that the stage cannot go on; the first reason counts.
    pub fn fail(&mut self, error: EngineError) {
        self.failure.get_or_insert(error);
    }

    /// Sets a record aside that cannot be processed; its partition goes on.
    pub fn reject(&mut self, record: &Record, stage: &str, reason: &str, detail: impl std::fmt::Display) {
        self.dead_letters += 1;
        let letter = DeadLetter {
            workspace: String::from_utf8_lossy(workspace_of(&record.key)).into_owned(),
            reason: reason.to_owned(),
            detail: detail.to_string(),
            stage: stage.to_owned(),
            place: format!("{}/{}@{}", record.topic, record.partition, record.offset),
            received_at: record.timestamp_ms,
            ..DeadLetter::default()
        };
        let letter = letter.with_original(record.value.as_deref().unwrap_or_default());
        self.put(letter.to_record());
    }
}

/// The first part of a key like `workspace|actor`.
fn workspace_of(key: &[u8]) -> &[u8] {
    key.iter().position(|byte| *byte == b'|').map_or(&[], |end| &key[..end])
}
