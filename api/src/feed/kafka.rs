//! The feed on Kafka: consumers that are assigned by hand, read committed, and belong to no group.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::record::{Headers, Record};
use neonhub_schemas::topics::Topic;
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Batch, Bounds, FeedError, FeedLog, FeedReader};
use crate::control::kafka::{KafkaConfig, Reader};

pub struct KafkaFeed {
    config: KafkaConfig,
    topic: Topic,
    partitions: u32,
    /// Asked for watermarks only. One that gets no answer may have lost all brokers for good (librdkafka#5301), and makes place
    /// for another.
    watermarks: RwLock<Arc<Reader>>,
}

fn away(error: impl std::fmt::Display) -> FeedError {
    FeedError::Away(error.to_string())
}

fn offset(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

impl KafkaFeed {
    /// `partitions` as the topic was created with.
    ///
    /// # Errors
    /// The settings are refused.
    pub fn new(config: KafkaConfig, topic: Topic, partitions: u32) -> Result<Self, FeedError> {
        let watermarks = RwLock::new(Arc::new(config.reader().map_err(away)?));
        Ok(Self { config, topic, partitions, watermarks })
    }

    fn topic_name(&self) -> String {
        self.config.topic(self.topic)
    }
}

impl FeedLog for KafkaFeed {
    fn bounds(&self) -> Result<Vec<Bounds>, FeedError> {
        let topic = self.topic_name();
        let consumer = Arc::clone(&self.watermarks.read().unwrap_or_else(PoisonError::into_inner));
        let bound = |partition: u32| {
            let partition = i32::try_from(partition).map_err(away)?;
            let (low, high) = consumer.fetch_watermarks(&topic, partition, self.config.timeout).map_err(away)?;
            Ok(Bounds { start: offset(low), end: offset(high) })
        };
        let bounds = (0..self.partitions).map(bound).collect();
        if matches!(bounds, Err(FeedError::Away(_))) {
            let mut slot = self.watermarks.write().unwrap_or_else(PoisonError::into_inner);
            // Another question may have done it.
            if Arc::ptr_eq(&slot, &consumer) {
                *slot = Arc::new(self.config.reader().map_err(away)?);
            }
        }
        bounds
    }

    fn reader(&self, from: &[u64]) -> Result<Box<dyn FeedReader>, FeedError> {
        let bounds = self.bounds()?;
        for ((partition, bound), from) in (0..).zip(&bounds).zip(from) {
            if *from < bound.start || *from > bound.end {
                return Err(FeedError::OutOfRange { partition, start: bound.start });
            }
        }
        let consumer = self.config.reader().map_err(away)?;
        let topic = self.topic_name();
        let mut assignment = TopicPartitionList::new();
        for (partition, from) in from.iter().enumerate() {
            let partition = i32::try_from(partition).map_err(away)?;
            let from = Offset::Offset(i64::try_from(*from).map_err(away)?);
            assignment.add_partition_offset(&topic, partition, from).map_err(away)?;
        }
        consumer.assign(&assignment).map_err(away)?;
        let (timeout, heard_at) = (self.config.timeout, Instant::now());
        Ok(Box::new(KafkaReader {
            consumer,
            next: from.to_vec(),
            topic: self.topic,
            topic_name: topic,
            timeout,
            heard_at,
        }))
    }
}

struct KafkaReader {
    consumer: Reader,
    next: Vec<u64>,
    topic: Topic,
    topic_name: String,
    timeout: Duration,
    /// When a broker was last heard of.
    heard_at: Instant,
}

/// How long a reader may hear nothing before it asks whether there is a broker.
const SILENCE: Duration = Duration::from_secs(5);

impl FeedReader for KafkaReader {
    fn poll(&mut self, timeout: Duration, max_records: usize) -> Result<Batch, FeedError> {
        self.break_silence()?;
        let deadline = Instant::now() + timeout;
        let mut records = Vec::new();
        let mut at_end = Vec::new();
        let mut wait = timeout;
        // Once all partitions have been read to their end, there is nothing to wait for.
        while records.len() < max_records && at_end.len() < self.next.len() {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let record = read(self.topic, &message);
                    if let Some(next) = self.next.get_mut(record.partition as usize) {
                        *next = record.offset + 1;
                    }
                    records.push(record);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.extend(u32::try_from(partition));
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // librdkafka goes on by itself once a broker is back.
                    Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut) => {}
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        return Err(self.out_of_range());
                    }
                    _ => return Err(away(error)),
                },
            }
            // What has come is handed on at once; more is taken only if it is already here.
            wait = if records.is_empty() { deadline.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            if records.is_empty() && wait.is_zero() {
                break;
            }
        }
        if !records.is_empty() || !at_end.is_empty() {
            self.heard_at = Instant::now();
        }
        Ok(Batch { records, next: self.next.clone(), at_end })
    }
}

impl KafkaReader {
    /// A client that lost all brokers says nothing, and may not find them again (librdkafka#5301).
    fn break_silence(&mut self) -> Result<(), FeedError> {
        if self.heard_at.elapsed() >= SILENCE {
            self.consumer.fetch_metadata(Some(&self.topic_name), self.timeout).map_err(away)?;
            self.heard_at = Instant::now();
        }
        Ok(())
    }

    fn out_of_range(&self) -> FeedError {
        for (partition, next) in (0_u32..).zip(&self.next) {
            let Ok(number) = i32::try_from(partition) else { continue };
            let Ok((low, high)) = self.consumer.fetch_watermarks(&self.topic_name, number, self.timeout) else {
                continue;
            };
            if *next < offset(low) || *next > offset(high) {
                return FeedError::OutOfRange { partition, start: offset(low) };
            }
        }
        FeedError::Away("an offset was out of range, and is not any more".to_owned())
    }
}

fn read(topic: Topic, message: &BorrowedMessage<'_>) -> Record {
    let mut headers = Headers::new();
    for found in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        if let (Some(name), Some(value)) = (header::known(found.key), found.value) {
            headers = headers.with(name, Bytes::copy_from_slice(value));
        }
    }
    Record {
        topic,
        partition: u32::try_from(message.partition()).unwrap_or(0),
        offset: offset(message.offset()),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        value: message.payload().map(Bytes::copy_from_slice),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ControlLog;
    use crate::control::kafka::KafkaControl;
    use neonhub_schemas::record::NewRecord;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    fn record(topic: Topic, value: &'static str) -> NewRecord {
        NewRecord {
            topic,
            partition: Some(0),
            key: Bytes::from_static(b"key"),
            value: Some(Bytes::from_static(value.as_bytes())),
            headers: Headers::new().with(header::WORKSPACE, Bytes::from_static(b"acme")),
            timestamp_ms: 5,
        }
    }

    /// Of a cluster that has the topics, with one partition each.
    fn config(cluster: &MockCluster<'_, DefaultProducerContext>, timeout: Duration) -> KafkaConfig {
        let (brokers, topic_prefix) = (cluster.bootstrap_servers(), "t.".to_owned());
        let config = KafkaConfig { brokers, topic_prefix, timeout, extra: Vec::new() };
        for topic in [Topic::Control, Topic::MetricsWindows] {
            cluster.create_topic(&config.topic(topic), 1, 1).unwrap();
        }
        config
    }

    #[tokio::test]
    async fn what_is_appended_is_read_from_where_one_was() {
        let cluster = MockCluster::new(1).unwrap();
        let config = config(&cluster, Duration::from_secs(20));
        let log = KafkaControl::new(config.clone()).unwrap();
        for value in ["a", "b", "c"] {
            log.append(record(Topic::Control, value)).await.unwrap();
            log.append(record(Topic::MetricsWindows, value)).await.unwrap();
        }
        let read = log.read_all().await.unwrap();
        assert_eq!(read.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), ["a", "b", "c"]);
        let read = move || {
            let feed = KafkaFeed::new(config, Topic::MetricsWindows, 1).unwrap();
            assert_eq!(feed.bounds().unwrap(), [Bounds { start: 0, end: 3 }]);
            assert!(matches!(feed.reader(&[9]), Err(FeedError::OutOfRange { partition: 0, start: 0 })));
            let mut reader = feed.reader(&[1]).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            let mut values = Vec::new();
            let mut at_end = Vec::new();
            while Instant::now() < deadline && (values.len() < 2 || at_end.is_empty()) {
                let batch = reader.poll(Duration::from_millis(100), 10).unwrap();
                values.extend(batch.records.into_iter().map(|record| (record.offset, record.value.unwrap())));
                at_end.extend(batch.at_end);
            }
            assert_eq!(values, [(1, Bytes::from_static(b"b")), (2, Bytes::from_static(b"c"))]);
            assert!(at_end.contains(&0));
        };
        tokio::task::spawn_blocking(read).await.unwrap();
    }

    /// Its clients may be beyond repair: whoever asks again has others.
    #[tokio::test]
    async fn a_log_that_was_away_is_found_again_with_new_clients() {
        let cluster = MockCluster::new(1).unwrap();
        // A new idempotent client may wait half a second before it asks for its id: a timeout near that could replace each before
        // it is ready.
        let config = config(&cluster, Duration::from_secs(3));
        let log = KafkaControl::new(config.clone()).unwrap();
        let feed = Arc::new(KafkaFeed::new(config, Topic::MetricsWindows, 1).unwrap());
        let first = Arc::clone(&feed.watermarks.read().unwrap());
        cluster.broker_down(1).unwrap();
        assert!(log.append(record(Topic::Control, "a")).await.is_err());
        let asked = Arc::clone(&feed);
        let bounds = move || asked.bounds();
        assert!(matches!(tokio::task::spawn_blocking(bounds.clone()).await.unwrap(), Err(FeedError::Away(_))));
        assert!(!Arc::ptr_eq(&first, &feed.watermarks.read().unwrap()));
        cluster.broker_up(1).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while log.append(record(Topic::Control, "b")).await.is_err() {
            assert!(Instant::now() < deadline, "nothing can be appended");
        }
        while tokio::task::spawn_blocking(bounds.clone()).await.unwrap().is_err() {
            assert!(Instant::now() < deadline, "the bounds cannot be read");
        }
    }

    #[test]
    fn a_reader_that_hears_nothing_asks_whether_there_is_a_broker() {
        let cluster = MockCluster::new(1).unwrap();
        let config = config(&cluster, Duration::from_millis(500));
        let consumer = config.reader().unwrap();
        let mut reader = KafkaReader {
            consumer,
            next: vec![0],
            topic: Topic::MetricsWindows,
            topic_name: config.topic(Topic::MetricsWindows),
            timeout: config.timeout,
            heard_at: Instant::now(),
        };
        let long_ago = Instant::now().checked_sub(SILENCE).unwrap();
        reader.heard_at = long_ago;
        let deadline = Instant::now() + Duration::from_secs(60);
        while reader.break_silence().is_err() {
            assert!(Instant::now() < deadline, "no broker answers");
        }
        assert!(reader.heard_at > long_ago);
        cluster.broker_down(1).unwrap();
        assert!(reader.break_silence().is_ok(), "it has just heard of one");
        reader.heard_at = long_ago;
        assert!(matches!(reader.break_silence(), Err(FeedError::Away(_))));
    }
}
