//! Pure: no I/O, no clock, no async.
//!
//! What is committed at once, and its preparation in the caller's thread: the writer only gives out offsets.

use bytes::Bytes;
use neonhub_schemas::record::{CommittedOffset, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::partition_for;

use super::encoding;
use super::error::LogError;
use super::groups::Fence;
use super::partition::Partitions;

/// Records and offsets that become visible together or not at all.
#[derive(Clone, Debug, Default)]
pub struct CommitUnit {
    pub records: Vec<NewRecord>,
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    /// The group the offsets belong to; may be empty if there are none.
    pub group: String,
    pub fence: Option<Fence>,
}

impl CommitUnit {
    #[must_use]
    pub fn of_records(records: Vec<NewRecord>) -> Self {
        Self { records, ..Self::default() }
    }
}

/// Where the records of a unit went: (partition, offset) of each, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    pub placements: Vec<(u32, u64)>,
}

pub struct PreparedRecord {
    pub partition_index: usize,
    pub encoded: Bytes,
    /// As readers will see it, but for the offset.
    pub record: Record,
}

pub struct PreparedUnit {
    pub records: Vec<PreparedRecord>,
    pub offsets: Vec<(TopicPartition, CommittedOffset)>,
    pub group: String,
    pub fence: Option<Fence>,
    pub bytes: usize,
}

/// What a record takes in the queue besides its bytes.
const RECORD_OVERHEAD: usize = 64;

pub fn prepare(unit: CommitUnit, partitions: &Partitions) -> Result<PreparedUnit, LogError> {
    let group_fits = u16::try_from(unit.group.len()).is_ok();
    if !group_fits || (unit.group.is_empty() && !unit.offsets.is_empty()) {
        return Err(LogError::Rejected { detail: "offsets need the name of a group, of at most 65535 bytes".into() });
    }
    for (place, _) in &unit.offsets {
        partitions.index(*place)?;
    }
    let mut bytes = unit.offsets.iter().map(|(_, committed)| RECORD_OVERHEAD + committed.metadata.len()).sum();
    let mut records = Vec::with_capacity(unit.records.len());
    for record in unit.records {
        let prepared = prepare_record(&record, partitions)?;
        bytes += prepared.encoded.len() + RECORD_OVERHEAD;
        records.push(prepared);
    }
    Ok(PreparedUnit { records, offsets: unit.offsets, group: unit.group, fence: unit.fence, bytes })
}

fn prepare_record(record: &NewRecord, partitions: &Partitions) -> Result<PreparedRecord, LogError> {
    if record.key.is_empty() {
        return Err(LogError::Rejected { detail: format!("a record for {} has an empty key", record.topic) });
    }
    let partition = record.partition.unwrap_or_else(|| partition_for(&record.key, partitions.count(record.topic)));
    let place = TopicPartition { topic: record.topic, partition };
    let partition_index = partitions.index(place)?;
    let encoded = encoding::encode(record).map_err(|detail| LogError::Rejected { detail })?;
    let record = encoding::decode_checked(place, 0, &encoded)
        .ok_or_else(|| LogError::Rejected { detail: "the record could not be encoded".into() })?;
    Ok(PreparedRecord { partition_index, encoded, record })
}
