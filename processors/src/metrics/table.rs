//! Pure: no I/O, no clock, no async.
//!
//! The windows in memory: keys are interned, windows are found by key, grain and start. A window without sketches takes
//! 112 bytes, its place in the index 10, its least and greatest 32.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::window::{Aggregate, Grain};

pub use super::keys::KeyId;
use super::keys::Keys;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId {
    pub key: KeyId,
    pub grain: Grain,
    pub start_s: i64,
}

/// Grain, start, and the metric's hash.
pub type Group = (Grain, i64, u64);

/// What the local state has of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    #[default]
    No,
    /// Not final.
    Open,
    Final,
}

/// One epoch of a window.
#[derive(Clone, Debug)]
pub struct LiveWindow {
    pub aggregate: Aggregate,
    /// Offset of the delta that opened it.
    pub epoch: u64,
    /// Offset of the last delta it holds.
    pub last_applied: u64,
    /// The state was read back and holds everything up to here: a replay below it is passed over.
    pub restored_as_of: Mark,
    /// Offset of the first delta that no upsert holds yet.
    pub dirty_since: Mark,
    pub touched_at_ms: i64,
    pub revision: u32,
    pub length_s: u32,
    pub is_final: bool,
    /// The local state does not have it as it is.
    pub is_unsaved: bool,
    pub stored: Stored,
    /// Its place, given by the table: beside the others it fits without padding.
    pub(super) grain: Grain,
    pub(super) key: KeyId,
    pub(super) start_s: i64,
}

impl Default for LiveWindow {
    fn default() -> Self {
        Self {
            aggregate: Aggregate::default(),
            epoch: 0,
            last_applied: 0,
            restored_as_of: Mark::NONE,
            dirty_since: Mark::NONE,
            touched_at_ms: 0,
            revision: 0,
            length_s: 0,
            is_final: false,
            is_unsaved: false,
            stored: Stored::No,
            grain: Grain::Minute,
            key: NOBODY,
            start_s: 0,
        }
    }
}

impl LiveWindow {
    fn id(&self) -> WindowId {
        WindowId { key: self.key, grain: self.grain, start_s: self.start_s }
    }
}

/// An offset, or none, in eight bytes: no log has an offset of 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    pub const NONE: Self = Self(u64::MAX);

    #[must_use]
    pub fn at(offset: u64) -> Self {
        Self(offset)
    }

    #[must_use]
    pub fn get(self) -> Option<u64> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl Default for Mark {
    fn default() -> Self {
        Self::NONE
    }
}

/// Slots are made so many at a time, so that growing copies nothing.
const CHUNK: usize = 1_024;

/// Of an empty slot.
const NOBODY: KeyId = KeyId::MAX;

#[derive(Default)]
pub struct WindowTable {
    keys: Keys,
    chunks: Vec<Vec<LiveWindow>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    aggregates_size: usize,
}

impl WindowTable {
    /// The id of a key that has windows.
    #[must_use]
    pub fn find(&self, key: &MetricKey) -> Option<KeyId> {
        self.keys.find(key)
    }

    /// The id of a key, made when it is new. It is let go with the key's last window, so open one.
    pub fn intern(&mut self, key: &MetricKey, source: Source) -> KeyId {
        self.keys.intern(key, source)
    }

    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<(MetricKey, Source)> {
        self.keys.get(id)
    }

    #[must_use]
    pub fn source(&self, id: KeyId) -> Option<Source> {
        self.keys.source(id)
    }

    /// What is counted together towards the cap on keys: the windows of a metric at one time. `None`: no such key.
    #[must_use]
    pub fn group(&self, id: WindowId) -> Option<Group> {
        Some((id.grain, id.start_s, self.keys.metric_hash(id.key)?))
    }

    /// The number of a window's slot, another's as soon as this one is removed.
    #[must_use]
    pub fn slot_of(&self, id: WindowId) -> Option<u32> {
        let is_it = |slot: &u32| self.slot(*slot).is_some_and(|window| window.id() == id);
        self.index.find(self.hasher.hash_one(id), is_it).copied()
    }

    fn slot(&self, slot: u32) -> Option<&LiveWindow> {
        let slot = slot as usize;
        self.chunks.get(slot / CHUNK)?.get(slot % CHUNK)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut LiveWindow> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    /// The window in a slot.
    #[must_use]
    pub fn in_slot(&self, slot: u32) -> Option<(WindowId, &LiveWindow)> {
        self.slot(slot).filter(|window| window.key != NOBODY).map(|window| (window.id(), window))
    }

    #[must_use]
    pub fn get(&self, id: WindowId) -> Option<&LiveWindow> {
        self.slot(self.slot_of(id)?)
    }

    #[must_use]
    pub fn get_mut(&mut self, id: WindowId) -> Option<&mut LiveWindow> {
        let slot = self.slot_of(id)?;
        self.slot_mut(slot)
    }

    /// Adds to a window that is there.
    ///
    /// # Errors
    /// The sum would overflow; nothing was added.
    pub fn merge(&mut self, id: WindowId, gained: &Aggregate) -> Result<(), neonhub_schemas::window::Overflow> {
        let Some(window) = self.get_mut(id) else { return Ok(()) };
        let before = window.aggregate.heap_size();
        let outcome = window.aggregate.merge(gained);
        let after = window.aggregate.heap_size();
        self.aggregates_size = self.aggregates_size + after - before;
        outcome
    }

    /// Puts a window in, in the place of the one that was there.
    pub fn insert(&mut self, id: WindowId, window: LiveWindow) {
        let window = LiveWindow { key: id.key, grain: id.grain, start_s: id.start_s, ..window };
        self.aggregates_size += window.aggregate.heap_size();
        if let Some(known) = self.get_mut(id) {
            let before = std::mem::replace(known, window).aggregate.heap_size();
            self.aggregates_size -= before;
            return;
        }
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.slot_mut(number) {
                    *place = window;
                }
                number
            }
            None => self.push(window),
        };
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        let hash_of = |number: &u32| {
            let number = *number as usize;
            hasher.hash_one(chunks[number / CHUNK][number % CHUNK].id())
        };
        self.index.insert_unique(hasher.hash_one(id), number, hash_of);
        self.keys.hold(id.key);
    }

    fn push(&mut self, window: LiveWindow) -> u32 {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunks_before = self.chunks.len() - 1;
        let Some(chunk) = self.chunks.last_mut() else { return u32::MAX };
        chunk.push(window);
        u32::try_from(chunks_before * CHUNK + chunk.len() - 1).unwrap_or(u32::MAX)
    }

    pub fn remove(&mut self, id: WindowId) -> Option<LiveWindow> {
        let chunks = &self.chunks;
        let is_it = |number: &u32| {
            let number = *number as usize;
            chunks[number / CHUNK][number % CHUNK].id() == id
        };
        let (number, _) = self.index.find_entry(self.hasher.hash_one(id), is_it).ok()?.remove();
        let removed = std::mem::take(self.slot_mut(number)?);
        self.free.push(number);
        self.aggregates_size -= removed.aggregate.heap_size();
        self.keys.let_go(id.key);
        Some(removed)
    }

    pub fn iter(&self) -> impl Iterator<Item = (WindowId, &LiveWindow)> {
        let taken = self.chunks.iter().flatten().filter(|window| window.key != NOBODY);
        taken.map(|window| (window.id(), window))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes in use by windows and keys.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        const INDEX: usize = 10;
        self.len() * (size_of::<LiveWindow>() + INDEX) + self.aggregates_size + self.keys.heap_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(campaign: &str) -> MetricKey {
        let dimensions = [("campaign".to_owned(), campaign.to_owned())].into();
        MetricKey { workspace: "acme".into(), metric: "spend".into(), series: 1, dimensions }
    }

    #[test]
    fn a_window_is_small() {
        assert_eq!(size_of::<LiveWindow>(), 112);
    }

    #[test]
    fn windows_come_and_go_and_their_places_are_used_again() {
        let mut table = WindowTable::default();
        let empty = table.heap_size();
        for round in 0..3 {
            for number in 0..3_000_u32 {
                let id = WindowId {
                    key: table.intern(&key(&number.to_string()), Source::Campaign),
                    grain: Grain::Hour,
                    start_s: round,
                };
                table.insert(id, LiveWindow { last_applied: u64::from(number), ..LiveWindow::default() });
            }
            assert_eq!(table.len(), 3_000);
            let ids: Vec<WindowId> = table.iter().map(|(id, _)| id).collect();
            for id in ids {
                let (found, source) = table.key(id.key).unwrap();
                assert_eq!(source, Source::Campaign);
                let number = table.remove(id).unwrap().last_applied;
                assert_eq!(found, key(&number.to_string()));
                assert!(table.get(id).is_none());
            }
            assert_eq!(table.find(&key("7")), None);
        }
        assert_eq!((table.len(), table.heap_size()), (0, empty));
        assert_eq!(table.chunks.len(), 3);
    }

    #[test]
    fn the_size_is_that_of_windows_keys_and_what_they_hold() {
        let mut table = WindowTable::default();
        let id = WindowId { key: table.intern(&key("men"), Source::Campaign), grain: Grain::Hour, start_s: 0 };
        table.insert(id, LiveWindow::default());
        let counting = table.heap_size();
        assert_eq!(counting, 112 + 10 + table.keys.heap_size());
        let mut gained = Aggregate::default();
        gained.add(neonhub_schemas::window::Sample::Distribution("2".parse().unwrap())).unwrap();
        table.merge(id, &gained).unwrap();
        assert_eq!(table.heap_size(), counting + gained.heap_size());
        table.insert(id, LiveWindow::default());
        assert_eq!(table.heap_size(), counting, "replaced in its place");
    }
}
