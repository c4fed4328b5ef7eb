//! The operational store's port: metric definitions, guarded by their revision.

pub mod memory;
pub mod scylla;

use async_trait::async_trait;
use neonhub_schemas::control::DefinitionRecord;

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

/// Definitions by workspace and name. A deleted one stays, with `definition: null`, so that its revision goes on rising.
#[async_trait]
pub trait DefinitionStore: Send + Sync {
    /// # Errors
    /// See [`StoreError`].
    async fn get(&self, workspace: &str, name: &str) -> Result<Option<DefinitionRecord>, StoreError>;

    /// Of one workspace, deleted ones included, by name.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list(&self, workspace: &str) -> Result<Vec<DefinitionRecord>, StoreError>;

    /// Of every workspace.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn list_all(&self) -> Result<Vec<DefinitionRecord>, StoreError>;

    /// Writes if the stored revision is `expected` (`None`: nothing is stored); `false`: it is not, nothing was
    /// written.
    ///
    /// # Errors
    /// See [`StoreError`].
    async fn put_if(&self, record: &DefinitionRecord, expected: Option<u64>) -> Result<bool, StoreError>;

    /// # Errors
    /// The store does not answer.
    async fn ping(&self) -> Result<(), StoreError>;
}
