//! Transactions that the coordinator forgot. A broker of Kafka 4.1 and later that comes back while partitions have no leader
//! takes them for deleted and ends a transaction without writing its markers there
//! ([KAFKA-20734](https://issues.apache.org/jira/browse/KAFKA-20734), seen on 4.3.1 after a kill of the only replica).
//! Readers then stop at that transaction for good; worse, the end of the next transaction of the same producer id would be
//! the end of this one, too, be it the same or not. So a worker that begins ends what is left open itself, as the coordinator
//! had decided it: with a transaction of its own in every such partition, and with the group's offsets if they are a part of it.
//!
//! Read by [KIP-890](https://cwiki.apache.org/confluence/display/KAFKA/KIP-890%3A+Transactions+Server-Side+Defense).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use neonhub_schemas::topics::{TRANSACTION_END_KEY, Topic};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};

use super::committer::KafkaTransactions;
use super::decisions::Decision;
use super::errors::{Quiet, classify};
use super::reader::KafkaReader;
use crate::engine::ports::EngineError;

/// What a worker's transactions touch.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub group: &'a str,
    pub inputs: &'a [Topic],
    pub outputs: &'a [Topic],
}

/// A topic's name in the cluster, and the partition.
type Place = (String, i32);

/// A transaction that ends others.
#[derive(Debug, Default)]
struct End {
    partitions: Vec<Place>,
    offsets: bool,
}

impl KafkaTransactions {
    /// Ends what earlier epochs of this producer left open. Needs a producer that is initialised and in no transaction.
    pub(super) fn end_hanging(
        &self,
        reader: &KafkaReader,
        scope: Scope<'_>,
        transactional_id: &str,
    ) -> Result<(), EngineError> {
        let partitions = reader.hanging(scope.outputs)?;
        let offsets = self.has_hanging_offsets(scope)?;
        if partitions.is_empty() && !offsets {
            return Ok(());
        }
        let decisions = reader.decisions(transactional_id)?;
        // The committed first: while it is open, nothing may end it in another way.
        for decision in [Decision::Commit, Decision::Abort] {
            let is_so = |decided: Option<Decision>| decided.unwrap_or(Decision::Abort) == decision;
            let partitions = partitions.iter().filter(|(topic, partition)| is_so(decisions.of(topic, *partition)));
            let end =
                End { partitions: partitions.cloned().collect(), offsets: offsets && is_so(decisions.of_offsets()) };
            self.end(&end, decision, scope)?;
        }
        Ok(())
    }

    fn end(&self, end: &End, decision: Decision, scope: Scope<'_>) -> Result<(), EngineError> {
        if end.partitions.is_empty() && !end.offsets {
            return Ok(());
        }
        let (config, producer) = (self.config(), self.producer());
        let deadline = Instant::now() + config.timeout;
        producer.begin_transaction().map_err(|error| classify(&error))?;
        for (topic, partition) in &end.partitions {
            let record = BaseRecord::<[u8], [u8]>::to(topic).partition(*partition).key(TRANSACTION_END_KEY);
            producer.send(record).map_err(|(error, _)| classify(&error))?;
        }
        self.await_deliveries(deadline)?;
        if end.offsets {
            self.touch_offsets(scope)?;
        }
        match decision {
            Decision::Commit => producer.commit_transaction(config.timeout),
            Decision::Abort => producer.abort_transaction(config.timeout),
        }
        .map_err(|error| classify(&error))?;
        tracing::info!(group = scope.group, ?decision, ?end, "ended what may have been left open");
        Ok(())
    }

    /// Makes the group's offsets a part of the transaction, with one that nobody asks for: of an output. (In a transaction the
    /// group takes it from a stranger, too.)
    fn touch_offsets(&self, scope: Scope<'_>) -> Result<(), EngineError> {
        let config = self.config();
        let Some(output) = scope.outputs.first() else { return Ok(()) };
        let Some(group) = self.stranger(scope, "read_committed")?.group_metadata() else { return Ok(()) };
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&config.topic_name(*output), 0, Offset::Offset(0))
            .map_err(|error| classify(&error))?;
        let sent = self.producer().send_offsets_to_transaction(&offsets, &group, config.timeout);
        sent.map_err(|error| classify(&error))
    }

    /// Whether the group has offsets that are neither committed nor aborted, for longer than a transaction takes.
    fn has_hanging_offsets(&self, scope: Scope<'_>) -> Result<bool, EngineError> {
        let stranger = self.stranger(scope, "read_uncommitted")?;
        let mut list = TopicPartitionList::new();
        for topic in scope.inputs {
            let name = self.config().topic_name(*topic);
            let metadata = stranger.fetch_metadata(Some(&name), TIMEOUT).map_err(|error| classify(&error))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                list.add_partition(&name, partition.id());
            }
        }
        // Once the coordinator has answered at all, time runs out only over such offsets: they are asked for again and again.
        stranger.committed_offsets(list.clone(), TIMEOUT).map_err(|error| classify(&error))?;
        let committed = self.stranger(scope, "read_committed")?.committed_offsets(list, OFFSETS_PATIENCE);
        Ok(!committed.is_ok_and(|committed| committed.elements().iter().all(|element| element.error().is_ok())))
    }

    /// A client that knows the group and is no member.
    fn stranger(&self, scope: Scope<'_>, isolation: &str) -> Result<BaseConsumer<Quiet>, EngineError> {
        let group = format!("{}{}", self.config().prefix, scope.group);
        let mut config = self.config().consumer(isolation);
        config.set("group.id", group).create_with_context(Quiet).map_err(|error| classify(&error))
    }
}

impl KafkaReader {
    /// Partitions of these topics with records that are neither committed nor aborted, for longer than a transaction takes.
    fn hanging(&self, topics: &[Topic]) -> Result<Vec<Place>, EngineError> {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let name = self.config().topic_name(*topic);
            let metadata = self.committed().fetch_metadata(Some(&name), TIMEOUT).map_err(|error| classify(&error))?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                // The end is asked for as a time.
                list.add_partition_offset(&name, partition.id(), Offset::End).map_err(|error| classify(&error))?;
            }
        }
        // What is below an end is hanging if it is not stable in time, whatever others begin and end there meanwhile.
        let mut open = self.ends(self.uncommitted(), &list)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stable = self.ends(self.committed(), &list)?;
            open.retain(|place, end| stable.get(place).is_none_or(|stable| *stable < *end));
            if open.is_empty() || Instant::now() >= deadline {
                return Ok(open.into_keys().collect());
            }
            // Paces the question; there is nothing to be woken by.
            self.committed().poll(Duration::from_millis(50));
        }
    }

    fn ends(
        &self,
        consumer: &BaseConsumer<Quiet>,
        list: &TopicPartitionList,
    ) -> Result<BTreeMap<Place, i64>, EngineError> {
        if list.count() == 0 {
            return Ok(BTreeMap::new());
        }
        let ends = consumer.offsets_for_times(list.clone(), TIMEOUT).map_err(|error| classify(&error))?;
        let end_of = |element: &TopicPartitionListElem<'_>| {
            element.error().map_err(|error| classify(&error))?;
            match element.offset() {
                Offset::Offset(end) => Ok(((element.topic().to_owned(), element.partition()), end)),
                other => {
                    let (topic, partition) = (element.topic(), element.partition());
                    Err(EngineError::Unavailable(format!("{topic}/{partition}: its end is given as {other:?}")))
                }
            }
        };
        ends.elements().iter().map(end_of).collect()
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a transaction of another worker may take before it is taken for one that was forgotten. To be wrong is slow, and
/// does no harm.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a group's offsets, all of which are asked for at once, by a client that has to connect first.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(3);
