//! What the Kafka sink can be told, and what librdkafka is told in turn.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port,host:port`.
    pub brokers: String,
    /// Stands before every topic's name.
    pub topic_prefix: String,
    pub client_id: String,
    /// Records that may wait for the brokers; above it requests are turned away.
    pub max_queued_records: usize,
    pub max_queued_kilobytes: usize,
    /// For how long the records of different requests gather at least before they are handed over together. The first one
    /// after a pause does not wait.
    pub linger: Duration,
    /// For how long they gather at most, while those handed over before are not on the log yet.
    pub longest_round: Duration,
    /// How long the producer tries to deliver a record.
    pub delivery_timeout: Duration,
    /// How long a request waits; longer than `delivery_timeout`, or records might be written after their failure was
    /// reported.
    pub append_deadline: Duration,
    /// Further librdkafka properties, such as `security.protocol` and `sasl.*`; they win over the ones set here.
    pub extra: BTreeMap<String, String>,
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            topic_prefix: String::new(),
            client_id: "neonhub-ingest".to_owned(),
            max_queued_records: 200_000,
            max_queued_kilobytes: 256 * 1024,
            linger: Duration::from_millis(2),
            longest_round: Duration::from_millis(20),
            delivery_timeout: Duration::from_secs(8),
            append_deadline: Duration::from_secs(10),
            extra: BTreeMap::new(),
        }
    }
}

/// Values of `extra` are often secrets; only their names are shown.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("client_id", &self.client_id)
            .field("max_queued_records", &self.max_queued_records)
            .field("max_queued_kilobytes", &self.max_queued_kilobytes)
            .field("linger", &self.linger)
            .field("longest_round", &self.longest_round)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("append_deadline", &self.append_deadline)
            .field("extra", &self.extra.keys())
            .finish()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("delivery_timeout ({delivery:?}) must be shorter than append_deadline ({append:?})")]
    DeadlineTooShort { delivery: Duration, append: Duration },
    #[error("brokers is empty: give host:port, or several with commas between them")]
    NoBrokers,
    #[error("Kafka client: {0}")]
    Kafka(#[from] KafkaError),
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl KafkaSettings {
    #[must_use]
    pub fn for_testing(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            linger: Duration::from_millis(1),
            delivery_timeout: Duration::from_secs(3),
            append_deadline: Duration::from_secs(5),
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.brokers.trim().is_empty() {
            return Err(SettingsError::NoBrokers);
        }
        if self.delivery_timeout >= self.append_deadline {
            return Err(SettingsError::DeadlineTooShort {
                delivery: self.delivery_timeout,
                append: self.append_deadline,
            });
        }
        Ok(())
    }

    pub(super) fn client_config(&self) -> ClientConfig {
        let delivery_ms = self.delivery_timeout.as_millis();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("partitioner", "murmur2_random")
            // Records come in bunches already: this covers the moment in which one is handed over. Parts of a millisecond
            // would be waited for without a pause.
            .set("linger.ms", "1")
            .set("queue.buffering.max.messages", self.max_queued_records.to_string())
            .set("queue.buffering.max.kbytes", self.max_queued_kilobytes.to_string())
            .set("message.timeout.ms", delivery_ms.to_string())
            .set("request.timeout.ms", (delivery_ms / 2).max(1).to_string())
            .set("retry.backoff.ms", "50")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", "3000")
            .set("topic.metadata.propagation.max.ms", (delivery_ms / 2).max(1).to_string())
            .set("allow.auto.create.topics", "false");
        for (name, value) in &self.extra {
            config.set(name, value);
        }
        config
    }
}
