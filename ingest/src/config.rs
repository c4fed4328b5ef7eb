//! What ingest can be told. Nothing here reads the environment: the shell fills these structs.

use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use neonhub_schemas::access::{KeyRing, SharedKeyRing};
use neonhub_schemas::trace::Tracer;

/// Sizes and counts of what is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One event's JSON, in bytes.
    pub max_event_bytes: usize,
    /// A request's body in bytes, as sent and again after decompression.
    pub max_body_bytes: usize,
    /// Events in one request.
    pub max_batch_events: usize,
    /// Bytes of all the bodies being worked on; above it new requests are turned away with 503.
    pub max_bytes_in_flight: usize,
    /// From the request's head to its answer; after it the answer is 503.
    pub request_timeout: Duration,
    /// How long a shutdown waits for requests under way.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_event_bytes: 32 * 1024,
            max_body_bytes: 500 * 1024,
            max_batch_events: 10_000,
            max_bytes_in_flight: 256 * 1024 * 1024,
            request_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// A write key and what it may do.
#[derive(Clone, PartialEq, Eq)]
pub struct WriteKey {
    pub workspace: String,
    /// Secret enough not to be printed, though every browser of the site knows it.
    pub key: String,
    /// For people: `shop-web`.
    pub source_name: String,
    pub events_per_second: u32,
    /// Events that may come at once; also the largest batch that this key may send.
    pub burst: u32,
}

impl fmt::Debug for WriteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteKey")
            .field("workspace", &self.workspace)
            .field("key", &"***")
            .field("source_name", &self.source_name)
            .field("events_per_second", &self.events_per_second)
            .field("burst", &self.burst)
            .finish()
    }
}

impl WriteKey {
    /// A key with the default quota.
    #[must_use]
    pub fn new(workspace: impl Into<String>, key: impl Into<String>, source_name: impl Into<String>) -> Self {
        Self {
            workspace: workspace.into(),
            key: key.into(),
            source_name: source_name.into(),
            events_per_second: 50_000,
            burst: 100_000,
        }
    }
}

/// What a platform signs its webhooks with (Standard Webhooks 1.0.0). Several for one platform are all good: that is how
/// secrets are rotated. Each has the default quota of a write key.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret {
    pub workspace: String,
    /// As in the path, in lower case; `*`: any.
    pub platform: String,
    /// `whsec_` and at least 24 bytes in base64.
    pub secret: String,
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSecret")
            .field("workspace", &self.workspace)
            .field("platform", &self.platform)
            .field("secret", &"***")
            .finish()
    }
}

/// Keys that people made, and the quota of those that have none of their own.
#[derive(Clone, Debug)]
pub struct ManagedKeys {
    /// Filled by whoever follows `control`.
    pub ring: SharedKeyRing,
    pub events_per_second: u32,
    pub burst: u32,
}

impl Default for ManagedKeys {
    /// None, and it is known that there are none.
    fn default() -> Self {
        let mut ring = KeyRing::default();
        ring.complete();
        Self { ring: Arc::new(RwLock::new(ring)), events_per_second: 50_000, burst: 100_000 }
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct IngestConfig {
    pub limits: Limits,
    pub keys: Vec<WriteKey>,
    pub managed_keys: ManagedKeys,
    /// Origins that browsers may send from; empty: any.
    pub allowed_origins: Vec<String>,
    /// Without one for its platform, no webhook is let in.
    pub webhook_secrets: Vec<WebhookSecret>,
    /// Told of requests that are traced.
    pub tracer: Tracer,
}

impl IngestConfig {
    /// One workspace `acme` with the key `test-key`, and short deadlines.
    #[must_use]
    pub fn for_testing() -> Self {
        Self {
            limits: Limits {
                request_timeout: Duration::from_secs(5),
                drain_timeout: Duration::from_secs(5),
                ..Limits::default()
            },
            keys: vec![WriteKey::new("acme", "test-key", "tests")],
            managed_keys: ManagedKeys::default(),
            allowed_origins: Vec::new(),
            webhook_secrets: Vec::new(),
            tracer: Tracer::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_printed() {
        let secret = "whsec_secret".to_owned();
        let webhook_secrets = vec![WebhookSecret { workspace: "acme".to_owned(), platform: "*".to_owned(), secret }];
        let printed = format!("{:?}", IngestConfig { webhook_secrets, ..IngestConfig::for_testing() });
        assert!(!printed.contains("test-key") && !printed.contains("whsec_"), "{printed}");
    }
}
