//! `control` on Kafka: an idempotent producer with acks=all, and a short-lived reader for reconciliation.

use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use neonhub_schemas::record::NewRecord;
use neonhub_schemas::topics::Topic;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{ControlError, ControlLog};

/// Where Kafka is, for `control` and the live feed alike.
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    pub brokers: String,
    /// Stands before every topic's name.
    pub topic_prefix: String,
    /// Of one request, and of one durable append.
    pub timeout: Duration,
    /// Further librdkafka settings (security); values are not shown in logs.
    pub extra: Vec<(String, String)>,
}

impl KafkaConfig {
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // A broker that was away is tried each second, not each ten; one that does not answer is given up after three, not thirty.
        config
            .set("bootstrap.servers", &self.brokers)
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", "3000");
        for (name, value) in &self.extra {
            config.set(name, value);
        }
        config
    }

    pub(crate) fn reader(&self) -> Result<Reader, KafkaError> {
        self.client()
            .set("group.id", "neonhub-api")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.queue.backoff.ms", "5")
            // Every client that replays has a reader: what one fetches ahead is little.
            .set("queued.max.messages.kbytes", "2048")
            .set("fetch.message.max.bytes", "131072")
            .create_with_context(Quiet)
    }

    fn producer(&self) -> Result<FutureProducer, KafkaError> {
        self.client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", self.timeout.as_millis().to_string())
            .create()
    }

    pub(crate) fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name())
    }
}

pub(crate) type Reader = BaseConsumer<Quiet>;

/// Logs what librdkafka says beside any call. The end of a partition is no error.
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "librdkafka");
        }
    }
}

impl ConsumerContext for Quiet {}

pub struct KafkaControl {
    config: KafkaConfig,
    /// With a number that grows when it is replaced.
    producer: RwLock<(u64, FutureProducer)>,
}

fn away(error: impl std::fmt::Display) -> ControlError {
    ControlError(error.to_string())
}

impl KafkaControl {
    /// # Errors
    /// The settings are refused; a broker that is away is found out later.
    pub fn new(config: KafkaConfig) -> Result<Self, ControlError> {
        let producer = RwLock::new((0, config.producer().map_err(away)?));
        Ok(Self { config, producer })
    }

    /// A client whose record timed out may have lost all brokers for good (librdkafka#5301): the next record has a new one.
    fn replace_producer(&self, timed_out: u64) {
        let mut producer = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        // Another request may have done it.
        if producer.0 == timed_out {
            match self.config.producer() {
                Ok(another) => {
                    let former = std::mem::replace(&mut *producer, (timed_out + 1, another));
                    // To end it may take its time.
                    std::thread::spawn(move || drop(former));
                }
                Err(error) => tracing::warn!(%error, "no new Kafka producer"),
            }
        }
    }
}

#[async_trait]
impl ControlLog for KafkaControl {
    async fn append(&self, record: NewRecord) -> Result<(), ControlError> {
        let topic = self.config.topic(record.topic);
        let mut headers = OwnedHeaders::new();
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value.as_ref()) });
        }
        let mut message = FutureRecord::<[u8], [u8]>::to(&topic)
            .key(record.key.as_ref())
            .headers(headers)
            .partition(0)
            .timestamp(record.timestamp_ms);
        if let Some(value) = &record.value {
            message = message.payload(value.as_ref());
        }
        let (number, producer) = self.producer.read().unwrap_or_else(PoisonError::into_inner).clone();
        producer.send(message, self.config.timeout).await.map(drop).map_err(|(error, _)| {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
                self.replace_producer(number);
            }
            away(error)
        })
    }

    async fn read_all(&self) -> Result<Vec<(Bytes, Bytes)>, ControlError> {
        let config = self.config.clone();
        tokio::task::spawn_blocking(move || read_all(&config)).await.map_err(away)?
    }
}

fn read_all(config: &KafkaConfig) -> Result<Vec<(Bytes, Bytes)>, ControlError> {
    let topic = config.topic(Topic::Control);
    let consumer = config.reader().map_err(away)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(&topic, 0, Offset::Beginning).map_err(away)?;
    consumer.assign(&assignment).map_err(away)?;
    let deadline = Instant::now() + config.timeout;
    let mut records = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let key = Bytes::copy_from_slice(message.key().unwrap_or_default());
                records.extend(message.payload().map(|value| (key, Bytes::copy_from_slice(value))));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
            Some(Err(error)) => return Err(away(error)),
        }
    }
    Err(away("`control` could not be read to its end in time"))
}
