//! The shared cache in Redis, or in whatever speaks its protocol (Valkey, Dragonfly, KeyDB).

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, Cmd, FromRedisValue, RedisError, cmd};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::shared::{SharedCache, SharedCacheError};

/// A cache that is slower than this is slower than ClickHouse is with most dashboards.
const PATIENCE: Duration = Duration::from_millis(250);

impl From<RedisError> for SharedCacheError {
    fn from(error: RedisError) -> Self {
        Self(format!("Redis: {error}"))
    }
}

/// One connection for all requests, made when it is first needed. After any failure, a silent one included, the next request
/// makes another.
pub struct RedisCache {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl RedisCache {
    /// `url` is like `redis://user:password@host:6379/0`. Nothing has to answer yet.
    ///
    /// # Errors
    /// It is no such URL; the error does not show it.
    pub fn new(url: &str) -> Result<Self, SharedCacheError> {
        Ok(Self { client: Client::open(url)?, connection: Mutex::new(None) })
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SharedCacheError> {
        let answered = timeout(PATIENCE, async {
            let mut connection = self.connection().await?;
            command.query_async::<T>(&mut connection).await
        });
        let error = match answered.await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.into(),
            Err(_) => SharedCacheError(format!("Redis: no answer within {} ms", PATIENCE.as_millis())),
        };
        *self.connection.lock().await = None;
        Err(error)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(connection) => Ok(connection.clone()),
            None => Ok(connection.insert(self.client.get_multiplexed_async_connection().await?).clone()),
        }
    }
}

#[async_trait]
impl SharedCache for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, SharedCacheError> {
        self.ask(cmd("GET").arg(key)).await
    }

    async fn put(&self, key: &str, value: Bytes, lifetime: Duration) -> Result<(), SharedCacheError> {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        self.ask(cmd("SET").arg(key).arg(value.as_ref()).arg("PX").arg(lifetime_ms)).await
    }

    async fn ping(&self) -> Result<(), SharedCacheError> {
        self.ask(&cmd("PING")).await
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
    async fn whoever_refuses_or_never_answers_is_an_error_and_asked_again() {
        let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = deaf.local_addr().unwrap().port();
        // Of the ports that are reserved: nobody listens.
        for port in [1, port] {
            let cache = RedisCache::new(&format!("redis://user:hunter2@127.0.0.1:{port}/")).unwrap();
            for _ in 0..2 {
                let error = cache.ping().await.unwrap_err().to_string();
                assert!(error.contains("Redis") && !error.contains("hunter2"), "{error}");
            }
        }
    }
}
