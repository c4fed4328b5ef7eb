//! Ingest's sink on the embedded log: durable by group commit before it answers.

use std::time::Duration;

use neonhub_ingest::sink::{EventSink, SinkError, SinkFuture};
use neonhub_schemas::NewRecord;

use super::log::{CommitUnit, Log, LogError};

pub struct LogSink {
    log: Log,
}

impl LogSink {
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log }
    }
}

pub(super) fn describe(error: &LogError) -> String {
    error.to_string()
}

impl EventSink for LogSink {
    fn append(&self, records: Vec<NewRecord>) -> SinkFuture<'_, Result<(), SinkError>> {
        let answer = self.log.submit(CommitUnit::of_records(records));
        Box::pin(async move {
            match answer.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(LogError::QueueFull)) => Err(SinkError::queue_full()),
                Ok(Err(error @ (LogError::TooLarge { .. } | LogError::Rejected { .. }))) => {
                    Err(SinkError::Rejected { detail: describe(&error) })
                }
                Ok(Err(error)) => Err(SinkError::unavailable(describe(&error))),
                Err(_) => Err(SinkError::unavailable("the log has stopped")),
            }
        })
    }

    fn ready(&self) -> Result<(), String> {
        self.log.health().map_err(|error| describe(&error))
    }

    fn close(&self, _deadline: Duration) -> SinkFuture<'_, Result<(), SinkError>> {
        // Every append has been answered: nothing is under way.
        Box::pin(async { Ok(()) })
    }
}
