//! What the transaction coordinator decided, read from its own log: the topic `__transaction_state`, whose format is that of
//! Kafka's `TransactionLogKey.json` and `TransactionLogValue.json`, versions 0 and 1. All integers are big-endian.

use std::collections::HashMap;
use std::time::Instant;

use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::errors::classify;
use super::reader::KafkaReader;
use crate::engine::ports::EngineError;

const TOPIC: &str = "__transaction_state";
/// The topic of the groups' offsets, which are a part of transactions like any other partition.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Commit,
    Abort,
}

/// The last decision for each partition that any transaction of one transactional id touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    by_partition: HashMap<(String, i32), Decision>,
    of_offsets: Option<Decision>,
}

impl Decisions {
    pub(super) fn of(&self, topic: &str, partition: i32) -> Option<Decision> {
        self.by_partition.get(&(topic.to_owned(), partition)).copied()
    }

    pub(super) fn of_offsets(&self) -> Option<Decision> {
        self.of_offsets
    }

    /// Takes a record of the log into account; later ones win.
    fn take(&mut self, key: &[u8], value: &[u8], transactional_id: &str) -> Result<(), EngineError> {
        if read_key(key) != Some(transactional_id.as_bytes()) {
            return Ok(());
        }
        let unreadable =
            || EngineError::Unavailable(format!("{TOPIC}: a record of {transactional_id} is in no known format"));
        let Some((decision, partitions)) = read_value(value).ok_or_else(unreadable)? else { return Ok(()) };
        for (topic, partition) in partitions {
            if topic == OFFSETS_TOPIC {
                self.of_offsets = Some(decision);
            } else {
                self.by_partition.insert((topic, partition), decision);
            }
        }
        Ok(())
    }
}

impl KafkaReader {
    /// Reads all that the coordinator keeps of a transactional id: a partition of its log from end to end.
    ///
    /// # Errors
    /// The log cannot be read; it takes the right to read the topic `__transaction_state`.
    pub(super) fn decisions(&self, transactional_id: &str) -> Result<Decisions, EngineError> {
        let timeout = self.config().timeout;
        let consumer = self.uncommitted();
        let failed = |error: KafkaError| {
            let right = "a transaction was left without its end; to read how it was decided takes the right to describe and read";
            EngineError::Unavailable(format!("{right} {TOPIC}: {}", classify(&error)))
        };
        let metadata = consumer.fetch_metadata(Some(TOPIC), timeout).map_err(failed)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == TOPIC);
        if let Some(error) = topic.and_then(rdkafka::metadata::MetadataTopic::error) {
            return Err(failed(KafkaError::MetadataFetch(error.into())));
        }
        let partitions = topic.map_or(0, |topic| topic.partitions().len());
        let Some(partition) = partition_of(transactional_id, partitions) else { return Ok(Decisions::default()) };
        let (low, high) = consumer.fetch_watermarks(TOPIC, partition, timeout).map_err(failed)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(TOPIC, partition, Offset::Offset(low)).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        let (mut decisions, mut next, mut deadline) = (Decisions::default(), low, Instant::now() + timeout);
        // Compaction leaves gaps, never at the end.
        while next < high {
            match consumer.poll(timeout) {
                Some(Ok(message)) => {
                    let (key, value) = (message.key().unwrap_or_default(), message.payload());
                    // Without a value: the id has expired.
                    value.map_or(Ok(()), |value| decisions.take(key, value, transactional_id))?;
                    next = message.offset() + 1;
                    deadline = Instant::now() + timeout;
                }
                None | Some(Err(KafkaError::PartitionEOF(_))) if Instant::now() < deadline => {}
                None | Some(Err(KafkaError::PartitionEOF(_))) => {
                    return Err(EngineError::Unavailable(format!("{TOPIC}: nothing came within {timeout:?}")));
                }
                Some(Err(error)) => return Err(failed(error)),
            }
        }
        consumer.unassign().map_err(failed)?;
        Ok(decisions)
    }
}

/// As the brokers assign ids to partitions: by Java's `String.hashCode`.
fn partition_of(transactional_id: &str, partitions: usize) -> Option<i32> {
    let hash = transactional_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit.cast_signed()) & 0xffff));
    let partitions = i32::try_from(partitions).ok().filter(|partitions| *partitions > 0)?;
    Some(hash.checked_abs().unwrap_or(0) % partitions)
}

/// The transactional id.
fn read_key(key: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields(key);
    (fields.int::<2>()? == 0).then_some(())?;
    let length = fields.string_length(false)?;
    fields.take(length)
}

/// A decision, and the partitions that wait for its markers; no decision (`Some(None)`) in the other states of a transaction.
#[expect(clippy::type_complexity, reason = "said once")]
fn read_value(value: &[u8]) -> Option<Option<(Decision, Vec<(String, i32)>)>> {
    const PREPARE_COMMIT: i64 = 2;
    const PREPARE_ABORT: i64 = 3;
    let mut fields = Fields(value);
    let is_compact = match fields.int::<2>()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    // Producer id, epoch, timeout.
    fields.take(8 + 2 + 4)?;
    let decision = match fields.int::<1>()? {
        PREPARE_COMMIT => Decision::Commit,
        PREPARE_ABORT => Decision::Abort,
        _ => return Some(None),
    };
    let mut partitions = Vec::new();
    for _ in 0..fields.length(is_compact)? {
        let length = fields.string_length(is_compact)?;
        let topic = std::str::from_utf8(fields.take(length)?).ok()?;
        for _ in 0..fields.length(is_compact)? {
            partitions.push((topic.to_owned(), i32::try_from(fields.int::<4>()?).ok()?));
        }
        if is_compact {
            fields.skip_tagged()?;
        }
    }
    Some(Some((decision, partitions)))
}

/// What is left to be read; `None` when it ends too early.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// A signed integer of so many bytes.
    fn int<const BYTES: usize>(&mut self) -> Option<i64> {
        let bytes = self.take(BYTES)?;
        let is_negative = bytes.first().is_some_and(|first| *first >= 0x80);
        Some(bytes.iter().fold(if is_negative { -1 } else { 0 }, |number, byte| number << 8 | i64::from(*byte)))
    }

    /// Seven bits a byte, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take(1)? else { return None };
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// Of an array; of none, 0.
    fn length(&mut self, is_compact: bool) -> Option<usize> {
        let length = if is_compact { i64::try_from(self.varint()?).ok()? - 1 } else { self.int::<4>()? };
        usize::try_from(length.max(0)).ok()
    }

    fn string_length(&mut self, is_compact: bool) -> Option<usize> {
        let length = if is_compact { i64::try_from(self.varint()?).ok()? - 1 } else { self.int::<2>()? };
        usize::try_from(length).ok()
    }

    fn skip_tagged(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = usize::try_from(self.varint()?).ok()?;
            self.take(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "neon.refine-0-0";

    fn key(id: &str) -> Vec<u8> {
        let length = u16::try_from(id.len()).unwrap().to_be_bytes();
        [&[0, 0], length.as_slice(), id.as_bytes()].concat()
    }

    /// The fields before the partitions: version, producer id, epoch, timeout, state.
    fn head(version: u8, state: u8) -> Vec<u8> {
        [&[0, version][..], &7_u64.to_be_bytes(), &[0, 3], &10_000_u32.to_be_bytes(), &[state]].concat()
    }

    /// Partitions 1 and 258 of the topic `t`, and one of the groups' offsets.
    fn fixed(state: u8) -> Vec<u8> {
        let mut bytes = head(0, state);
        bytes.extend([0, 0, 0, 2, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 1, 2, 0, 18]);
        bytes.extend(OFFSETS_TOPIC.as_bytes());
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 9]);
        // Last update, start.
        bytes.extend([0; 16]);
        bytes
    }

    /// The same, with a tagged field that is not known.
    fn compact(state: u8) -> Vec<u8> {
        let mut bytes = head(1, state);
        bytes.extend([3, 2, b't', 3, 0, 0, 0, 1, 0, 0, 1, 2, 1, 5, 2, 9, 9, 19]);
        bytes.extend(OFFSETS_TOPIC.as_bytes());
        bytes.extend([2, 0, 0, 0, 9, 0]);
        bytes.extend([0; 16]);
        bytes.extend([1, 2, 2, 0, 1]);
        bytes
    }

    #[test]
    fn the_last_decision_for_a_partition_counts() {
        for form in [fixed as fn(u8) -> Vec<u8>, compact] {
            let mut decisions = Decisions::default();
            for (state, expected) in [(1, None), (2, Some(Decision::Commit)), (4, Some(Decision::Commit))] {
                decisions.take(&key(ID), &form(state), ID).unwrap();
                assert_eq!(decisions.of("t", 1), expected);
            }
            decisions.take(&key("neon.refine-0-1"), &form(3), ID).unwrap();
            assert_eq!(decisions.of("t", 258), Some(Decision::Commit), "what another id decided");
            assert_eq!((decisions.of_offsets(), decisions.of("t", 2)), (Some(Decision::Commit), None));
            decisions.take(&key(ID), &form(3), ID).unwrap();
            assert_eq!((decisions.of("t", 1), decisions.of_offsets()), (Some(Decision::Abort), Some(Decision::Abort)));
            // The decision before it was about this partition alone.
            let mut of_one = head(0, 2);
            of_one.extend([0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 1]);
            decisions.take(&key(ID), &of_one, ID).unwrap();
            assert_eq!((decisions.of("t", 1), decisions.of("t", 258)), (Some(Decision::Commit), Some(Decision::Abort)));
        }
    }

    #[test]
    fn a_compact_length_may_take_two_bytes() {
        let topic = "t".repeat(200);
        let value = [&head(1, 2)[..], &[2, 0xc9, 0x01], topic.as_bytes(), &[2, 0, 0, 0, 5, 0]].concat();
        let mut decisions = Decisions::default();
        decisions.take(&key(ID), &value, ID).unwrap();
        assert_eq!(decisions.of(&topic, 5), Some(Decision::Commit));
    }

    #[test]
    fn a_transaction_without_partitions_and_a_record_that_is_cut_off() {
        let mut decisions = Decisions::default();
        for none in [&[0xff, 0xff, 0xff, 0xff][..], &[0, 0, 0, 0]] {
            decisions.take(&key(ID), &[&head(0, 2), none].concat(), ID).unwrap();
        }
        decisions.take(&key(ID), &[&head(1, 2)[..], &[0]].concat(), ID).unwrap();
        assert_eq!(decisions, Decisions::default());
        for (whole, last_needed) in [(fixed(2), 16), (compact(2), 21)] {
            for end in 0..whole.len() - last_needed {
                let outcome = decisions.take(&key(ID), &whole[..end], ID);
                assert!(outcome.is_err(), "{end} bytes of {whole:?}");
            }
        }
        let unknown_version = decisions.take(&key(ID), &[&[0, 2][..], &fixed(2)[2..]].concat(), ID).unwrap_err();
        assert!(unknown_version.to_string().contains(ID), "{unknown_version}");
        for end in 0..key(ID).len() {
            decisions.take(&key(ID)[..end], &[], ID).unwrap();
        }
    }

    /// As a broker's log showed them, with four and with fifty partitions of its transaction log.
    #[test]
    fn an_id_is_looked_for_where_the_brokers_keep_it() {
        for (id, of_four) in [("test0.metrics-merge-0-0", 0), ("test0.refine-0-0", 1), ("test0.metrics-partial-0-0", 3)]
        {
            assert_eq!(partition_of(id, 4), Some(of_four), "{id}");
        }
        // "polygenelubricants" has the hash code -2^31.
        assert_eq!(partition_of("polygenelubricants", 50), Some(0));
        assert_eq!(partition_of(ID, 0), None);
    }
}
