//! The store of the log's twin in memory: what the simulation runs on.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use parking_lot::RwLock;

use super::store::{Batch, Durability, Operation, Space, Store, StoreError, Visitor};

type Entries = BTreeMap<Bytes, Bytes>;

/// Keeps everything in ordered maps; a clone of the `Arc` it lives in "survives a crash" of the log opened on it.
#[derive(Debug, Default)]
pub struct MemoryStore {
    spaces: RwLock<BTreeMap<Space, Entries>>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn write(&self, batch: Batch, _durability: Durability) -> Result<(), StoreError> {
        let mut spaces = self.spaces.write();
        for operation in batch.operations {
            match operation {
                Operation::Put { space, key, value } => {
                    spaces.entry(space).or_default().insert(key, value);
                }
                Operation::Delete { space, key } => {
                    spaces.entry(space).or_default().remove(&key);
                }
            }
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.spaces.read().get(&space).and_then(|entries| entries.get(key)).cloned())
    }

    fn scan(&self, space: Space, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let spaces = self.spaces.read();
        let Some(entries) = spaces.get(&space) else { return Ok(()) };
        for (key, value) in entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until))) {
            if visit(key, value.clone()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn first_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        Ok(self.spaces.read().get(&space).and_then(|entries| entries.keys().next()).cloned())
    }

    fn last_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        Ok(self.spaces.read().get(&space).and_then(|entries| entries.keys().next_back()).cloned())
    }
}
