//! Commits: transactions for workers with outputs, plain offset commits for the landing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use neonhub_schemas::record::{CommittedOffset, NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaErrorCode;

use super::config::KafkaConfig;
use super::errors::{classify, report};
use super::hanging::Scope;
use super::reader::KafkaReader;
use super::source::GroupConsumer;
use crate::engine::ports::{CommitUnit, Committer, EngineError};

/// Counts deliveries that failed. With a delivery callback the producer's poll returns as soon as there is a report.
#[derive(Default)]
pub(super) struct Deliveries {
    /// A broker went away since the producer was made.
    lost_broker: AtomicBool,
    failed: AtomicU64,
    first_failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        // Not for an idle connection that the broker closes: librdkafka does not speak of those.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::BrokerTransportFailure) {
            self.lost_broker.store(true, Ordering::Relaxed);
        }
        report(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.fetch_add(1, Ordering::Relaxed);
            let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Outputs and input offsets in one transaction, fenced by the transactional id and the group's generation. A
/// transaction is begun only when its outputs are ready: an open one holds back every reader of the partition.
pub struct KafkaTransactions {
    config: KafkaConfig,
    producer: BaseProducer<Deliveries>,
    consumer: Arc<GroupConsumer>,
    /// Of all topics, by their number.
    topic_names: Vec<String>,
}

impl KafkaTransactions {
    /// Fences whoever had the slot before, and ends the transaction it may have left open.
    ///
    /// # Errors
    /// The brokers refuse the settings or are away.
    pub fn new(
        config: &KafkaConfig,
        scope: Scope<'_>,
        slot: &str,
        consumer: Arc<GroupConsumer>,
        reader: &KafkaReader,
    ) -> Result<Self, EngineError> {
        let group = scope.group;
        let timeout_ms = config.timeout.as_millis();
        let transactional_id = format!("{}{group}-{slot}", config.prefix);
        let producer: BaseProducer<Deliveries> = config
            .client()
            .set("transactional.id", &transactional_id)
            .set("transaction.timeout.ms", timeout_ms.to_string())
            .set("message.timeout.ms", (timeout_ms * 4 / 5).to_string())
            .set("compression.type", "lz4")
            .set("linger.ms", "1")
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", "500000")
            // A new transaction waits for the markers of the last one.
            .set("retry.backoff.ms", "5")
            .create_with_context(Deliveries::default())
            .map_err(|error| classify(&error))?;
        producer.init_transactions(config.timeout).map_err(|error| classify(&error))?;
        let topic_names = Topic::ALL.iter().map(|topic| config.topic_name(*topic)).collect();
        let transactions = Self { config: config.clone(), producer, consumer, topic_names };
        transactions.end_hanging(reader, scope, &transactional_id)?;
        Ok(transactions)
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(super) fn producer(&self) -> &BaseProducer<Deliveries> {
        &self.producer
    }

    fn send(&self, record: &NewRecord, deadline: Instant) -> Result<(), EngineError> {
        let topic = &self.topic_names[usize::from(record.topic.number())];
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value.as_ref()) });
        }
        let mut message = BaseRecord::<[u8], [u8]>::to(topic)
            .key(record.key.as_ref())
            .timestamp(record.timestamp_ms)
            .headers(headers);
        if let Some(value) = &record.value {
            message = message.payload(value.as_ref());
        }
        if let Some(partition) = record.partition {
            message = message.partition(partition.cast_signed());
        }
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < deadline =>
                {
                    self.producer.poll(Duration::from_millis(5));
                    message = back;
                }
                Err((error, _)) => return Err(classify(&error)),
            }
        }
    }

    /// Waits for every delivery report, in small steps: `flush` sleeps out 100 ms, and a poll with a deadline spins through
    /// its last millisecond, because rdkafka waits in whole ones.
    pub(super) fn await_deliveries(&self, deadline: Instant) -> Result<(), EngineError> {
        loop {
            let in_flight = self.producer.in_flight_count();
            if in_flight == 0 {
                break;
            }
            if Instant::now() >= deadline {
                return Err(EngineError::Unavailable("outputs were not delivered in time".to_owned()));
            }
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() == in_flight {
                std::thread::sleep(REPORTS_PAUSE);
            }
        }
        // A fenced producer gives up what is in its queue: that it is fenced says more.
        if let Some((code, _)) = self.producer.client().fatal_error() {
            return Err(classify(&KafkaError::Global(code)));
        }
        let context = self.producer.context();
        if context.failed.load(Ordering::Relaxed) > 0 {
            let first = context.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Err(EngineError::Unavailable(format!("outputs were not delivered: {}", first.unwrap_or_default())));
        }
        Ok(())
    }
}

/// Between two looks at delivery reports: a small part of what a broker takes.
const REPORTS_PAUSE: Duration = Duration::from_micros(300);

impl Committer for KafkaTransactions {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        // It may have forgotten the end of the last transaction: the next one would end that, too (see `hanging`).
        if self.producer.context().lost_broker.load(Ordering::Relaxed) {
            return Err(EngineError::Unavailable("a broker went away".to_owned()));
        }
        let deadline = Instant::now() + self.config.timeout;
        self.producer.begin_transaction().map_err(|error| classify(&error))?;
        for record in &unit.records {
            self.send(record, deadline)?;
        }
        self.await_deliveries(deadline)?;
        if !unit.offsets.is_empty() {
            // Fresh each time: a stale generation is how a zombie is found out.
            let Some(group) = self.consumer.group_metadata() else {
                return Err(EngineError::Fenced("the worker is in no group".to_owned()));
            };
            let offsets = offset_list(&self.config, &unit.offsets)?;
            self.producer
                .send_offsets_to_transaction(&offsets, &group, self.config.timeout)
                .map_err(|error| classify(&error))?;
        }
        self.producer.commit_transaction(self.config.timeout).map_err(|error| classify(&error))
    }
}

/// Offsets with metadata, and nothing else: what the landing needs.
pub struct KafkaOffsetCommitter {
    config: KafkaConfig,
    consumer: Arc<GroupConsumer>,
}

impl KafkaOffsetCommitter {
    #[must_use]
    pub fn new(config: &KafkaConfig, consumer: Arc<GroupConsumer>) -> Self {
        Self { config: config.clone(), consumer }
    }
}

impl Committer for KafkaOffsetCommitter {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        if !unit.records.is_empty() {
            return Err(EngineError::Fatal("this committer takes offsets only".to_owned()));
        }
        let offsets = offset_list(&self.config, &unit.offsets)?;
        self.consumer.commit(&offsets, CommitMode::Sync).map_err(|error| classify(&error))
    }
}

fn offset_list(
    config: &KafkaConfig,
    offsets: &[(TopicPartition, CommittedOffset)],
) -> Result<TopicPartitionList, EngineError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (place, committed) in offsets {
        let mut element = list.add_partition(&config.topic_name(place.topic), place.partition.cast_signed());
        let offset = i64::try_from(committed.offset).unwrap_or(i64::MAX);
        element.set_offset(Offset::Offset(offset)).map_err(|error| classify(&error))?;
        element.set_metadata(&committed.metadata);
    }
    Ok(list)
}
