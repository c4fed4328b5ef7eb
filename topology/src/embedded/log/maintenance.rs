//! Forgetting, in steps that are bounded by the records they visit, so that commits are never held up for long. Each
//! round goes once over all partitions.

use neonhub_schemas::topics::Cleanup;
use parking_lot::Mutex;

use super::Shared;
use super::compaction::Compaction;
use super::error::LogError;
use super::retention;

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Records deleted because of their age.
    pub deleted_records: u64,
    /// Records deleted because a newer one has their key, and old tombstones.
    pub compacted_records: u64,
    /// The round is not finished.
    pub more: bool,
}

#[derive(Default)]
pub struct Maintenance {
    round: Mutex<Round>,
}

#[derive(Default)]
struct Round {
    next_partition: usize,
    trimmed: retention::Trimmed,
    compaction: Compaction,
}

pub fn step(shared: &Shared, now_ms: i64) -> Result<Maintained, LogError> {
    let mut round = shared.maintenance.round.lock();
    let Round { next_partition, trimmed, compaction } = &mut *round;
    let mut maintained = Maintained::default();
    let mut budget = shared.options.maintenance_step_records.max(1);
    while *next_partition < shared.partitions.len() {
        let partition = shared.partitions.at(*next_partition);
        let is_done = match partition.place.topic.spec().cleanup {
            Cleanup::Delete { retention } => {
                let cutoff_ms = now_ms.saturating_sub(milliseconds(retention));
                retention::step(shared, partition, trimmed, cutoff_ms, &mut budget, &mut maintained)?
            }
            Cleanup::Compact { min_lag } => {
                let horizon_ms = now_ms.saturating_sub(milliseconds(min_lag));
                compaction.step(shared, partition, horizon_ms, &mut budget, &mut maintained)?
            }
        };
        if !is_done {
            maintained.more = true;
            return Ok(maintained);
        }
        *next_partition += 1;
    }
    *next_partition = 0;
    Ok(maintained)
}

fn milliseconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
