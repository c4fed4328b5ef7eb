//! Pure: no I/O, no clock, no async.

const MEBIBYTE: usize = 1 << 20;

/// How a log is opened. Every amount of memory and work here is a bound.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Partitions of the topics that take the setting; fixed when the folder is created.
    pub partitions: u32,
    /// Recent records kept in memory, over all partitions, so that tailing readers never touch the disk.
    pub tail_cache_bytes: usize,
    /// Commits waiting for the disk; beyond it `submit` answers `QueueFull` and blocking callers wait.
    pub queue_bytes: usize,
    /// The largest commit. One that is larger than the queue waits until it has the queue to itself.
    pub unit_bytes: usize,
    /// The most that one disk write takes from the queue.
    pub group_bytes: usize,
    /// Cache of disk blocks.
    pub block_cache_bytes: u64,
    /// Commits are refused when the disk has less than this free: a write that fails halfway would cost a reopening.
    pub disk_reserve_bytes: u64,
    /// A compacted partition is compacted when at least so many records came since the last time.
    pub compaction_min_dirty_records: u64,
    /// Records visited by one call of `maintain`.
    pub maintenance_step_records: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            partitions: 4,
            tail_cache_bytes: 64 * MEBIBYTE,
            queue_bytes: 64 * MEBIBYTE,
            unit_bytes: 1_024 * MEBIBYTE,
            group_bytes: 8 * MEBIBYTE,
            block_cache_bytes: 64 << 20,
            disk_reserve_bytes: 256 << 20,
            compaction_min_dirty_records: 10_000,
            maintenance_step_records: 20_000,
        }
    }
}

impl LogOptions {
    /// Small bounds, so that tests reach them.
    #[must_use]
    pub fn for_testing() -> Self {
        Self {
            partitions: 2,
            tail_cache_bytes: 64 * 1024,
            queue_bytes: 4 * MEBIBYTE,
            unit_bytes: 4 * MEBIBYTE,
            group_bytes: MEBIBYTE,
            block_cache_bytes: 8 << 20,
            disk_reserve_bytes: 16 << 20,
            compaction_min_dirty_records: 1,
            maintenance_step_records: 64,
        }
    }
}
