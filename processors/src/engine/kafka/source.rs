//! A consumer group's partitions. One consumer for all topics of the worker; rebalances are noted by the callbacks, which
//! run within `poll`, and told to the engine before anything else. A revoked partition's work was either committed or
//! is given up, so the callbacks have nothing to wait for.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use neonhub_schemas::event::Source as Family;
use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;
use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::statistics::{Partition as PartitionStatistics, Statistics};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::batch::Batch;
use super::config::KafkaConfig;
use super::errors::{classify, report};
use super::reader::OPEN_TRANSACTION_LIMIT;
use super::unowned::UnownedWatch;
use crate::engine::ports::{EngineError, Part, Source, SourceEvent};

/// At most so many records and bytes a poll.
const POLL_RECORDS: usize = 10_000;
const POLL_BYTES: usize = 4 * 1024 * 1024;

/// What the rebalance callbacks saw, in order.
#[derive(Default)]
pub struct RebalanceNotes {
    notes: Mutex<Vec<Note>>,
    /// By topic and partition, from librdkafka's statistics.
    lag: Mutex<Vec<(String, i32, i64)>>,
}

enum Note {
    Assigned(Vec<(String, i32)>),
    Revoked(Vec<(String, i32)>),
}

impl RebalanceNotes {
    fn push(&self, note: Note) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    fn has_notes(&self) -> bool {
        !self.notes.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for RebalanceNotes {
    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.into_values().flat_map(|topic| {
            let name = topic.topic;
            topic
                .partitions
                .into_values()
                .filter_map(move |partition| Some((name.clone(), partition.partition, unread(&partition)?)))
        });
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = partitions.collect();
    }
}

/// What has not been fetched yet, and what waits in the client. librdkafka's own lag is the distance to what this consumer has
/// committed, and the stages commit through their producers; and the markers of transactions count in it.
fn unread(partition: &PartitionStatistics) -> Option<i64> {
    // Negative: not known, since nothing has been fetched.
    let end = if partition.ls_offset >= 0 { partition.ls_offset } else { partition.hi_offset };
    let is_known = end >= 0 && partition.next_offset >= 0;
    is_known.then(|| (end - partition.next_offset).max(0) + partition.fetchq_cnt.max(0))
}

fn places(list: &TopicPartitionList) -> Vec<(String, i32)> {
    list.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
}

impl ConsumerContext for RebalanceNotes {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.push(Note::Revoked(places(list)));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            // They wait until their state is restored.
            if let Err(error) = consumer.pause(list) {
                tracing::error!(%error, "assigned partitions could not be paused");
            }
            self.push(Note::Assigned(places(list)));
        }
    }
}

pub type GroupConsumer = BaseConsumer<RebalanceNotes>;

pub struct KafkaSource {
    config: KafkaConfig,
    part: Part,
    consumer: Arc<GroupConsumer>,
    /// Where the partitions begin that have delivered nothing yet.
    begins: HashMap<TopicPartition, i64>,
    /// Partition numbers that said they are at their end; looked at when the input pauses.
    maybe_ended: BTreeSet<i32>,
    unowned: UnownedWatch,
    /// Bytes and records of the last poll: the next one is likely as large.
    last_batch: (usize, usize),
    names: LastName,
}

/// Messages come in runs of one topic: its name is looked up once a run.
#[derive(Default)]
struct LastName {
    name: String,
    topic: Option<Topic>,
}

impl LastName {
    fn topic(&mut self, config: &KafkaConfig, name: &str) -> Option<Topic> {
        if self.name != name {
            self.topic = config.topic(name);
            name.clone_into(&mut self.name);
        }
        self.topic
    }
}

impl KafkaSource {
    /// # Errors
    /// The settings are wrong, or a topic is not there.
    pub fn subscribe(
        config: &KafkaConfig,
        group: &str,
        slot: &str,
        topics: &[Topic],
        part: Part,
    ) -> Result<Self, EngineError> {
        let group_id = format!("{}{group}", config.prefix);
        let member = format!("{group_id}-{slot}");
        let session_timeout_ms = config.session_timeout.as_millis();
        let consumer: GroupConsumer = config
            .consumer("read_committed")
            .set("group.id", &group_id)
            // A process that was killed takes its partitions back at once.
            .set("group.instance.id", &member)
            .set("client.id", &member)
            .set("session.timeout.ms", session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (session_timeout_ms / 6).max(100).to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("statistics.interval.ms", "2000")
            // A restore and a batch that is halved take their time; a process that died is found out by its heartbeats.
            .set("max.poll.interval.ms", "3600000")
            .create_with_context(RebalanceNotes::default())
            .map_err(|error| classify(&error))?;
        let names: Vec<String> = topics.iter().map(|topic| config.topic_name(*topic)).collect();
        for name in &names {
            await_topic(&consumer, name, config.timeout)?;
        }
        consumer.subscribe(&names.iter().map(String::as_str).collect::<Vec<_>>()).map_err(|error| classify(&error))?;
        Ok(Self {
            config: config.clone(),
            part,
            consumer: Arc::new(consumer),
            begins: HashMap::new(),
            maybe_ended: BTreeSet::new(),
            unowned: UnownedWatch::new(group_id, member, names),
            last_batch: (0, 0),
            names: LastName::default(),
        })
    }

    /// Leaves the group, which static members do not do when they close, so that it divides its partitions anew.
    fn leave(&self) -> Result<(), EngineError> {
        self.consumer.unsubscribe();
        let deadline = Instant::now() + self.config.timeout;
        while self.consumer.assignment().map_err(|error| classify(&error))?.count() > 0 && Instant::now() < deadline {
            // Runs the callbacks; what it delivers is delivered again to whoever has the partition next.
            drop(self.consumer.poll(Duration::from_millis(10)));
        }
        Ok(())
    }

    #[must_use]
    pub fn consumer(&self) -> &Arc<GroupConsumer> {
        &self.consumer
    }

    fn ours(&self, places: &[(String, i32)]) -> Vec<TopicPartition> {
        places.iter().filter_map(|(topic, partition)| self.config.place(topic, *partition)).collect()
    }

    fn list(&self, partitions: &[TopicPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for place in partitions {
            list.add_partition(&self.config.topic_name(place.topic), place.partition.cast_signed());
        }
        list
    }
}

/// A client is ended by another thread: that may wait for ever (seen in `rd_kafka_destroy`, with an assignment that the group
/// knew nothing of), and whoever takes the worker's place, and fences this one by it, must not wait for that.
impl Drop for KafkaSource {
    fn drop(&mut self) {
        let consumer = Arc::clone(&self.consumer);
        let end = move || {
            // The committer has it, too, and goes with the same worker.
            while Arc::strong_count(&consumer) > 1 {
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("kafka-end".to_owned()).spawn(end) {
            tracing::warn!(%error, "no thread to end a Kafka client in");
        }
    }
}

/// Waits until the broker knows a topic: who joins a group before that is given the partitions of the others only.
fn await_topic(consumer: &GroupConsumer, name: &str, limit: Duration) -> Result<(), EngineError> {
    let deadline = Instant::now() + limit;
    loop {
        let metadata = consumer.fetch_metadata(Some(name), limit).map_err(|error| classify(&error))?;
        if metadata.topics().iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let detail = format!("topic {name} is not there; `neonhub topics` makes what is missing");
            return Err(EngineError::Unavailable(detail));
        }
        // Paces the question; there is nothing to be woken by.
        drop(consumer.poll(Duration::from_millis(50)));
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, wait: Duration) -> Result<Vec<SourceEvent>, EngineError> {
        if let Some((topic, partition)) = self.unowned.look(&self.consumer)?.first() {
            self.leave()?;
            let detail = format!("no member of the group has {topic}/{partition}: its partitions are divided anew");
            return Err(EngineError::Unavailable(detail));
        }
        let mut batch = Batch::with_capacity(self.last_batch.0, self.last_batch.1);
        let mut wait = wait;
        while batch.len() < POLL_RECORDS && batch.size() < POLL_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(topic) = self.names.topic(&self.config, message.topic()) {
                        let partition = u32::try_from(message.partition()).unwrap_or(0);
                        batch.push(TopicPartition { topic, partition }, &message, self.part);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.maybe_ended.insert(partition);
                }
                Some(Err(error)) => return Err(classify(&error)),
            }
            wait = Duration::ZERO;
            if self.consumer.context().has_notes() {
                break;
            }
        }
        let mut events = Vec::new();
        for note in self.consumer.context().take() {
            events.push(match note {
                Note::Assigned(places) => SourceEvent::Assigned(self.ours(&places)),
                Note::Revoked(places) => {
                    let revoked = self.ours(&places);
                    // What was delivered before is delivered again to whoever has the partition next.
                    batch.forget(&revoked);
                    SourceEvent::Revoked(revoked)
                }
            });
        }
        self.last_batch = (batch.size(), batch.len());
        let records = batch.finish();
        if records.is_empty() {
            for partition in std::mem::take(&mut self.maybe_ended) {
                events.extend(self.at_end(partition)?.into_iter().map(SourceEvent::AtEnd));
            }
        } else {
            events.push(SourceEvent::Records(records));
        }
        Ok(events)
    }

    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, EngineError> {
        let list = self.list(partitions);
        // Waits for the offsets of a transaction that a former owner has left open.
        let committed =
            self.consumer.committed_offsets(list, OPEN_TRANSACTION_LIMIT).map_err(|error| classify(&error))?;
        let find = |place: &TopicPartition| -> Result<Option<CommittedOffset>, EngineError> {
            let element = committed.find_partition(&self.config.topic_name(place.topic), place.partition.cast_signed());
            let element = element.ok_or_else(|| {
                EngineError::Unavailable(format!("{place}: the broker left out its committed offset"))
            })?;
            element.error().map_err(|error| classify(&error))?;
            Ok(match element.offset() {
                Offset::Offset(offset) => Some(CommittedOffset {
                    offset: u64::try_from(offset).unwrap_or(0),
                    metadata: element.metadata().to_owned(),
                }),
                _ => None,
            })
        };
        let found = partitions.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        for (place, committed) in partitions.iter().zip(&found) {
            let offset = committed.as_ref().map_or(0, |committed| committed.offset);
            self.begins.insert(*place, i64::try_from(offset).unwrap_or(i64::MAX));
        }
        Ok(found)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.consumer.resume(&self.list(partitions)).map_err(|error| classify(&error))
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        self.consumer.pause(&self.list(partitions)).map_err(|error| classify(&error))
    }

    fn lag(&mut self) -> Vec<(TopicPartition, u64)> {
        let lag = self.consumer.context().lag.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ours = |(topic, partition, lag): (String, i32, i64)| {
            Some((self.config.place(&topic, partition)?, u64::try_from(lag).ok()?))
        };
        lag.into_iter().filter_map(ours).collect()
    }
}

impl KafkaSource {
    /// Partitions with this number (the event does not name the topic) whose every record has been delivered. Exact for
    /// topics without transactions; in others control records at the end hide it until the next record.
    fn at_end(&mut self, partition: i32) -> Result<Vec<TopicPartition>, EngineError> {
        let positions = self.consumer.position().map_err(|error| classify(&error))?;
        let mut ends = Vec::new();
        for element in positions.elements().iter().filter(|element| element.partition() == partition) {
            // Who reads refined topics learns from heartbeats in them that there is nothing more.
            let is_raw = |place: &TopicPartition| Family::ALL.iter().any(|family| family.raw_topic() == place.topic);
            let Some(place) = self.config.place(element.topic(), partition).filter(is_raw) else { continue };
            let watermarks = self.consumer.fetch_watermarks(element.topic(), partition, self.config.timeout);
            let Ok((low, high)) = watermarks else {
                // Without a leader for now: asked again when the input pauses the next time.
                self.maybe_ended.insert(partition);
                continue;
            };
            let position = match element.offset() {
                Offset::Offset(position) => position,
                _ => self.begins.get(&place).copied().unwrap_or(0).max(low),
            };
            if position >= high {
                ends.push(place);
            }
        }
        Ok(ends)
    }
}
