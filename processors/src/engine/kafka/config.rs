//! Settings of the Kafka adapter.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use neonhub_schemas::Topic;
use neonhub_schemas::record::TopicPartition;
use rdkafka::ClientConfig;

#[derive(Clone)]
pub struct KafkaConfig {
    pub brokers: String,
    /// In front of every topic, group and transactional id; may be empty.
    pub prefix: String,
    /// librdkafka properties for all clients: security, SASL. Never shown.
    pub properties: BTreeMap<String, String>,
    /// How long a group waits for a member that fell silent.
    pub session_timeout: Duration,
    /// For requests; a transaction that takes longer is given up.
    pub timeout: Duration,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl KafkaConfig {
    #[must_use]
    pub fn new(brokers: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            prefix: prefix.into(),
            properties: BTreeMap::new(),
            session_timeout: Duration::from_secs(6),
            timeout: Duration::from_secs(10),
        }
    }

    #[must_use]
    pub fn topic_name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Topic> {
        Topic::from_name(name.strip_prefix(&self.prefix)?)
    }

    pub(super) fn place(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        Some(TopicPartition { topic: self.topic(topic)?, partition: u32::try_from(partition).ok()? })
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        // A broker that was away is tried each second, and one that does not answer is given up after three; librdkafka's 10 s
        // and 30 s would be added to what an outage takes.
        client
            .set("bootstrap.servers", &self.brokers)
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.connection.setup.timeout.ms", "3000");
        for (name, value) in &self.properties {
            client.set(name, value);
        }
        client
    }

    /// A consumer's settings. The prefetch queue is small and refilled at once: with librdkafka's default back-off of a
    /// second, a full queue stops fetching for that long.
    pub(super) fn consumer(&self, isolation: &str) -> ClientConfig {
        let mut client = self.client();
        client
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "20")
            .set("queued.max.messages.kbytes", "32768")
            .set("check.crcs", "true");
        client
    }
}
