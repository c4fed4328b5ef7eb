//! Pure: no I/O, no clock, no async.

use std::time::Duration;

use neonhub_processors::engine::WorkerConfig;
use neonhub_processors::landing::BatchLimits;

use super::civil::{FixedZone, KATHMANDU, UTC};
use super::rng::Rng;

/// What a seed decides about the settings.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub zone: FixedZone,
    pub partitions: u32,
    pub max_keys: u32,
    pub is_capped: bool,
    pub worker: WorkerConfig,
    pub landing: BatchLimits,
    /// Of windows, in each partition; `None`: everything stays in memory, and nothing on a local disk.
    pub memory_per_partition: Option<usize>,
    /// Of refine, in each partition of a source; where there is a local disk.
    pub refine_memory: usize,
    pub save_interval: Duration,
    pub windows_per_commit: usize,
    /// Whether every message is traced.
    pub has_traces: bool,
}

impl Settings {
    pub fn of(seed: u64, rng: &mut Rng) -> Self {
        let is_capped = seed % 5 == 4;
        let partitions = *rng.pick(&[1, 2, 3, 3, 3]);
        Self {
            zone: if seed % 4 == 3 { KATHMANDU } else { UTC },
            partitions,
            max_keys: if is_capped { partitions * 2 } else { 10_000 },
            is_capped,
            worker: WorkerConfig {
                commit_interval: Duration::from_millis(*rng.pick(&[0, 100, 500])),
                commit_records: *rng.pick(&[1, 10, 50_000]),
                commit_bytes: *rng.pick(&[1, 5_000, 1 << 24]),
                idle_wait: Duration::ZERO,
            },
            landing: BatchLimits { max_rows: *rng.pick(&[1, 7, 100_000]), max_bytes: *rng.pick(&[2_000, 1 << 26]) },
            memory_per_partition: *rng.pick(&[None, Some(500), Some(3_000), Some(10_000), Some(1 << 26)]),
            save_interval: Duration::from_millis(*rng.pick(&[0, 200, 10_000])),
            has_traces: seed % 3 == 1,
            windows_per_commit: *rng.pick(&[1, 10, 10_000, 10_000]),
            refine_memory: *rng.pick(&[0, 200, 600, 2_000, 1 << 26]),
        }
    }
}
