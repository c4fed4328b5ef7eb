//! The operational store's port: rows of one shape in a few tables, each guarded by its revision; and what the rows hold.

pub mod memory;
pub mod rows;
pub mod scylla;

use async_trait::async_trait;
use neonhub_schemas::time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Named by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Try again later. The write may or may not have happened: read before repeating.
    #[error("the store is away: {0}")]
    Away(String),
    /// What lies in the store cannot be read.
    #[error("the store holds damaged data: {0}")]
    Damaged(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    MetricDefinitions,
    AccessKeys,
}

impl Table {
    pub const ALL: [Self; 2] = [Self::MetricDefinitions, Self::AccessKeys];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MetricDefinitions => "metric_definitions",
            Self::AccessKeys => "access_keys",
        }
    }
}

/// A row. What was deleted stays, without a body, so that its revision goes on rising.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub workspace: String,
    pub name: String,
    pub revision: u64,
    /// JSON.
    #[serde(alias = "definition")]
    pub body: Option<Box<RawValue>>,
    #[serde(with = "time::rfc3339")]
    pub updated_at: i64,
}

#[async_trait]
pub trait Store: Send + Sync {
    /// # Errors
    /// See [`StoreError`].
    async fn get(&self, table: Table, workspace: &str, name: &str) -> Result<Option<Row>, StoreError>;

    /// Of one workspace, deleted ones included, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, table: Table, workspace: &str) -> Result<Vec<Row>, StoreError>;

    /// Of every workspace.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list_all(&self, table: Table) -> Result<Vec<Row>, StoreError>;

    /// Writes if the stored revision is `expected` (`None`: nothing is stored); `false`: it is not, nothing was
    /// written.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn put_if(&self, table: Table, row: &Row, expected: Option<u64>) -> Result<bool, StoreError>;

    /// # Errors
    /// The store does not answer.
    async fn ping(&self) -> Result<(), StoreError>;
}
