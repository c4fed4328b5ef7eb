//! Pure: no I/O, no clock, no async.
//!
//! The seen-set: 64-bit hashes of (actor, message id), forgotten one dedup window after they were received.

use std::collections::VecDeque;

use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

/// Buckets the window is cut into; a hash is forgotten with its bucket.
const BUCKETS: i64 = 8;

/// About 12 bytes a message. Times are those of the records, not of the clock, so that a replay decides the same.
#[derive(Debug)]
pub struct SeenSet {
    bucket_ms: i64,
    /// Newest last.
    buckets: VecDeque<(i64, HashSet<u64, std::hash::BuildHasherDefault<Prehashed>>)>,
}

impl SeenSet {
    #[must_use]
    pub fn new(window_ms: i64) -> Self {
        Self { bucket_ms: (window_ms / BUCKETS).max(1), buckets: VecDeque::new() }
    }

    #[must_use]
    pub fn hash(key: &[u8], message_id: &[u8]) -> u64 {
        xxh3_64(message_id) ^ xxh3_64(key).rotate_left(32)
    }

    /// Whether it is new. A message is known for at least the whole window.
    pub fn insert(&mut self, hash: u64, received_at_ms: i64) -> bool {
        self.forget(received_at_ms);
        if self.buckets.iter().any(|(_, hashes)| hashes.contains(&hash)) {
            return false;
        }
        let bucket = received_at_ms.div_euclid(self.bucket_ms);
        match self.buckets.back_mut() {
            // A record with an older time than the last one goes with the newest: it is kept a little longer.
            Some((newest, hashes)) if *newest >= bucket => hashes.insert(hash),
            _ => {
                self.buckets.push_back((bucket, HashSet::default()));
                self.buckets.back_mut().is_some_and(|(_, hashes)| hashes.insert(hash))
            }
        }
    }

    fn forget(&mut self, now_ms: i64) {
        let oldest = now_ms.div_euclid(self.bucket_ms) - BUCKETS;
        while self.buckets.front().is_some_and(|(bucket, _)| *bucket < oldest) {
            self.buckets.pop_front();
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.iter().map(|(_, hashes)| hashes.len()).sum()
    }

    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.buckets.iter().map(|(_, hashes)| hashes.allocation_size()).sum()
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
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_for_the_window_and_forgotten_after_it() {
        let mut seen = SeenSet::new(3_600_000);
        let hash = SeenSet::hash(b"acme|anon-1", b"m-1");
        assert!(seen.insert(hash, 0));
        assert!(!seen.insert(hash, 0));
        assert!(!seen.insert(hash, 3_600_000));
        assert!(seen.insert(hash, 3_600_000 + 450_000));
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn the_same_id_from_another_actor_is_another_message() {
        let mut seen = SeenSet::new(1_000);
        assert!(seen.insert(SeenSet::hash(b"acme|a", b"m"), 0));
        assert!(seen.insert(SeenSet::hash(b"acme|b", b"m"), 0));
        // A record with an earlier time than the last does not disturb the order of the buckets.
        assert!(seen.insert(SeenSet::hash(b"acme|c", b"m"), -500));
        assert!(!seen.insert(SeenSet::hash(b"acme|c", b"m"), -500));
    }

    #[test]
    fn each_message_is_forgotten_by_its_own_time() {
        let mut seen = SeenSet::new(8_000);
        assert!(seen.insert(1, 0));
        assert!(seen.insert(2, 7_000));
        assert!(seen.insert(1, 9_000), "the first is out of the window");
        assert!(!seen.insert(2, 12_000), "the second is not");
        // Out of order, or many at a time: no more buckets than the window has.
        (0..100).for_each(|hash| {
            seen.insert(100 + hash, 12_000 - i64::try_from(hash).unwrap());
        });
        assert!(seen.buckets.len() <= 9, "{} buckets", seen.buckets.len());
        assert_eq!(seen.len(), 102);
        assert!(seen.heap_size() >= 102 * 8);
    }

    #[test]
    fn hashes_are_spread_over_all_bits() {
        let hashes = (0..1_000_u32).map(|id| SeenSet::hash(b"acme|anon", &id.to_le_bytes()));
        let keys = (0..1_000_u32).map(|id| SeenSet::hash(&id.to_le_bytes(), b"m-1"));
        let all: Vec<u64> = hashes.chain(keys).collect();
        for bit in 0..64 {
            let set = all.iter().filter(|hash| *hash >> bit & 1 == 1).count();
            assert!((700..1_300).contains(&set), "bit {bit} is set in {set} of 2,000");
        }
        let mut hasher = Prehashed::default();
        std::hash::Hasher::write_u64(&mut hasher, all[0]);
        assert_eq!(std::hash::Hasher::finish(&hasher), all[0], "not hashed twice");
        std::hash::Hasher::write(&mut hasher, b"bytes");
        assert_eq!(std::hash::Hasher::finish(&hasher), xxh3_64(b"bytes"));
    }
}
