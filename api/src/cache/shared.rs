//! The port to a cache that all processes of the query API share, and what lies in it.

use std::fmt::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::Fingerprint;

/// It is away, or refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SharedCacheError(pub String);

#[async_trait]
pub trait SharedCache: Send + Sync {
    /// # Errors
    /// It does not answer in time, or refuses.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, SharedCacheError>;

    /// Kept for `lifetime` at most.
    ///
    /// # Errors
    /// It does not answer in time, or refuses.
    async fn put(&self, key: &str, value: Bytes, lifetime: Duration) -> Result<(), SharedCacheError>;

    /// # Errors
    /// It does not answer in time, or refuses.
    async fn ping(&self) -> Result<(), SharedCacheError>;
}

/// Versions do not share: they might understand a plan differently.
pub(super) fn key(namespace: &str, plan: &Fingerprint) -> String {
    let mut key = format!("neonhub:{}:answer:{namespace}:", env!("CARGO_PKG_VERSION"));
    for byte in plan {
        // Writing into a String cannot fail.
        let _infallible = write!(key, "{byte:02x}");
    }
    key
}

/// A value there: when it was made (Unix milliseconds, i64), for how long it may be used (milliseconds, u32), both
/// little-endian, and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub made_at_ms: i64,
    pub lifetime: Duration,
    pub body: Bytes,
}

const HEAD: usize = size_of::<i64>() + size_of::<u32>();

impl Stored {
    pub fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(HEAD + self.body.len());
        value.put_i64_le(self.made_at_ms);
        value.put_u32_le(u32::try_from(self.lifetime.as_millis()).unwrap_or(u32::MAX));
        value.extend_from_slice(&self.body);
        value.freeze()
    }

    /// `None`: it is no such value.
    pub fn decode(mut value: Bytes) -> Option<Self> {
        let made_at = value.first_chunk().copied()?;
        let lifetime = value.get(size_of::<i64>()..)?.first_chunk().copied()?;
        Some(Self {
            made_at_ms: i64::from_le_bytes(made_at),
            lifetime: Duration::from_millis(u32::from_le_bytes(lifetime).into()),
            body: value.split_off(HEAD),
        })
    }

    /// `None`: it is too old, or was made by a clock that is ahead of ours.
    pub fn age(&self, now_ms: i64) -> Option<Duration> {
        let age = Duration::from_millis(u64::try_from(now_ms.checked_sub(self.made_at_ms)?).ok()?);
        Some(age).filter(|age| *age < self.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let stored = Stored {
            made_at_ms: -3,
            lifetime: Duration::from_millis(70_000),
            body: Bytes::from_static(b"{\"rows\":[]}"),
        };
        assert_eq!(Stored::decode(stored.encode()), Some(stored.clone()));
        let empty = Stored { body: Bytes::new(), ..stored };
        assert_eq!(Stored::decode(empty.encode()), Some(empty.clone()));
        assert_eq!(Stored::decode(empty.encode().slice(1..)), None);
        assert_eq!(empty.age(69_996), Some(Duration::from_millis(69_999)));
        assert_eq!((empty.age(69_997), empty.age(-4), empty.age(i64::MAX)), (None, None, None));
    }

    #[test]
    fn deployments_and_versions_do_not_share() {
        let key_of = |namespace| key(namespace, &[0xab; 32]);
        assert_ne!(key_of("a"), key_of("b"));
        assert!(key_of("a").contains(env!("CARGO_PKG_VERSION")) && key_of("a").ends_with("abababab"));
    }
}
