//! Reads partitions outside of any group, bounded by the high watermark: a restore that is bounded by the last stable
//! offset would miss what a transaction that is still open has committed in the end.

use std::time::{Duration, Instant};

use neonhub_schemas::event::Source as Family;
use neonhub_schemas::record::{Record, TopicPartition};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::batch::Batch;
use super::config::KafkaConfig;
use super::errors::{Quiet, classify};
use crate::engine::ports::{EngineError, LogReader, Part};

/// Open transactions are given up by the broker after their timeout; this is longer.
pub const OPEN_TRANSACTION_LIMIT: Duration = Duration::from_secs(60);

pub struct KafkaReader {
    config: KafkaConfig,
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
}

impl KafkaReader {
    /// # Errors
    /// The settings are wrong.
    pub fn new(config: &KafkaConfig) -> Result<Self, EngineError> {
        let make = |isolation: &str| {
            // A group id must be given; it is never joined.
            let group = format!("{}reader", config.prefix);
            config
                .consumer(isolation)
                .set("group.id", group)
                .create_with_context(Quiet)
                .map_err(|error| classify(&error))
        };
        Ok(Self { config: config.clone(), committed: make("read_committed")?, uncommitted: make("read_uncommitted")? })
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(super) fn committed(&self) -> &BaseConsumer<Quiet> {
        &self.committed
    }

    pub(super) fn uncommitted(&self) -> &BaseConsumer<Quiet> {
        &self.uncommitted
    }

    fn watermarks(&self, consumer: &BaseConsumer<Quiet>, place: TopicPartition) -> Result<(u64, u64), EngineError> {
        let (low, high) = consumer
            .fetch_watermarks(&self.config.topic_name(place.topic), place.partition.cast_signed(), self.config.timeout)
            .map_err(|error| classify(&error))?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    fn await_stable(&self, place: TopicPartition, to: u64) -> Result<(), EngineError> {
        let deadline = Instant::now() + OPEN_TRANSACTION_LIMIT;
        while self.watermarks(&self.committed, place)?.1 < to {
            if Instant::now() >= deadline {
                return Err(EngineError::Unavailable(format!("{place}: a transaction stays open below offset {to}")));
            }
            // Paces the question; there is nothing to be woken by.
            self.committed.poll(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl LogReader for KafkaReader {
    fn bounds(&mut self, place: TopicPartition) -> Result<(u64, u64), EngineError> {
        self.watermarks(&self.uncommitted, place)
    }

    fn offset_for_time(&mut self, place: TopicPartition, timestamp_ms: i64) -> Result<u64, EngineError> {
        let name = self.config.topic_name(place.topic);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&name, place.partition.cast_signed(), Offset::Offset(timestamp_ms.max(0)))
            .map_err(|error| classify(&error))?;
        let found = self.uncommitted.offsets_for_times(list, self.config.timeout).map_err(|error| classify(&error))?;
        match found.find_partition(&name, place.partition.cast_signed()).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(u64::try_from(offset).unwrap_or(0)),
            _ => Ok(self.bounds(place)?.1),
        }
    }

    fn read(
        &mut self,
        place: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        self.await_stable(place, to)?;
        let mut next = from;
        // An end that is told may be that of a broker which does not know all yet: it is believed when, asked anew, there is
        // nothing more.
        loop {
            let reached = self.read_to_end(place, next, to, each)?;
            if reached == next || reached >= to {
                return self.committed.unassign().map_err(|error| classify(&error));
            }
            next = reached;
        }
    }
}

/// At most so many bytes at a time.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

impl KafkaReader {
    /// Hands over what there is from `from` on and below `to`; the offset after the last record.
    fn read_to_end(
        &mut self,
        place: TopicPartition,
        from: u64,
        to: u64,
        each: &mut dyn FnMut(Record),
    ) -> Result<u64, EngineError> {
        let mut list = TopicPartitionList::new();
        let start = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.config.topic_name(place.topic), place.partition.cast_signed(), start)
            .map_err(|error| classify(&error))?;
        self.committed.assign(&list).map_err(|error| classify(&error))?;
        // Who reads events back needs their headers only; of other topics they say nothing that the value does not.
        let part = if Family::of_topic(place.topic).is_some() { Part::Whole } else { Part::KeyAndValue };
        let mut next = from;
        let mut deadline = Instant::now() + self.config.timeout;
        loop {
            let mut batch = Batch::default();
            let mut ended = false;
            while batch.len() < 10_000 && batch.size() < BATCH_BYTES && !ended {
                match self.committed.poll(Duration::from_millis(100)) {
                    None => break,
                    Some(Ok(message)) => {
                        let offset = u64::try_from(message.offset()).unwrap_or(0);
                        next = offset + 1;
                        if offset < to {
                            batch.push(place, &message, part);
                        }
                        ended = next >= to;
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => ended = true,
                    Some(Err(error)) => return Err(classify(&error)),
                }
            }
            if !batch.is_empty() {
                deadline = Instant::now() + self.config.timeout;
            }
            batch.finish().into_iter().for_each(&mut *each);
            if ended {
                return Ok(next);
            }
            if Instant::now() >= deadline {
                return Err(EngineError::Unavailable(format!(
                    "{place}: nothing came within {:?}",
                    self.config.timeout
                )));
            }
        }
    }
}
