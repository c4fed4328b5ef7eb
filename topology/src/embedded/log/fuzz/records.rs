//! Pure: no I/O, no clock, no async.
//!
//! Stored records and committed offsets. The first byte says whether the checksum is made right, so that the fuzzer comes
//! past it.

use bytes::Bytes;
use neonhub_schemas::record::{NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use xxhash_rust::xxh3::xxh3_64;

use crate::embedded::log::{encoding, keys};

const PLACE: TopicPartition = TopicPartition { topic: Topic::RawBehavior, partition: 0 };

pub fn check(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let mut encoded = rest.to_vec();
    if first % 2 == 1 && encoded.len() >= 5 {
        encoded[0] = 1;
        #[expect(clippy::cast_possible_truncation, reason = "half of the hash is the checksum")]
        let checksum = xxh3_64(&encoded[5..]) as u32;
        encoded[1..5].copy_from_slice(&checksum.to_le_bytes());
    }
    let encoded = Bytes::from(encoded);
    if let Some(committed) = keys::decode_committed(&encoded) {
        assert_eq!(keys::encode_committed(&committed), encoded);
    }
    let _topic = keys::decode_topic(&encoded);
    let _unchecked = encoding::decode_checked(PLACE, 3, &encoded);
    let Ok(record) = encoding::decode(PLACE, 3, &encoded) else { return };
    let new = NewRecord {
        topic: record.topic,
        partition: Some(record.partition),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
        timestamp_ms: record.timestamp_ms,
    };
    let again = encoding::encode(&new).ok().and_then(|encoded| encoding::decode(PLACE, 3, &encoded).ok());
    assert_eq!(again.as_ref(), Some(&record), "a record is another after a round trip");
}
