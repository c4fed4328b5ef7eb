//! Pure but for the local state: no clock, no async.
//!
//! A run: hashes in the local state, in order, never changed. It is cut into pages by the highest bits of the hashes, which
//! are spread evenly, so that the page of a hash, and every page there is, follows from the number of hashes.

use serde::{Deserialize, Serialize};

use super::stored;
use crate::engine::{Change, EngineError, LocalState};

/// Hashes of a page on average, at most; half of it at least where there is more than one page.
const PAGE: u64 = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// No other run of the local state ever has it.
    pub id: u64,
    pub count: u64,
}

impl Run {
    /// `hashes` are in order, each once.
    pub fn write(id: u64, hashes: &[u64], changes: &mut Vec<Change>) -> Self {
        let run = Self { id, count: hashes.len() as u64 };
        let mut rest = hashes;
        for page in 0..run.pages() {
            let (here, after) = rest.split_at(rest.partition_point(|hash| run.page_of(*hash) == page));
            let bytes = here.iter().flat_map(|hash| hash.to_be_bytes()).collect();
            changes.push((stored::page_key(id, page), Some(bytes)));
            rest = after;
        }
        run
    }

    pub fn remove(self, changes: &mut Vec<Change>) {
        changes.extend((0..self.pages()).map(|page| (stored::page_key(self.id, page), None)));
    }

    /// # Errors
    /// The disk fails, or a page is missing.
    pub fn holds(self, hash: u64, local: &LocalState) -> Result<bool, EngineError> {
        let page = local.get(&stored::page_key(self.id, self.page_of(hash)))?;
        let page = local.trusting(page.ok_or_else(|| self.damaged()))?;
        // Big-endian: bytes have the order of the numbers.
        Ok(page.as_chunks().0.binary_search(&hash.to_be_bytes()).is_ok())
    }

    /// All hashes, in order.
    ///
    /// # Errors
    /// The disk fails, or hashes are missing.
    pub fn read(self, local: &LocalState) -> Result<Vec<u64>, EngineError> {
        let mut hashes = Vec::new();
        let (from, to) = stored::pages_of(self.id);
        local.scan(&from, &to, |_, page| {
            hashes.extend(page.as_chunks().0.iter().copied().map(u64::from_be_bytes));
            true
        })?;
        let is_whole = hashes.len() as u64 == self.count;
        local.trusting(if is_whole { Ok(hashes) } else { Err(self.damaged()) })
    }

    fn damaged(self) -> EngineError {
        EngineError::Unavailable(format!("the local state is damaged: run {} of message ids is not whole", self.id))
    }

    fn page_bits(self) -> u32 {
        self.count.div_ceil(PAGE).max(1).next_power_of_two().trailing_zeros()
    }

    fn pages(self) -> u32 {
        1 << self.page_bits()
    }

    fn page_of(self, hash: u64) -> u32 {
        // In two steps: nothing can be shifted by all of its 64 bits.
        let page = (hash >> 32) >> (32 - self.page_bits());
        u32::try_from(page).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{MemoryStates, StateStores as _};
    use neonhub_schemas::record::TopicPartition;
    use neonhub_schemas::topics::Topic;
    use xxhash_rust::xxh3::xxh3_64;

    fn local() -> LocalState {
        let place = TopicPartition { topic: Topic::RawCampaign, partition: 0 };
        LocalState::empty(MemoryStates::default().open("refine", place).unwrap()).unwrap()
    }

    fn sorted(numbers: std::ops::Range<u64>) -> Vec<u64> {
        let mut hashes: Vec<u64> = numbers.map(|number| xxh3_64(&number.to_le_bytes())).collect();
        hashes.sort_unstable();
        hashes
    }

    #[test]
    fn a_run_holds_its_hashes_and_no_others() {
        for (id, count) in [1, 2, 511, 512, 513, 10_000].into_iter().enumerate() {
            let (local, hashes, id) = (local(), sorted(0..count), id as u64);
            let mut changes = Vec::new();
            let run = Run::write(id, &hashes, &mut changes);
            assert_eq!(changes.len(), run.pages() as usize);
            // Those beside it are of no interest.
            Run::write(id + 1, &sorted(5_000..20_000), &mut changes);
            local.write(changes).unwrap();
            assert!(hashes.iter().all(|hash| run.holds(*hash, &local).unwrap()), "{count}");
            assert!(!sorted(20_000..30_000).iter().any(|hash| run.holds(*hash, &local).unwrap()), "{count}");
            assert_eq!(run.read(&local).unwrap(), hashes);
        }
    }

    #[test]
    fn pages_are_small_and_all_of_them_go() {
        for (count, pages) in [(0, 1), (1, 1), (512, 1), (513, 2), (1_025, 4), (1_000_000, 2_048)] {
            assert_eq!(Run { id: 0, count }.pages(), pages, "{count}");
        }
        let mut changes = Vec::new();
        let run = Run::write(7, &sorted(0..100_000), &mut changes);
        assert!(changes.iter().all(|(_, page)| (1..=4_096 * 2).contains(&page.as_ref().unwrap().len())));
        let local = local();
        local.write(changes).unwrap();
        let mut removal = Vec::new();
        run.remove(&mut removal);
        local.write(removal).unwrap();
        let mut left = 0;
        local
            .scan(&[1], &[2], |_, _| {
                left += 1;
                true
            })
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_page_that_is_missing_is_an_error_and_not_an_answer() {
        let (local, hashes) = (local(), sorted(0..2_000));
        let mut changes = Vec::new();
        let run = Run::write(7, &hashes, &mut changes);
        changes.pop();
        local.write(changes).unwrap();
        assert!(run.holds(*hashes.last().unwrap(), &local).is_err());
        assert!(run.holds(hashes[0], &local).unwrap());
        assert!(run.read(&local).is_err());
    }
}
