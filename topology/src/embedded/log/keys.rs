//! Pure: no I/O, no clock, no async.
//!
//! Keys of the store. Numbers are big-endian, so that the order of keys is the order of numbers.

use bytes::{BufMut, Bytes, BytesMut};
use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;

/// Version of everything in the store but the records, which carry their own.
pub const FORMAT: &[u8] = b"1";
pub const FORMAT_KEY: &[u8] = b"f";

/// As Kafka's. No log comes near it, so a stored number beyond it is damage, and arithmetic with offsets cannot overflow.
pub const LARGEST_OFFSET: u64 = i64::MAX as u64;

/// Key of a record in its partition's space.
pub fn record(offset: u64) -> Bytes {
    Bytes::copy_from_slice(&offset.to_be_bytes())
}

pub fn offset_of(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}

/// Name and partition count a topic number was created with.
pub fn topic(topic: Topic) -> Bytes {
    Bytes::copy_from_slice(&[b'T', topic.number()])
}

/// The next offset to be given out.
pub fn next_offset(partition: TopicPartition) -> Bytes {
    of_partition(b'n', partition)
}

/// Everything before was deleted by retention.
pub fn start_offset(partition: TopicPartition) -> Bytes {
    of_partition(b's', partition)
}

/// Everything before was compacted.
pub fn compacted_to(partition: TopicPartition) -> Bytes {
    of_partition(b'c', partition)
}

fn of_partition(tag: u8, partition: TopicPartition) -> Bytes {
    let mut key = BytesMut::with_capacity(6);
    put_partition(&mut key, tag, partition);
    key.freeze()
}

fn put_partition(key: &mut BytesMut, tag: u8, partition: TopicPartition) {
    key.put_u8(tag);
    key.put_u8(partition.topic.number());
    key.put_u32(partition.partition);
}

/// The greatest timestamp of a block of offsets.
pub fn time_block(partition: TopicPartition, block: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(14);
    put_partition(&mut key, b't', partition);
    key.put_u64(block);
    key.freeze()
}

pub fn block_of_time_key(key: &[u8]) -> Option<u64> {
    key.get(6..).and_then(offset_of)
}

/// A group's committed offset.
pub fn group_offset(group: &str, partition: TopicPartition) -> Bytes {
    let mut key = BytesMut::with_capacity(8 + group.len());
    key.put_u8(b'g');
    key.put_u16(u16::try_from(group.len()).unwrap_or(u16::MAX));
    key.put_slice(group.as_bytes());
    key.put_u8(partition.topic.number());
    key.put_u32(partition.partition);
    key.freeze()
}

pub fn encode_committed(committed: &CommittedOffset) -> Bytes {
    let mut value = BytesMut::with_capacity(8 + committed.metadata.len());
    value.put_u64(committed.offset);
    value.put_slice(committed.metadata.as_bytes());
    value.freeze()
}

pub fn decode_committed(value: &[u8]) -> Option<CommittedOffset> {
    let (offset, metadata) = value.split_first_chunk::<8>()?;
    let metadata = String::from_utf8(metadata.to_vec()).ok()?;
    Some(CommittedOffset { offset: u64::from_be_bytes(*offset), metadata })
}

pub fn encode_topic(topic: Topic, partitions: u32) -> Bytes {
    let mut value = BytesMut::with_capacity(4 + topic.name().len());
    value.put_u32(partitions);
    value.put_slice(topic.name().as_bytes());
    value.freeze()
}

/// Partition count and name.
pub fn decode_topic(value: &[u8]) -> Option<(u32, &str)> {
    let (partitions, name) = value.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*partitions), std::str::from_utf8(name).ok()?))
}
