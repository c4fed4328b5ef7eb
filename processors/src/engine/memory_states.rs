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
    /// How often it was opened: only who opened it last may write.
    opened: u64,
}

impl MemoryStates {
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
    fn change(&self, work: impl FnOnce(&mut BTreeMap<Vec<u8>, Vec<u8>>)) -> Result<(), EngineError> {
        let mut disk = self.disk.lock();
        match disk.get_mut(&self.place) {
            Some(shelf) if shelf.opened == self.opened => {
                work(&mut shelf.entries);
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
        self.change(|entries| {
            for (key, value) in changes {
                match value {
                    Some(value) => entries.insert(key, value),
                    None => entries.remove(&key),
                };
            }
        })
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.change(BTreeMap::clear)
    }
}
