//! Local stores in memory: for tests and the simulation, where they outlive the workers as a disk does.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use neonhub_schemas::record::TopicPartition;

use super::ports::{Change, EngineError, StateStore, StateStores};

/// One disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStates(Arc<Mutex<BTreeMap<(&'static str, TopicPartition), Shelf>>>);

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was written since the last flush, as it was then.
    unflushed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// How often it was opened: only who opened it last may write.
    opened: u64,
}

impl Shelf {
    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        }
    }
}

impl MemoryStates {
    /// As a kill may: what this stage has written and not flushed is as it was.
    pub fn lose_unflushed(&self, stage: &str) {
        let mut disk = self.lock();
        for shelf in disk.iter_mut().filter(|((of_stage, _), _)| *of_stage == stage).map(|(_, shelf)| shelf) {
            for (key, value) in std::mem::take(&mut shelf.unflushed) {
                shelf.set(key, value);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, TopicPartition), Shelf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStores for MemoryStates {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        let mut disk = self.lock();
        let shelf = disk.entry((stage, partition)).or_default();
        shelf.opened += 1;
        Ok(Box::new(MemoryState { disk: self.clone(), place: (stage, partition), opened: shelf.opened }))
    }
}

struct MemoryState {
    disk: MemoryStates,
    place: (&'static str, TopicPartition),
    opened: u64,
}

impl MemoryState {
    fn change(&self, work: impl FnOnce(&mut Shelf)) -> Result<(), EngineError> {
        let mut disk = self.disk.lock();
        match disk.get_mut(&self.place) {
            Some(shelf) if shelf.opened == self.opened => {
                work(shelf);
                Ok(())
            }
            _ => Err(EngineError::Fenced(format!("another has opened the local state of {}", self.place.1))),
        }
    }
}

impl StateStore for MemoryState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.disk.lock().get(&self.place).and_then(|shelf| shelf.entries.get(key).cloned()))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        if from < to
            && let Some(shelf) = self.disk.lock().get(&self.place)
        {
            let range = (Bound::Included(from), Bound::Excluded(to));
            let _ = shelf.entries.range::<[u8], _>(range).all(|(key, value)| each(key, value));
        }
        Ok(())
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.change(|shelf| {
            for (key, value) in changes {
                let before = shelf.set(key.clone(), value);
                shelf.unflushed.entry(key).or_insert(before);
            }
        })
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.change(|shelf| shelf.unflushed.clear())
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.change(|shelf| {
            shelf.entries.clear();
            shelf.unflushed.clear();
        })
    }
}

#[cfg(test)]
mod tests {
    use neonhub_schemas::topics::Topic;

    use super::*;

    #[test]
    fn a_kill_takes_what_was_not_flushed() {
        let (mut states, place) =
            (MemoryStates::default(), TopicPartition { topic: Topic::MetricsPartials, partition: 0 });
        let store = states.open("metrics.merge", place).unwrap();
        let set = |key: u8, value: Option<u8>| store.write(vec![(vec![key], value.map(|value| vec![value]))]).unwrap();
        let all = || {
            let mut found = Vec::new();
            store
                .scan(&[0], &[9], &mut |key, value| {
                    found.push((key[0], value[0]));
                    true
                })
                .unwrap();
            found
        };
        set(1, Some(1));
        set(2, Some(2));
        store.flush().unwrap();
        for (key, value) in [(1, None), (2, Some(3)), (2, Some(4)), (3, Some(5))] {
            set(key, value);
        }
        assert_eq!(all(), [(2, 4), (3, 5)]);
        states.lose_unflushed("refine");
        assert_eq!(all(), [(2, 4), (3, 5)], "another stage's");
        states.lose_unflushed("metrics.merge");
        assert_eq!(all(), [(1, 1), (2, 2)]);
    }
}
