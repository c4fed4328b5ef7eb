//! Pure but for the local state: no clock, no async.
//!
//! A map by key whose entries are all in the local state, if there is one, and in memory as long as there is room. Those that
//! were not touched for the longest time leave it first; who asks for one brings it back.

use std::hash::Hash;

use hashbrown::HashMap;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stored;
use crate::engine::{Change, EngineError, LocalState};

pub trait Key: Clone + Eq + Hash {
    fn to_bytes(&self) -> Vec<u8>;
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
    /// Bytes beside those of its own size.
    fn heap_size(&self) -> usize;
}

/// What is kept. What it has on the heap does not change while it is.
pub trait Value: Serialize + DeserializeOwned {
    type Key: Key;
    /// What keys of the local state begin with.
    const TABLE: u8;
    fn heap_size(&self) -> usize;
    /// Those with the least leave memory first.
    fn touched_at_ms(&self) -> i64;
}

#[derive(Debug)]
struct Slot<V> {
    value: V,
    is_unsaved: bool,
}

#[derive(Debug)]
pub struct Kept<V: Value> {
    entries: HashMap<V::Key, Slot<V>>,
    /// On the heap, of keys and values.
    entry_bytes: usize,
    /// Whether it is to be saved.
    is_kept: bool,
    unsaved: Vec<V::Key>,
    unsaved_bytes: usize,
    /// Whether the local state may have entries that are not in memory.
    has_spilled: bool,
}

impl<V: Value> Kept<V> {
    /// `is_kept`: whether it will be saved.
    #[must_use]
    pub fn new(is_kept: bool) -> Self {
        Self {
            entries: HashMap::new(),
            entry_bytes: 0,
            is_kept,
            unsaved: Vec::new(),
            unsaved_bytes: 0,
            has_spilled: false,
        }
    }

    /// Takes up what was saved, up to so many bytes.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn load(&mut self, bytes: usize, local: &LocalState) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        local.scan(&[V::TABLE], &[V::TABLE + 1], |key, value| {
            if self.heap_size() > bytes {
                self.has_spilled = true;
                return false;
            }
            let Some(key) = V::Key::from_bytes(&key[1..]) else { return true };
            match stored::decode(value) {
                Ok(value) => self.put_in_memory(key, value, false),
                Err(error) => outcome = Err(error),
            }
            outcome.is_ok()
        })?;
        local.trusting(outcome)
    }

    /// The entry of a key, wherever it is.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn get(&mut self, key: &V::Key, local: Option<&LocalState>) -> Result<Option<&V>, EngineError> {
        self.bring_back(key, local)?;
        Ok(self.entries.get(key).map(|slot| &slot.value))
    }

    /// The same, to be changed.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn get_mut(&mut self, key: &V::Key, local: Option<&LocalState>) -> Result<Option<&mut V>, EngineError> {
        self.bring_back(key, local)?;
        let Some(slot) = self.entries.get_mut(key) else { return Ok(None) };
        if self.is_kept && !slot.is_unsaved {
            slot.is_unsaved = true;
            self.unsaved_bytes += key.heap_size();
            self.unsaved.push(key.clone());
        }
        Ok(Some(&mut slot.value))
    }

    fn bring_back(&mut self, key: &V::Key, local: Option<&LocalState>) -> Result<(), EngineError> {
        if !self.has_spilled || self.entries.contains_key(key) {
            return Ok(());
        }
        let Some(local) = local else { return Ok(()) };
        if let Some(bytes) = local.get(&stored_key::<V>(key))? {
            let value = local.trusting(stored::decode(&bytes))?;
            self.put_in_memory(key.clone(), value, false);
        }
        Ok(())
    }

    /// Takes the place of what is there.
    pub fn put(&mut self, key: V::Key, value: V) {
        if self.is_kept {
            self.unsaved_bytes += key.heap_size();
            self.unsaved.push(key.clone());
        }
        self.put_in_memory(key, value, self.is_kept);
    }

    fn put_in_memory(&mut self, key: V::Key, value: V, is_unsaved: bool) {
        let key_bytes = key.heap_size();
        self.entry_bytes += key_bytes + value.heap_size();
        if let Some(former) = self.entries.insert(key, Slot { value, is_unsaved }) {
            self.entry_bytes -= key_bytes + former.value.heap_size();
        }
    }

    /// Forgets entries in memory; [`Self::sweep`] does the same in the local state.
    pub fn retain(&mut self, mut stays: impl FnMut(&V) -> bool) {
        self.entries.retain(|_, slot| stays(&slot.value));
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to_fit();
        }
        self.entry_bytes = self.entries.iter().map(|(key, slot)| key.heap_size() + slot.value.heap_size()).sum();
    }

    /// Looks over a portion of the local state, `from` a key on, and forgets what does not stay, unless it is in memory: says
    /// where to go on, if that was not all.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn sweep(
        &self,
        from: &[u8],
        portion: usize,
        stays: impl Fn(&V) -> bool,
        local: &LocalState,
        changes: &mut Vec<Change>,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let (mut left, mut next, mut outcome) = (portion, None, Ok(()));
        local.scan(&[&[V::TABLE], from].concat(), &[V::TABLE + 1], |key, value| {
            if left == 0 {
                next = Some(key[1..].to_vec());
                return false;
            }
            left -= 1;
            match stored::decode(value) {
                Ok(value) if stays(&value) => {}
                Ok(_) => {
                    let known = V::Key::from_bytes(&key[1..]).filter(|key| self.entries.contains_key(key));
                    if known.is_none() {
                        changes.push((key.to_vec(), None));
                    }
                }
                Err(error) => outcome = Err(error),
            }
            outcome.is_ok()
        })?;
        local.trusting(outcome.map(|()| next))
    }

    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// What the local state lacks.
    pub fn changes(&mut self, changes: &mut Vec<Change>) {
        self.unsaved_bytes = 0;
        for key in std::mem::take(&mut self.unsaved) {
            // Some may have been forgotten since, or forgotten and put again.
            if let Some(slot) = self.entries.get_mut(&key).filter(|slot| slot.is_unsaved) {
                slot.is_unsaved = false;
                changes.push((stored_key::<V>(&key), Some(stored::encode(&slot.value))));
            }
        }
    }

    /// Leaves entries to the local state until no more than so many bytes are in memory; all of them are saved.
    pub fn spill(&mut self, bytes: usize) {
        while self.heap_size() > bytes && !self.entries.is_empty() {
            let stay = self.entries.len() * bytes / self.heap_size();
            let mut ages: Vec<i64> = self.entries.values().map(|slot| slot.value.touched_at_ms()).collect();
            // Fewer stay than there are, since they have more than so many bytes.
            let mut leave = ages.len() - stay;
            let (_, &mut newest_to_leave, _) = ages.select_nth_unstable(leave - 1);
            self.entries.retain(|_, slot| {
                let leaves = leave > 0 && slot.value.touched_at_ms() <= newest_to_leave;
                leave -= usize::from(leaves);
                !leaves
            });
            self.entries.shrink_to_fit();
            self.entry_bytes = self.entries.iter().map(|(key, slot)| key.heap_size() + slot.value.heap_size()).sum();
            self.has_spilled = true;
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes in memory.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.entries.allocation_size()
            + self.entry_bytes
            + self.unsaved.capacity() * size_of::<V::Key>()
            + self.unsaved_bytes
    }
}

fn stored_key<V: Value>(key: &V::Key) -> Vec<u8> {
    [&[V::TABLE], key.to_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{MemoryStates, StateStores as _};
    use neonhub_schemas::record::TopicPartition;
    use neonhub_schemas::topics::Topic;
    use serde::Deserialize;

    /// A number, and when it was touched.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Number(u64, i64);

    impl Value for Number {
        type Key = u64;
        const TABLE: u8 = 7;

        fn heap_size(&self) -> usize {
            100
        }

        fn touched_at_ms(&self) -> i64 {
            self.1
        }
    }

    fn local() -> LocalState {
        let place = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
        LocalState::empty(MemoryStates::default().open("refine", place).unwrap()).unwrap()
    }

    fn save(kept: &mut Kept<Number>, local: &LocalState) -> usize {
        let mut changes = Vec::new();
        kept.changes(&mut changes);
        let count = changes.len();
        local.write(changes).unwrap();
        count
    }

    #[test]
    fn the_longest_untouched_leave_memory_and_come_back() {
        let (mut kept, local) = (Kept::new(true), local());
        (0..1_000).for_each(|key| kept.put(key, Number(key, i64::try_from(key).unwrap())));
        assert_eq!(save(&mut kept, &local), 1_000);
        kept.spill(50_000);
        assert!(kept.heap_size() <= 50_000 && (200..500).contains(&kept.len()), "{}", kept.len());
        assert!(kept.entries.keys().all(|key| *key >= 500), "the newest stay");
        for key in [0, 1, 999] {
            assert_eq!(kept.get(&key, Some(&local)).unwrap().unwrap().0, key);
        }
        assert_eq!(kept.get(&1_000, Some(&local)).unwrap(), None);
        // What was only looked at needs no writing; what was changed does, once.
        assert!(kept.is_saved());
        kept.get_mut(&2, Some(&local)).unwrap().unwrap().0 = 22;
        kept.get_mut(&2, Some(&local)).unwrap().unwrap().0 = 23;
        assert_eq!(save(&mut kept, &local), 1);
        kept.spill(0);
        assert_eq!((kept.len(), kept.heap_size()), (0, 0));
        assert_eq!(kept.get(&2, Some(&local)).unwrap().unwrap().0, 23);
    }

    #[test]
    fn what_was_saved_is_taken_up_as_far_as_there_is_room() {
        let (mut kept, local) = (Kept::new(true), local());
        (0..100).for_each(|key| kept.put(key, Number(key, 0)));
        save(&mut kept, &local);
        let mut whole = Kept::<Number>::new(true);
        whole.load(usize::MAX, &local).unwrap();
        assert!(whole.len() == 100 && !whole.has_spilled && whole.is_saved());
        assert_eq!(whole.entry_bytes, kept.entry_bytes);
        let mut part = Kept::<Number>::new(true);
        part.load(4_000, &local).unwrap();
        assert!((10..60).contains(&part.len()), "{}", part.len());
        assert!((0..100).all(|key| part.get(&key, Some(&local)).unwrap().is_some()));
    }

    #[test]
    fn a_sweep_forgets_what_is_over_on_the_disk_but_not_what_is_in_memory_again() {
        let (mut kept, local) = (Kept::new(true), local());
        (0..10).for_each(|key| kept.put(key, Number(key, i64::try_from(key % 2).unwrap())));
        save(&mut kept, &local);
        kept.retain(|number| number.1 == 1);
        // It is back, and not saved yet.
        kept.put(4, Number(44, 2));
        let (mut from, mut changes, mut portions) = (Some(Vec::new()), Vec::new(), 0);
        while let Some(place) = from {
            from = kept.sweep(&place, 3, |number| number.1 == 1, &local, &mut changes).unwrap();
            portions += 1;
        }
        let mut gone: Vec<u8> = changes.iter().map(|(key, _)| key[8]).collect();
        gone.sort_unstable();
        assert_eq!((portions, gone), (4, vec![0, 2, 6, 8]));
        local.write(changes).unwrap();
        save(&mut kept, &local);
        kept.spill(0);
        let left = |key| kept.get(&key, Some(&local)).unwrap().map(|number| number.0);
        assert_eq!((0..6).map(left).collect::<Vec<_>>(), [None, Some(1), None, Some(3), Some(44), Some(5)]);
    }

    /// By name.
    #[derive(Debug, Serialize, Deserialize)]
    struct Named;

    impl Value for Named {
        type Key = String;
        const TABLE: u8 = 8;

        fn heap_size(&self) -> usize {
            10
        }

        fn touched_at_ms(&self) -> i64 {
            0
        }
    }

    #[test]
    fn names_are_counted_once_more_while_they_wait_to_be_saved() {
        let mut kept = Kept::<Named>::new(true);
        let (long, longer) = ("n".repeat(100), "n".repeat(1_000));
        kept.put(long.clone(), Named);
        kept.put(longer.clone(), Named);
        assert!(!kept.is_saved());
        assert_eq!((kept.entry_bytes, kept.unsaved_bytes), (1_120, 1_100));
        let unsaved = kept.heap_size();
        kept.changes(&mut Vec::new());
        assert!(kept.is_saved());
        assert_eq!((kept.entry_bytes, kept.unsaved_bytes), (1_120, 0));
        assert!(unsaved >= kept.heap_size() + 1_100 + 2 * size_of::<String>());
        for name in [&long, &longer, &long] {
            kept.get_mut(name, None).unwrap().unwrap();
        }
        assert!(!kept.is_saved());
        assert_eq!((kept.entry_bytes, kept.unsaved_bytes), (1_120, 1_100));
        kept.retain(|_| true);
        assert_eq!(kept.entry_bytes, 1_120);
    }

    #[test]
    fn of_those_that_are_equally_old_no_more_leave_than_must() {
        let mut kept = Kept::<Named>::new(false);
        (0..1_000).for_each(|number| kept.put(format!("name {number:05}"), Named));
        kept.spill(kept.heap_size() / 2);
        assert!((200..500).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.entry_bytes, kept.len() * 20);
    }

    #[test]
    fn nothing_is_kept_for_a_local_state_that_is_not_there() {
        let mut kept = Kept::new(false);
        kept.put(1, Number(1, 0));
        kept.get_mut(&1, None).unwrap().unwrap().0 = 2;
        assert!(kept.is_saved());
        assert_eq!(kept.get(&1, None).unwrap(), Some(&Number(2, 0)));
        assert!(kept.heap_size() >= 100);
        kept.put(1, Number(3, 0));
        assert_eq!((kept.len(), kept.entry_bytes), (1, 100), "the former one is gone");
        kept.retain(|_| false);
        assert_eq!((kept.len(), kept.heap_size()), (0, 0));
    }
}
