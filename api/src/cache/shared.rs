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

/// To be raised when answers, plans or [`Stored`] change their form: releases before and after it do not share.
const FORM: u32 = 1;

pub(super) fn key(namespace: &str, plan: &Fingerprint) -> String {
    let mut key = format!("neonhub:{}.{FORM}:answer:{namespace}:", env!("CARGO_PKG_VERSION"));
    for byte in plan {
        // Writing into a String cannot fail.
        let _infallible = write!(key, "{byte:02x}");
    }
    key
}

/// A value there: when ClickHouse was asked for it (Unix milliseconds, i64, little-endian), whether all its windows are final
/// (one byte, 0 or 1), and the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub made_at_ms: i64,
    pub is_closed: bool,
    pub body: Bytes,
}

const HEAD: usize = size_of::<i64>() + 1;

impl Stored {
    pub fn encode(&self) -> Bytes {
        let mut value = BytesMut::with_capacity(HEAD + self.body.len());
        value.put_i64_le(self.made_at_ms);
        value.put_u8(self.is_closed.into());
        value.extend_from_slice(&self.body);
        value.freeze()
    }

    /// `None`: it is no such value.
    pub fn decode(mut value: Bytes) -> Option<Self> {
        let made_at = value.first_chunk().copied()?;
        let is_closed = match value.get(size_of::<i64>())? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self { made_at_ms: i64::from_le_bytes(made_at), is_closed, body: value.split_off(HEAD) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let stored = Stored { made_at_ms: -3, is_closed: true, body: Bytes::from_static(b"{\"rows\":[]}") };
        assert_eq!(Stored::decode(stored.encode()), Some(stored.clone()));
        let empty = Stored { body: Bytes::new(), is_closed: false, ..stored };
        assert_eq!(Stored::decode(empty.encode()), Some(empty.clone()));
        for damaged in [empty.encode().slice(1..), Bytes::from_static(b"a made-up value")] {
            assert_eq!(Stored::decode(damaged.clone()), None, "{damaged:?}");
        }
    }

    #[test]
    fn deployments_and_versions_do_not_share() {
        let key_of = |namespace| key(namespace, &[0xab; 32]);
        assert_ne!(key_of("a"), key_of("b"));
        assert!(key_of("a").contains(env!("CARGO_PKG_VERSION")) && key_of("a").ends_with("abababab"));
    }
}
