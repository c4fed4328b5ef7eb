//! Pure but for the local state: no clock, no async.
//!
//! The seen-set: 64-bit hashes of (actor, message id), forgotten one dedup window after they were received.
//!
//! With a local state each save leaves the hashes that came since the last one there, as a run. When memory is short, the
//! oldest buckets are left to it altogether, as one run or a few; a filter in memory knows about all but a few in a thousand
//! of the others that they are not among them. A bucket that is over takes its runs with it.

use std::collections::VecDeque;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use super::filter::Filter;
use super::runs::Run;
use super::stored::{Meta, StoredBucket};
use crate::engine::{Change, EngineError, LocalState};

/// Buckets the window is cut into; a hash is forgotten with its bucket.
const BUCKETS: i64 = 8;

/// Runs are not joined into one that is longer: all of its hashes are in memory while it is written.
const LONGEST_RUN: u64 = 1 << 22;

/// So many runs of hashes that are in memory, too, become one.
const YOUNG_RUNS: usize = 64;

/// About 12 bytes a message. Times are those of the records, not of the clock, so that a replay decides the same.
#[derive(Debug)]
pub struct SeenSet {
    bucket_ms: i64,
    /// Newest last.
    buckets: VecDeque<Bucket>,
    /// Whether it is to be saved.
    is_kept: bool,
    next_run: u64,
    /// Runs of buckets that are over; until the next save.
    removed: Vec<Run>,
}

#[derive(Debug, Default)]
struct Bucket {
    number: i64,
    /// In memory; all of them, unless some are spilled.
    hashes: HashSet<u64, std::hash::BuildHasherDefault<Prehashed>>,
    /// Those of them that no run has.
    unsaved: Vec<u64>,
    /// Runs of the others.
    young: Vec<Run>,
    /// What is in the local state only. Each run is at least twice as long as the next, unless both together would be too long.
    spilled: Vec<Spilled>,
}

#[derive(Debug)]
struct Spilled {
    run: Run,
    /// `None`: there is no room for it, and the run itself is asked.
    filter: Option<Filter>,
}

impl SeenSet {
    /// `is_kept`: whether it will be saved.
    #[must_use]
    pub fn new(window_ms: i64, is_kept: bool) -> Self {
        let bucket_ms = (window_ms / BUCKETS).max(1);
        Self { bucket_ms, buckets: VecDeque::new(), is_kept, next_run: 0, removed: Vec::new() }
    }

    /// Takes up what was saved: what was in memory then, and of the newest of the other runs so many filters as go with it
    /// into so many bytes.
    ///
    /// # Errors
    /// The local state cannot be read, or is of another window.
    pub fn load(
        &mut self,
        meta: &Meta,
        newest_ms: Option<i64>,
        bytes: usize,
        local: &LocalState,
    ) -> Result<(), EngineError> {
        if meta.bucket_ms != self.bucket_ms {
            let detail = format!("it has buckets of {} ms, not {} ms", meta.bucket_ms, self.bucket_ms);
            return local.trusting(Err(EngineError::Unavailable(detail)));
        }
        self.next_run = meta.next_run;
        for stored in &meta.buckets {
            if newest_ms.is_some_and(|newest_ms| stored.number < self.oldest(newest_ms)) {
                self.removed.extend(stored.young.iter().chain(&stored.spilled));
                continue;
            }
            let mut bucket = Bucket { number: stored.number, young: stored.young.clone(), ..Bucket::default() };
            for run in &stored.young {
                bucket.hashes.extend(run.read(local)?);
            }
            bucket.spilled.extend(stored.spilled.iter().map(|run| Spilled { run: *run, filter: None }));
            self.buckets.push_back(bucket);
        }
        let mut room = bytes.saturating_sub(self.heap_size());
        for Spilled { run, filter } in self.buckets.iter_mut().rev().flat_map(|bucket| bucket.spilled.iter_mut().rev())
        {
            let Some(left) = room.checked_sub(Filter::heap_size_of(run.count)) else { break };
            room = left;
            *filter = Some(Filter::of(&run.read(local)?));
        }
        Ok(())
    }

    #[must_use]
    pub fn meta(&self) -> Meta {
        let stored = |bucket: &Bucket| StoredBucket {
            number: bucket.number,
            young: bucket.young.clone(),
            spilled: bucket.spilled.iter().map(|spilled| spilled.run).collect(),
        };
        Meta { bucket_ms: self.bucket_ms, next_run: self.next_run, buckets: self.buckets.iter().map(stored).collect() }
    }

    #[must_use]
    pub fn hash(key: &[u8], message_id: &[u8]) -> u64 {
        xxh3_64(message_id) ^ xxh3_64(key).rotate_left(32)
    }

    /// Whether it is new. A message is known for at least the whole window.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn insert(&mut self, hash: u64, received_at_ms: i64, local: Option<&LocalState>) -> Result<bool, EngineError> {
        self.forget(received_at_ms);
        // Most retries come soon.
        for bucket in self.buckets.iter().rev() {
            if bucket.hashes.contains(&hash) || bucket.is_spilled(hash, local)? {
                return Ok(false);
            }
        }
        self.put(hash, received_at_ms);
        Ok(true)
    }

    /// A message that was new when it came. It may be here already: the disk is not asked, as it would be asked for each.
    pub fn restore(&mut self, hash: u64, received_at_ms: i64) {
        self.forget(received_at_ms);
        self.put(hash, received_at_ms);
    }

    fn put(&mut self, hash: u64, received_at_ms: i64) {
        let number = received_at_ms.div_euclid(self.bucket_ms);
        // A record with an older time than the last one goes with the newest: it is kept a little longer.
        if self.buckets.back().is_none_or(|newest| newest.number < number) {
            self.buckets.push_back(Bucket { number, ..Bucket::default() });
        }
        if let Some(newest) = self.buckets.back_mut() {
            let is_new = newest.hashes.insert(hash);
            if is_new && self.is_kept {
                newest.unsaved.push(hash);
            }
        }
    }

    fn forget(&mut self, now_ms: i64) {
        let oldest = self.oldest(now_ms);
        while let Some(bucket) = self.buckets.pop_front_if(|bucket| bucket.number < oldest) {
            self.removed.extend(bucket.young);
            self.removed.extend(bucket.spilled.iter().map(|spilled| spilled.run));
        }
    }

    fn oldest(&self, now_ms: i64) -> i64 {
        now_ms.div_euclid(self.bucket_ms) - BUCKETS
    }

    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.removed.is_empty() && self.buckets.iter().all(|bucket| bucket.unsaved.is_empty())
    }

    /// What the local state lacks, and what it has too much. After [`Self::spill`], if there is one.
    pub fn changes(&mut self, changes: &mut Vec<Change>) {
        self.removed.drain(..).for_each(|run| run.remove(changes));
        for bucket in self.buckets.iter_mut().filter(|bucket| !bucket.unsaved.is_empty()) {
            let mut hashes = std::mem::take(&mut bucket.unsaved);
            if bucket.young.len() >= YOUNG_RUNS {
                bucket.young.drain(..).for_each(|run| run.remove(changes));
                hashes = bucket.hashes.iter().copied().collect();
            }
            hashes.sort_unstable();
            bucket.young.push(Run::write(self.next_run, &hashes, changes));
            self.next_run += 1;
        }
    }

    /// Leaves hashes to the local state, the oldest buckets first, then even their filters, until no more than so many bytes
    /// are in memory. What it needs to know of each run stays.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn spill(&mut self, bytes: usize, local: &LocalState, changes: &mut Vec<Change>) -> Result<(), EngineError> {
        for index in 0..self.buckets.len() {
            if self.heap_size() <= bytes {
                return Ok(());
            }
            let bucket = &mut self.buckets[index];
            if !bucket.hashes.is_empty() {
                bucket.spill(self.next_run, local, changes)?;
                self.next_run += 1;
            }
        }
        for index in 0..self.buckets.len() {
            for place in 0..self.buckets[index].spilled.len() {
                if self.heap_size() <= bytes {
                    return Ok(());
                }
                self.buckets[index].spilled[place].filter = None;
            }
        }
        Ok(())
    }

    /// Whether [`Self::spill`] would leave anything to the local state.
    #[must_use]
    pub fn can_spill(&self) -> bool {
        self.buckets
            .iter()
            .any(|bucket| !bucket.hashes.is_empty() || bucket.spilled.iter().any(|spilled| spilled.filter.is_some()))
    }

    /// Hashes in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.hashes.len()).sum()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.buckets.iter().map(Bucket::heap_size).sum()
    }
}

impl Bucket {
    fn is_spilled(&self, hash: u64, local: Option<&LocalState>) -> Result<bool, EngineError> {
        for Spilled { run, filter } in &self.spilled {
            let is_asked = filter.as_ref().is_none_or(|filter| filter.may_hold(hash));
            if is_asked
                && let Some(local) = local
                && run.holds(hash, local)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything that is in memory becomes one run, together with those that are not much longer.
    fn spill(&mut self, id: u64, local: &LocalState, changes: &mut Vec<Change>) -> Result<(), EngineError> {
        let mut hashes: Vec<u64> = std::mem::take(&mut self.hashes).into_iter().collect();
        self.unsaved = Vec::new();
        std::mem::take(&mut self.young).into_iter().for_each(|run| run.remove(changes));
        let joins = |run: Run, count: u64| run.count < 2 * count && run.count + count <= LONGEST_RUN;
        while let Some(shorter) = self.spilled.pop_if(|last| joins(last.run, hashes.len() as u64)) {
            hashes.extend(shorter.run.read(local)?);
            shorter.run.remove(changes);
        }
        hashes.sort_unstable();
        // What was restored may be in an older run, too.
        hashes.dedup();
        let filter = Some(Filter::of(&hashes));
        self.spilled.push(Spilled { run: Run::write(id, &hashes, changes), filter });
        Ok(())
    }

    fn heap_size(&self) -> usize {
        let filters = self.spilled.iter().filter_map(|spilled| spilled.filter.as_ref()).map(Filter::heap_size);
        self.hashes.allocation_size()
            + self.unsaved.capacity() * size_of::<u64>()
            + self.young.capacity() * size_of::<Run>()
            + self.spilled.capacity() * size_of::<Spilled>()
            + filters.sum::<usize>()
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prehashed(u64);

impl std::hash::Hasher for Prehashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests;
