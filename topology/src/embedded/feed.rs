//! Topics that are tailed, on the embedded log.

use std::time::Duration;

use neonhub_api::feed::{Batch, Bounds, FeedError, FeedLog, FeedReader};
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

use super::log::{Log, LogError};

pub struct LogFeed {
    log: Log,
    topic: Topic,
}

impl LogFeed {
    #[must_use]
    pub fn new(log: Log, topic: Topic) -> Self {
        Self { log, topic }
    }
}

fn away(error: LogError) -> FeedError {
    match error {
        LogError::OffsetOutOfRange { topic_partition, start, .. } => {
            FeedError::OutOfRange { partition: topic_partition.partition, start }
        }
        other => FeedError::Away(other.to_string()),
    }
}

impl FeedLog for LogFeed {
    fn bounds(&self) -> Result<Vec<Bounds>, FeedError> {
        let bounds = |partition| {
            let place = TopicPartition { topic: self.topic, partition };
            let start = self.log.start_offset(place).map_err(away)?;
            Ok(Bounds { start, end: self.log.end_offset(place).map_err(away)? })
        };
        (0..self.log.partitions(self.topic)).map(bounds).collect()
    }

    fn reader(&self, from: &[u64]) -> Result<Box<dyn FeedReader>, FeedError> {
        Ok(Box::new(LogFeedReader { log: self.log.clone(), topic: self.topic, next: from.to_vec() }))
    }
}

struct LogFeedReader {
    log: Log,
    topic: Topic,
    next: Vec<u64>,
}

/// Of a partition, at one time.
const READ_BYTES: usize = 1 << 20;

impl FeedReader for LogFeedReader {
    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Batch, FeedError> {
        let place = |partition| TopicPartition { topic: self.topic, partition };
        let waiting: Vec<(TopicPartition, u64)> =
            self.next.iter().zip(0..).map(|(next, partition)| (place(partition), *next)).collect();
        // Woken or not, there may be something: the read below tells.
        let _woken = self.log.wait_for_data(&waiting, timeout);
        let mut batch = Batch { next: self.next.clone(), ..Batch::default() };
        for (place, from) in waiting {
            let fetched = self.log.read(place, from, max_records, READ_BYTES).map_err(away)?;
            if fetched.next_offset >= fetched.end_offset {
                batch.at_end.push(place.partition);
            }
            if let Some(next) = batch.next.get_mut(place.partition as usize) {
                *next = fetched.next_offset;
            }
            batch.records.extend(fetched.records);
        }
        self.next.clone_from(&batch.next);
        Ok(batch)
    }
}
