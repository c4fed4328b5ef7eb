//! A store in memory: for tests, also of what happens when the store is away.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::{Row, Store, StoreError, Table};

type Place = (Table, String, String);

#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<BTreeMap<Place, Row>>,
    is_away: AtomicBool,
}

fn place(table: Table, workspace: &str, name: &str) -> Place {
    (table, workspace.to_owned(), name.to_owned())
}

impl MemoryStore {
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    fn with<T>(&self, read: impl FnOnce(&mut BTreeMap<Place, Row>) -> T) -> Result<T, StoreError> {
        if self.is_away.load(Ordering::SeqCst) {
            return Err(StoreError::Away("switched off".to_owned()));
        }
        Ok(read(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn all(&self, fits: impl Fn(&Place) -> bool) -> Result<Vec<Row>, StoreError> {
        self.with(|rows| rows.iter().filter(|(place, _)| fits(place)).map(|(_, row)| row.clone()).collect())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, table: Table, workspace: &str, name: &str) -> Result<Option<Row>, StoreError> {
        self.with(|rows| rows.get(&place(table, workspace, name)).cloned())
    }

    async fn list(&self, table: Table, workspace: &str) -> Result<Vec<Row>, StoreError> {
        self.all(|(of, owner, _)| *of == table && owner == workspace)
    }

    async fn list_all(&self, table: Table) -> Result<Vec<Row>, StoreError> {
        self.all(|(of, ..)| *of == table)
    }

    async fn put_if(&self, table: Table, row: &Row, expected: Option<u64>) -> Result<bool, StoreError> {
        self.with(|rows| {
            let place = place(table, &row.workspace, &row.name);
            let is_expected = rows.get(&place).map(|stored| stored.revision) == expected;
            if is_expected {
                rows.insert(place, row.clone());
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
        let row =
            |revision| Row { workspace: "acme".into(), name: "orders".into(), revision, body: None, updated_at: 0 };
        let table = Table::MetricDefinitions;
        assert_eq!(store.put_if(table, &row(1), None).await, Ok(true));
        assert_eq!(store.put_if(table, &row(1), None).await, Ok(false));
        assert_eq!(store.put_if(table, &row(2), Some(1)).await, Ok(true));
        assert_eq!(store.put_if(table, &row(3), Some(1)).await, Ok(false));
        assert_eq!(store.get(table, "acme", "orders").await.unwrap().unwrap().revision, 2);
        assert!(store.get(Table::AccessKeys, "acme", "orders").await.unwrap().is_none());
        assert!(store.list(Table::AccessKeys, "acme").await.unwrap().is_empty());
        store.set_away(true);
        assert!(store.ping().await.is_err());
    }
}
