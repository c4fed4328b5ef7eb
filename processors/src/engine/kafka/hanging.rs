//! Transactions that the coordinator forgot. A broker of Kafka 4 that comes back while partitions have no leader takes
//! them for deleted and ends a transaction without writing its markers there ("these partitions are likely deleted already
//! and hence can be skipped", `TransactionMarkerChannelManager`; seen on 4.3.1 after a kill of the only replica). Readers
//! then stop at that transaction for good; worse, the next commit of the same producer id would commit what had been
//! aborted, and its records would count twice. So a worker begins with an aborted transaction of its own on every output
//! partition that is not stable and on its group's offsets: its marker ends there whatever an earlier epoch left open.
//!
//! Read by [KIP-890](https://cwiki.apache.org/confluence/display/KAFKA/KIP-890%3A+Transactions+Server-Side+Defense).

use std::time::{Duration, Instant};

use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::committer::KafkaTransactions;
use super::errors::{Quiet, classify};
use super::reader::KafkaReader;
use crate::engine::ports::EngineError;

/// The key of records that are never committed.
const KEY: &[u8] = b"aborted";

/// What a worker's transactions touch.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub group: &'a str,
    pub inputs: &'a [Topic],
    pub outputs: &'a [Topic],
}

impl KafkaTransactions {
    /// Aborts what earlier epochs of this producer left open. Needs a producer that is initialised and in no transaction.
    pub(super) fn abort_hanging(&self, reader: &KafkaReader, scope: Scope<'_>) -> Result<(), EngineError> {
        let config = self.config();
        let producer = self.producer();
        let unstable = reader.unstable(scope.outputs)?;
        let deadline = Instant::now() + config.timeout;
        producer.begin_transaction().map_err(|error| classify(&error))?;
        for place in &unstable {
            let topic = config.topic_name(place.topic);
            let record = BaseRecord::<[u8], [u8]>::to(&topic).partition(place.partition.cast_signed()).key(KEY);
            producer.send(record).map_err(|(error, _)| classify(&error))?;
        }
        self.await_deliveries(deadline)?;
        self.touch_offsets(scope)?;
        producer.abort_transaction(config.timeout).map_err(|error| classify(&error))?;
        if !unstable.is_empty() {
            tracing::info!(group = scope.group, partitions = ?unstable, "aborted what may have been left open");
        }
        Ok(())
    }

    /// Makes the group's offsets a part of the transaction. The coordinator may refuse the offset itself, as this is no
    /// member of the group: by then they are.
    fn touch_offsets(&self, scope: Scope<'_>) -> Result<(), EngineError> {
        let config = self.config();
        let Some(input) = scope.inputs.first() else { return Ok(()) };
        let stranger: BaseConsumer = config
            .consumer("read_committed")
            .set("group.id", format!("{}{}", config.prefix, scope.group))
            .create()
            .map_err(|error| classify(&error))?;
        let Some(group) = stranger.group_metadata() else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&config.topic_name(*input), 0, Offset::Offset(0))
            .map_err(|error| classify(&error))?;
        if let Err(error) = self.producer().send_offsets_to_transaction(&offsets, &group, config.timeout) {
            tracing::debug!(%error, "the group refuses a stranger's offset, as it may");
        }
        match self.producer().client().fatal_error() {
            Some((code, _)) => Err(classify(&rdkafka::error::KafkaError::Global(code))),
            None => Ok(()),
        }
    }
}

impl KafkaReader {
    /// Partitions of these topics with records that are neither committed nor aborted yet.
    fn unstable(&self, topics: &[Topic]) -> Result<Vec<TopicPartition>, EngineError> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let name = self.config().topic_name(*topic);
            let metadata = self.committed().fetch_metadata(Some(&name), TIMEOUT).map_err(|error| classify(&error))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                // The end is asked for as a time.
                list.add_partition_offset(&name, partition.id(), Offset::End).map_err(|error| classify(&error))?;
            }
        }
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let ends = |consumer: &BaseConsumer<Quiet>| {
            consumer.offsets_for_times(list.clone(), TIMEOUT).map_err(|error| classify(&error))
        };
        let (stable, high) = (ends(self.committed())?, ends(self.uncommitted())?);
        let mut unstable = Vec::new();
        for (stable, high) in stable.elements().iter().zip(high.elements()) {
            high.error().map_err(|error| classify(&error))?;
            stable.error().map_err(|error| classify(&error))?;
            if stable.offset() != high.offset() {
                unstable.extend(self.config().place(high.topic(), high.partition()));
            }
        }
        Ok(unstable)
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
