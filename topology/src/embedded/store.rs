//! The local operational store: tables in a fjall database. Every write is synced before it is answered.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use neonhub_api::store::{Row, Store, StoreError, Table};
use parking_lot::Mutex;

#[derive(Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    metric_definitions: Keyspace,
    access_keys: Keyspace,
    /// One writer at a time: reading the revision and writing the next is one step.
    writing: Mutex<()>,
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}

fn key(workspace: &str, name: &str) -> String {
    format!("{workspace}|{name}")
}

fn decode(value: &[u8]) -> Result<Row, StoreError> {
    serde_json::from_slice(value).map_err(|error| StoreError::Damaged(error.to_string()))
}

impl LocalStore {
    /// # Errors
    /// The folder cannot be used.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(folder).open().map_err(away)?;
        let keyspace = |table: Table| database.keyspace(table.name(), KeyspaceCreateOptions::default).map_err(away);
        let (metric_definitions, access_keys) = (keyspace(Table::MetricDefinitions)?, keyspace(Table::AccessKeys)?);
        Ok(Self { inner: Arc::new(Inner { metric_definitions, access_keys, database, writing: Mutex::new(()) }) })
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
    fn of(&self, table: Table) -> &Keyspace {
        match table {
            Table::MetricDefinitions => &self.metric_definitions,
            Table::AccessKeys => &self.access_keys,
        }
    }

    fn get(&self, table: Table, workspace: &str, name: &str) -> Result<Option<Row>, StoreError> {
        let value = self.of(table).get(key(workspace, name)).map_err(away)?;
        value.map(|value| decode(&value)).transpose()
    }

    fn list(&self, table: Table, prefix: &str) -> Result<Vec<Row>, StoreError> {
        let entries = self.of(table).prefix(prefix);
        entries.map(|entry| decode(&entry.value().map_err(away)?)).collect()
    }

    fn put_if(&self, table: Table, row: &Row, expected: Option<u64>) -> Result<bool, StoreError> {
        let _writing = self.writing.lock();
        let stored = self.get(table, &row.workspace, &row.name)?.map(|stored| stored.revision);
        if stored != expected {
            return Ok(false);
        }
        let value = serde_json::to_vec(row).map_err(|error| StoreError::Damaged(error.to_string()))?;
        self.of(table).insert(key(&row.workspace, &row.name), value).map_err(away)?;
        self.database.persist(PersistMode::SyncAll).map_err(away)?;
        Ok(true)
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn get(&self, table: Table, workspace: &str, name: &str) -> Result<Option<Row>, StoreError> {
        let (workspace, name) = (workspace.to_owned(), name.to_owned());
        self.run(move |inner| inner.get(table, &workspace, &name)).await
    }

    async fn list(&self, table: Table, workspace: &str) -> Result<Vec<Row>, StoreError> {
        let prefix = key(workspace, "");
        self.run(move |inner| inner.list(table, &prefix)).await
    }

    async fn list_all(&self, table: Table) -> Result<Vec<Row>, StoreError> {
        self.run(move |inner| inner.list(table, "")).await
    }

    async fn put_if(&self, table: Table, row: &Row, expected: Option<u64>) -> Result<bool, StoreError> {
        let row = row.clone();
        self.run(move |inner| inner.put_if(table, &row, expected)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.run(|inner| inner.metric_definitions.get("").map(drop).map_err(away)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(revision: u64) -> Row {
        let body = serde_json::value::RawValue::from_string(format!("{{\"revision\":{revision}}}")).ok();
        Row { workspace: "acme".into(), name: "orders".into(), revision, body, updated_at: 1_574_553_600_000 }
    }

    #[tokio::test]
    async fn writes_are_guarded_by_the_revision_and_survive_reopening() {
        for table in Table::ALL {
            let folder = tempfile::tempdir().unwrap();
            let store = LocalStore::open(folder.path()).unwrap();
            assert!(store.put_if(table, &row(1), None).await.unwrap());
            assert!(!store.put_if(table, &row(1), None).await.unwrap());
            assert!(store.put_if(table, &row(2), Some(1)).await.unwrap());
            assert!(!store.put_if(table, &row(3), Some(1)).await.unwrap());
            drop(store);
            let store = LocalStore::open(folder.path()).unwrap();
            let found = store.get(table, "acme", "orders").await.unwrap().unwrap();
            assert_eq!((found.revision, found.body.unwrap().get()), (2, r#"{"revision":2}"#));
            let counts =
                async |of| (store.list(of, "acme").await.unwrap().len(), store.list_all(of).await.unwrap().len());
            assert_eq!(store.list(table, "ac").await.unwrap().len(), 0);
            for of in Table::ALL {
                let count = usize::from(of == table);
                assert_eq!(counts(of).await, (count, count), "{of:?} while {table:?} was written");
            }
        }
    }
}
