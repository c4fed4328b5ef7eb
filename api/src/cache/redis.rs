//! The shared cache in Redis, or in whatever speaks its protocol (Valkey, Dragonfly, KeyDB).

use std::time::Duration;

use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, RedisError, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::shared::{SharedCache, SharedCacheError};

/// A cache that is slower than this is slower than ClickHouse is with most dashboards.
const PATIENCE: Duration = Duration::from_millis(250);

impl From<RedisError> for SharedCacheError {
    fn from(error: RedisError) -> Self {
        Self(format!("Redis: {error}"))
    }
}

/// One connection for all requests, made when it is first needed and again when it broke.
pub struct RedisCache {
    client: Client,
    connection: OnceCell<ConnectionManager>,
}

impl RedisCache {
    /// `url` is like `redis://user:password@host:6379/0`. Nothing has to answer yet.
    ///
    /// # Errors
    /// It is no such URL; the error does not show it.
    pub fn new(url: &str) -> Result<Self, SharedCacheError> {
        Ok(Self { client: Client::open(url)?, connection: OnceCell::new() })
    }

    async fn connection(&self) -> Result<ConnectionManager, SharedCacheError> {
        let connect = || async {
            let config = ConnectionManagerConfig::new()
                .set_connection_timeout(Some(PATIENCE))
                .set_response_timeout(Some(PATIENCE))
                .set_number_of_retries(0);
            ConnectionManager::new_lazy_with_config(self.client.clone(), config)
        };
        Ok(self.connection.get_or_try_init(connect).await?.clone())
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, SharedCacheError> {
        Ok(cmd("GET").arg(key).query_async(&mut self.connection().await?).await?)
    }

    async fn put(&self, key: &str, value: Bytes, lifetime: Duration) -> Result<(), SharedCacheError> {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(key).arg(value.as_ref()).arg("PX").arg(lifetime_ms);
        Ok(set.query_async(&mut self.connection().await?).await?)
    }

    async fn ping(&self) -> Result<(), SharedCacheError> {
        Ok(cmd("PING").query_async(&mut self.connection().await?).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_not_shown() {
        for url in ["hunter2", "http://user:hunter2@host", "redis://user:hunter2@host:port", "redis://:hunter2@/9x"] {
            let error = RedisCache::new(url).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("Redis") && !error.contains("hunter2"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn nothing_that_answers_is_an_error_within_a_moment() {
        // Of the ports that are reserved: nobody listens.
        let cache = RedisCache::new("redis://user:hunter2@127.0.0.1:1/").unwrap();
        let error = cache.ping().await.unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(cache.get("a").await.is_err(), "and again");
    }
}
