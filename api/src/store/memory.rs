//! A store in memory: for tests, also of what happens when the store is away.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use neonhub_schemas::control::DefinitionRecord;

use super::{DefinitionStore, StoreError};

#[derive(Debug, Default)]
pub struct MemoryStore {
    records: Mutex<BTreeMap<(String, String), DefinitionRecord>>,
    is_away: AtomicBool,
}

impl MemoryStore {
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn with<T>(
        &self,
        read: impl FnOnce(&mut BTreeMap<(String, String), DefinitionRecord>) -> T,
    ) -> Result<T, StoreError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Away("switched off".to_owned()));
        }
        Ok(read(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[async_trait]
impl DefinitionStore for MemoryStore {
    async fn get(&self, workspace: &str, name: &str) -> Result<Option<DefinitionRecord>, StoreError> {
        self.with(|records| records.get(&(workspace.to_owned(), name.to_owned())).cloned())
    }

    async fn list(&self, workspace: &str) -> Result<Vec<DefinitionRecord>, StoreError> {
        self.with(|records| records.values().filter(|record| record.workspace == workspace).cloned().collect())
    }

    async fn list_all(&self) -> Result<Vec<DefinitionRecord>, StoreError> {
        self.with(|records| records.values().cloned().collect())
    }

    async fn put_if(&self, record: &DefinitionRecord, expected: Option<u64>) -> Result<bool, StoreError> {
        self.with(|records| {
            let key = (record.workspace.clone(), record.name.clone());
            let is_expected = records.get(&key).map(|stored| stored.revision) == expected;
            if is_expected {
                records.insert(key, record.clone());
            }
            is_expected
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.with(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_are_guarded_by_the_revision() {
        let store = MemoryStore::default();
        let record = |revision| DefinitionRecord {
            workspace: "acme".into(),
            name: "orders".into(),
            revision,
            definition: None,
            updated_at: 0,
        };
        assert_eq!(store.put_if(&record(1), None).await, Ok(true));
        assert_eq!(store.put_if(&record(1), None).await, Ok(false));
        assert_eq!(store.put_if(&record(2), Some(1)).await, Ok(true));
        assert_eq!(store.put_if(&record(3), Some(1)).await, Ok(false));
        assert_eq!(store.get("acme", "orders").await.unwrap().unwrap().revision, 2);
        store.set_away(true);
        assert!(store.ping().await.is_err());
    }
}
