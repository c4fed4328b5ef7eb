//! Pure: no I/O, no clock, no async.
//!
//! The sparse time index of a partition: the greatest timestamp of every block of offsets. It answers which blocks may
//! hold the first record of a time and which are old enough to be deleted. Compaction may leave a block's timestamp
//! greater than what is left in it; that costs a look into the block and changes no answer.

use std::collections::VecDeque;

const BLOCK_BITS: u32 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub number: u64,
    pub newest_ms: i64,
}

impl Block {
    pub fn first_offset(self) -> u64 {
        self.number << BLOCK_BITS
    }

    pub fn end_offset(self) -> u64 {
        (self.number + 1) << BLOCK_BITS
    }
}

pub fn block_of(offset: u64) -> u64 {
    offset >> BLOCK_BITS
}

#[derive(Clone, Debug, Default)]
pub struct TimeIndex {
    closed: VecDeque<Block>,
    open: Option<Block>,
}

/// What a commit will change, worked out before it is written and applied after.
#[derive(Clone, Debug)]
pub struct Planned {
    pub closed: Vec<Block>,
    open: Option<Block>,
}

impl TimeIndex {
    /// From the stored blocks, in order; the open block is found again with [`Planned::note`].
    pub fn restored(closed: Vec<Block>) -> Self {
        Self { closed: closed.into(), open: None }
    }

    pub fn plan(&self) -> Planned {
        Planned { closed: Vec::new(), open: self.open }
    }

    pub fn apply(&mut self, planned: Planned) {
        self.closed.extend(planned.closed);
        self.open = planned.open;
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        self.closed.iter().copied().chain(self.open)
    }

    /// Blocks at or after `from` that may hold a record of `timestamp_ms` or later.
    pub fn candidates(&self, from: u64, timestamp_ms: i64) -> Vec<Block> {
        self.blocks().filter(|block| block.end_offset() > from && block.newest_ms >= timestamp_ms).collect()
    }

    /// The offset before which every block is older than `cutoff_ms`.
    pub fn expired_to(&self, cutoff_ms: i64, start: u64, end: u64) -> u64 {
        let first_kept = self.blocks().find(|block| block.newest_ms >= cutoff_ms);
        first_kept.map_or(end, Block::first_offset).clamp(start, end)
    }

    /// Forgets the blocks wholly before `start` and returns their numbers.
    pub fn forget_before(&mut self, start: u64) -> Vec<u64> {
        let mut forgotten = Vec::new();
        while let Some(block) = self.closed.front().filter(|block| block.end_offset() <= start) {
            forgotten.push(block.number);
            self.closed.pop_front();
        }
        forgotten
    }
}

impl Planned {
    pub fn note(&mut self, offset: u64, timestamp_ms: i64) {
        let number = block_of(offset);
        match &mut self.open {
            Some(open) if open.number == number => open.newest_ms = open.newest_ms.max(timestamp_ms),
            open => self.closed.extend(open.replace(Block { number, newest_ms: timestamp_ms })),
        }
    }
}
