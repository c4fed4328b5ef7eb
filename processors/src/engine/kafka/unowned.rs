//! Partitions that no member of the group has. A leader whose broker does not know every topic yet divides only what it
//! knows, and a static member that comes back gets its old share without a new division (KIP-345), so that nobody would
//! ever take the rest. librdkafka does not look for it (KIP-814 is not in it); we do. Nor has anybody what the group takes for
//! this member's while its client does not, or while its client knows of no broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

use crate::engine::ports::EngineError;

const LOOK_EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

type Partition = (String, i32);

pub struct UnownedWatch {
    group_id: String,
    /// This member's, and nobody else's in the group.
    client_id: String,
    topics: Vec<String>,
    next_look: Instant,
    /// Without an owner at the last look.
    suspected: BTreeSet<Partition>,
    /// No broker answered the last look.
    is_silent: bool,
}

impl UnownedWatch {
    pub fn new(group_id: String, client_id: String, topics: Vec<String>) -> Self {
        let next_look = Instant::now() + LOOK_EVERY;
        Self { group_id, client_id, topics, next_look, suspected: BTreeSet::new(), is_silent: false }
    }

    /// Partitions without an owner at two looks in a row, the group being stable at both. A look is taken every few seconds.
    ///
    /// # Errors
    /// No broker answered two looks in a row. The client may never find one again (librdkafka#5301): it takes a new one.
    pub fn look<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) -> Result<Vec<Partition>, EngineError> {
        if Instant::now() < self.next_look {
            return Ok(Vec::new());
        }
        // One broker of several that does not answer is enough for the group not to be told.
        let answer =
            self.topics.first().map_or(Ok(()), |topic| consumer.fetch_metadata(Some(topic), TIMEOUT).map(drop));
        let was_silent = std::mem::replace(&mut self.is_silent, answer.is_err());
        if let (Err(error), true) = (&answer, was_silent) {
            return Err(EngineError::Unavailable(format!("no broker answers this client: {error}")));
        }
        let unowned = answer.and_then(|()| self.unowned(consumer)).unwrap_or_else(|error| {
            tracing::debug!(%error, group = self.group_id, "the group's partitions could not be looked at");
            BTreeSet::new()
        });
        self.next_look = Instant::now() + LOOK_EVERY;
        let before = std::mem::replace(&mut self.suspected, unowned);
        Ok(before.intersection(&self.suspected).cloned().collect())
    }

    fn unowned<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>) -> KafkaResult<BTreeSet<Partition>> {
        let groups = consumer.fetch_group_list(Some(&self.group_id), TIMEOUT)?;
        let Some(group) = groups.groups().first().filter(|group| group.state() == "Stable") else {
            return Ok(BTreeSet::new());
        };
        let mut unowned = BTreeSet::new();
        for topic in &self.topics {
            let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
            let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
            unowned.extend(partitions.map(|partition| (topic.clone(), partition.id())));
        }
        for member in group.members() {
            let Some(mut owned) = member.assignment().and_then(assigned) else { return Ok(BTreeSet::new()) };
            if member.client_id() == self.client_id {
                let ours = consumer.assignment()?;
                owned.retain(|(topic, partition)| ours.find_partition(topic, *partition).is_some());
            }
            for partition in owned {
                unowned.remove(&partition);
            }
        }
        Ok(unowned)
    }
}

/// The partitions in a member's assignment as the consumer protocol writes it: version (i16), then an array of topics,
/// each with its name and an array of partitions; arrays are counted by an i32, names by an i16, all big-endian.
fn assigned(bytes: &[u8]) -> Option<Vec<Partition>> {
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    let mut partitions = Vec::new();
    for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let name = std::str::from_utf8(name).ok()?;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            partitions.push((name.to_owned(), i32::from_be_bytes(take(&mut rest)?)));
        }
    }
    Some(partitions)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_assignment_of_the_consumer_protocol() {
        let bytes = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x03\xff\xff\xff\xff";
        assert_eq!(assigned(bytes), Some(vec![("a".into(), 0), ("a".into(), 7), ("bc".into(), 3)]));
    }

    #[test]
    fn a_broken_assignment_is_none() {
        let bytes = b"\0\x01\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\0";
        for end in 0..bytes.len() {
            assert_eq!(assigned(&bytes[..end]), None, "{end}");
        }
        assert_eq!(assigned(b"\0\0\0\0\0\x01\xff\xff"), None);
    }

    #[test]
    fn a_client_that_no_broker_answers_twice_is_given_up() {
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .set("group.id", "group")
            .create()
            .unwrap();
        let mut watch = UnownedWatch::new("group".to_owned(), "member".to_owned(), vec!["topic".to_owned()]);
        assert!(watch.look(&consumer).unwrap().is_empty(), "not yet");
        for is_given_up in [false, true] {
            watch.next_look = Instant::now();
            let looked = watch.look(&consumer);
            assert_eq!(matches!(looked, Err(EngineError::Unavailable(_))), is_given_up);
        }
    }
}
