//! A shared cache as tests play it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::shared::{SharedCache, SharedCacheError};

#[derive(Debug, Default)]
struct Inner {
    values: HashMap<String, Bytes>,
    is_away: bool,
    asked: usize,
}

/// Values stay for good: whoever reads them must notice that they are too old.
#[derive(Debug, Default)]
pub struct MemoryShared(Mutex<Inner>);

impl MemoryShared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_away(&self, is_away: bool) {
        self.inner().is_away = is_away;
    }

    /// How often it was asked for anything.
    pub fn asked(&self) -> usize {
        self.inner().asked
    }

    /// Every value.
    pub fn overwrite(&self, with: &[u8]) {
        self.inner().values.values_mut().for_each(|value| *value = Bytes::copy_from_slice(with));
    }

    fn ask(&self) -> Result<MutexGuard<'_, Inner>, SharedCacheError> {
        let mut inner = self.inner();
        inner.asked += 1;
        if inner.is_away { Err(SharedCacheError("it is away".to_owned())) } else { Ok(inner) }
    }
}

#[async_trait]
impl SharedCache for MemoryShared {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, SharedCacheError> {
        Ok(self.ask()?.values.get(key).cloned())
    }

    async fn put(&self, key: &str, value: Bytes, _: Duration) -> Result<(), SharedCacheError> {
        self.ask()?.values.insert(key.to_owned(), value);
        Ok(())
    }

    async fn ping(&self) -> Result<(), SharedCacheError> {
        self.ask().map(drop)
    }
}
