//! The local operational store: metric definitions in a fjall database. Every write is synced before it is answered.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use neonhub_api::store::{DefinitionStore, StoreError};
use neonhub_schemas::control::DefinitionRecord;
use parking_lot::Mutex;

#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    definitions: Keyspace,
    /// One writer at a time: reading the revision and writing the next is one step.
    writing: Mutex<()>,
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}

fn key(workspace: &str, name: &str) -> String {
    format!("{workspace}|{name}")
}

fn decode(value: &[u8]) -> Result<DefinitionRecord, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

impl LocalStore {
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(folder).open().map_err(away)?;
        let definitions = database.keyspace("metric_definitions", KeyspaceCreateOptions::default).map_err(away)?;
        Ok(Self { inner: Arc::new(Inner { database, definitions, writing: Mutex::new(()) }) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.map_err(away)?
    }
}

impl Inner {
    fn get(&self, workspace: &str, name: &str) -> Result<Option<DefinitionRecord>, StoreError> {
        let value = self.definitions.get(key(workspace, name)).map_err(away)?;
        value.map(|value| decode(&value)).transpose()
    }

    fn list(&self, prefix: &str) -> Result<Vec<DefinitionRecord>, StoreError> {
        let entries = self.definitions.prefix(prefix);
        entries.map(|entry| decode(&entry.value().map_err(away)?)).collect()
    }

    fn put_if(&self, record: &DefinitionRecord, expected: Option<u64>) -> Result<bool, StoreError> {
        let _writing = self.writing.lock();
        let stored = self.get(&record.workspace, &record.name)?.map(|stored| stored.revision);
        if stored != expected {
            return Ok(false);
        }
        let value = serde_json::to_vec(record).map_err(|error| StoreError::Damaged(error.to_string()))?;
        self.definitions.insert(key(&record.workspace, &record.name), value).map_err(away)?;
        self.database.persist(PersistMode::SyncAll).map_err(away)?;
        Ok(true)
    }
}

#[async_trait]
impl DefinitionStore for LocalStore {
    async fn get(&self, workspace: &str, name: &str) -> Result<Option<DefinitionRecord>, StoreError> {
        let (workspace, name) = (workspace.to_owned(), name.to_owned());
        self.run(move |inner| inner.get(&workspace, &name)).await
    }

    async fn list(&self, workspace: &str) -> Result<Vec<DefinitionRecord>, StoreError> {
        let prefix = key(workspace, "");
        self.run(move |inner| inner.list(&prefix)).await
    }

    async fn list_all(&self) -> Result<Vec<DefinitionRecord>, StoreError> {
        self.run(|inner| inner.list("")).await
    }

    async fn put_if(&self, record: &DefinitionRecord, expected: Option<u64>) -> Result<bool, StoreError> {
        let record = record.clone();
        self.run(move |inner| inner.put_if(&record, expected)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(|inner| inner.definitions.get("").map(drop).map_err(away)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(revision: u64) -> DefinitionRecord {
        DefinitionRecord {
            workspace: "acme".into(),
            name: "orders".into(),
            revision,
            definition: None,
            updated_at: 1_574_553_600_000,
        }
    }

    #[tokio::test]
    async fn writes_are_guarded_by_the_revision_and_survive_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        assert!(store.put_if(&record(1), None).await.unwrap());
        assert!(!store.put_if(&record(1), None).await.unwrap());
        assert!(store.put_if(&record(2), Some(1)).await.unwrap());
        assert!(!store.put_if(&record(3), Some(1)).await.unwrap());
        drop(store);
        let store = LocalStore::open(folder.path()).unwrap();
        assert_eq!(store.get("acme", "orders").await.unwrap().unwrap().revision, 2);
        assert_eq!(store.list("acme").await.unwrap().len(), 1);
        assert_eq!(store.list("ac").await.unwrap().len(), 0);
        assert_eq!(store.list_all().await.unwrap().len(), 1);
    }
}
