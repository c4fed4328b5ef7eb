//! The partitions of an open log and what readers see of them.

use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;
use parking_lot::RwLock;

use super::error::LogError;
use super::tail::Tail;
use super::time_index::TimeIndex;

pub struct Partition {
    pub place: TopicPartition,
    /// Changed by the writer after a commit is durable, and by maintenance; held briefly, never across I/O.
    pub visible: RwLock<Visible>,
}

pub struct Visible {
    pub start: u64,
    /// The next offset to be given out.
    pub end: u64,
    pub tail: Tail,
    pub times: TimeIndex,
}

/// All partitions, numbered through in the order of the topic table.
pub struct Partitions {
    all: Vec<Partition>,
    first_of_topic: Vec<usize>,
}

impl Partitions {
    pub fn new(
        setting: u32,
        mut restored: impl FnMut(TopicPartition) -> Result<Visible, LogError>,
    ) -> Result<Self, LogError> {
        let mut all = Vec::new();
        let mut first_of_topic = Vec::with_capacity(Topic::ALL.len() + 1);
        for topic in Topic::ALL {
            first_of_topic.push(all.len());
            for partition in 0..topic.partitions(setting) {
                let place = TopicPartition { topic, partition };
                all.push(Partition { place, visible: RwLock::new(restored(place)?) });
            }
        }
        first_of_topic.push(all.len());
        Ok(Self { all, first_of_topic })
    }

    pub fn count(&self, topic: Topic) -> u32 {
        let topic = usize::from(topic.number());
        u32::try_from(self.first_of_topic[topic + 1] - self.first_of_topic[topic]).unwrap_or(u32::MAX)
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The partition's number among all.
    pub fn index(&self, place: TopicPartition) -> Result<usize, LogError> {
        if place.partition >= self.count(place.topic) {
            return Err(LogError::UnknownPartition { topic_partition: place });
        }
        Ok(self.first_of_topic[usize::from(place.topic.number())] + place.partition as usize)
    }

    pub fn at(&self, index: usize) -> &Partition {
        &self.all[index]
    }

    pub fn get(&self, place: TopicPartition) -> Result<&Partition, LogError> {
        self.index(place).map(|index| &self.all[index])
    }
}
