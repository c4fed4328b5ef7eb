//! Opening: checks the format, creates missing topics, and finds every partition's bounds again.

use std::ops::ControlFlow;

use bytes::Bytes;
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

use super::encoding;
use super::error::LogError;
use super::keys;
use super::partition::{Partitions, Visible};
use super::store::{Batch, Durability, Space, Store};
use super::tail::Tail;
use super::time_index::{Block, TimeIndex, block_of};

pub fn recover(store: &dyn Store, partitions: u32) -> Result<Partitions, LogError> {
    if partitions == 0 {
        return Err(LogError::Rejected { detail: "a log needs at least one partition".into() });
    }
    check_format(store)?;
    for topic in Topic::ALL {
        check_topic(store, topic, topic.partitions(partitions))?;
    }
    Partitions::new(partitions, |place| recover_partition(store, place))
}

fn check_format(store: &dyn Store) -> Result<(), LogError> {
    match store.get(Space::Meta, keys::FORMAT_KEY)? {
        Some(format) if format == keys::FORMAT => Ok(()),
        Some(format) => Err(LogError::ForeignFormat { detail: format!("version {format:?}") }),
        None => put(store, Bytes::from_static(keys::FORMAT_KEY), Bytes::from_static(keys::FORMAT)),
    }
}

fn check_topic(store: &dyn Store, topic: Topic, asked: u32) -> Result<(), LogError> {
    let Some(value) = store.get(Space::Meta, &keys::topic(topic))? else {
        return put(store, keys::topic(topic), keys::encode_topic(topic, asked));
    };
    match keys::decode_topic(&value) {
        Some((stored, name)) if name == topic.name() && stored == asked => Ok(()),
        Some((stored, name)) if name == topic.name() => {
            Err(LogError::PartitionCountChanged { topic: topic.name(), stored, asked })
        }
        _ => Err(LogError::ForeignFormat { detail: format!("topic number {} is not {topic}", topic.number()) }),
    }
}

fn put(store: &dyn Store, key: Bytes, value: Bytes) -> Result<(), LogError> {
    let mut batch = Batch::default();
    batch.put(Space::Meta, key, value);
    Ok(store.write(batch, Durability::Buffered)?)
}

fn recover_partition(store: &dyn Store, place: TopicPartition) -> Result<Visible, LogError> {
    let start = stored_number(store, &keys::start_offset(place))?.unwrap_or(0);
    let next = stored_number(store, &keys::next_offset(place))?.unwrap_or(0);
    let last = store.last_key(Space::Records(place))?.and_then(|key| keys::offset_of(&key));
    for offset in [Some(start), Some(next), last].into_iter().flatten() {
        if offset > keys::LARGEST_OFFSET {
            let detail = "no log has come so far: a stored offset is damaged";
            return Err(LogError::Damaged { topic_partition: place, offset, detail });
        }
    }
    let end = next.max(last.map_or(0, |last| last + 1)).max(start);
    let mut blocks = stored_blocks(store, place)?;
    blocks.retain(|block| block.end_offset() > start && block.end_offset() <= end);
    let mut times = TimeIndex::restored(blocks);
    let unindexed_from = if end == 0 { 0 } else { block_of(end - 1) << 10 };
    rebuild_open_block(store, place, unindexed_from.max(start), end, &mut times)?;
    Ok(Visible { start, end, tail: Tail::starting_at(end), times })
}

pub fn stored_number(store: &dyn Store, key: &[u8]) -> Result<Option<u64>, LogError> {
    Ok(store.get(Space::Meta, key)?.and_then(|value| keys::offset_of(&value)))
}

fn stored_blocks(store: &dyn Store, place: TopicPartition) -> Result<Vec<Block>, LogError> {
    let mut blocks = Vec::new();
    let range = (keys::time_block(place, 0), keys::time_block(place, u64::MAX));
    store.scan(Space::Meta, &range.0, &range.1, &mut |key, value| {
        if let (Some(number), Ok(newest)) = (keys::block_of_time_key(key), <[u8; 8]>::try_from(&value[..]))
            && number <= block_of(keys::LARGEST_OFFSET)
        {
            blocks.push(Block { number, newest_ms: i64::from_be_bytes(newest) });
        }
        ControlFlow::Continue(())
    })?;
    Ok(blocks)
}

/// The last block is stored only when the next one begins.
fn rebuild_open_block(
    store: &dyn Store,
    place: TopicPartition,
    from: u64,
    end: u64,
    times: &mut TimeIndex,
) -> Result<(), LogError> {
    let mut planned = times.plan();
    store.scan(Space::Records(place), &from.to_be_bytes(), &end.to_be_bytes(), &mut |key, value| {
        if let Some(offset) = keys::offset_of(key)
            && let Ok(record) = encoding::decode(place, offset, &value)
        {
            planned.note(offset, record.timestamp_ms);
        }
        ControlFlow::Continue(())
    })?;
    times.apply(planned);
    Ok(())
}
