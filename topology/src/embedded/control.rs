//! The API's port to `control` on the embedded log.

use async_trait::async_trait;
use bytes::Bytes;
use neonhub_api::control::{ControlError, ControlLog};
use neonhub_schemas::record::{NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::log::{CommitUnit, Log, LogError};

pub struct LogControl {
    log: Log,
}

impl LogControl {
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self { log }
    }
}

const CONTROL: TopicPartition = TopicPartition { topic: Topic::Control, partition: 0 };

#[async_trait]
impl ControlLog for LogControl {
    async fn append(&self, record: NewRecord) -> Result<(), ControlError> {
        match self.log.submit(CommitUnit::of_records(vec![record])).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ControlError(error.to_string())),
            Err(_) => Err(ControlError("the log has stopped".to_owned())),
        }
    }

    async fn read_all(&self) -> Result<Vec<(Bytes, Bytes)>, ControlError> {
        let log = self.log.clone();
        let read = move || -> Result<Vec<(Bytes, Bytes)>, LogError> {
            let end = log.end_offset(CONTROL)?;
            let mut next = log.start_offset(CONTROL)?;
            let mut records = Vec::new();
            while next < end {
                let fetched = log.read(CONTROL, next, 1_000, 4 * 1024 * 1024)?;
                if fetched.next_offset <= next {
                    break;
                }
                next = fetched.next_offset;
                records.extend(fetched.records.into_iter().filter_map(|record| Some((record.key, record.value?))));
            }
            Ok(records)
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| ControlError(error.to_string()))?;
        read.map_err(|error| ControlError(error.to_string()))
    }
}
