//! What all requests share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderValue;
use neonhub_schemas::ids::is_workspace_name;
use neonhub_schemas::trace::Tracer;
use tokio::sync::Semaphore;

use super::keys::WriteKeys;
use super::metrics::IngestMetrics;
use super::quota::StrangerLimit;
use super::webhooks::WebhookRing;
use crate::config::{IngestConfig, Limits};
use crate::sink::EventSink;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;
/// Time since a moment of the process's own, for quotas: a wall clock that is set back would refuse everybody for as long.
pub type Elapsed = Arc<dyn Fn() -> Duration + Send + Sync>;
/// Random bits for message and request ids, all 128 of them.
pub type Random = Arc<dyn Fn() -> u128 + Send + Sync>;

/// Cheap to clone.
#[derive(Clone)]
pub struct IngestState(Arc<Shared>);

struct Shared {
    limits: Limits,
    allowed_origins: Vec<HeaderValue>,
    keys: WriteKeys,
    webhooks: WebhookRing,
    strangers: StrangerLimit,
    sink: Arc<dyn EventSink>,
    clock: Clock,
    random: Random,
    metrics: IngestMetrics,
    tracer: Tracer,
    bytes_in_flight: Arc<Semaphore>,
    draining: AtomicBool,
}

/// A setting that cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("workspace `{0}` of write key for `{1}`: use 1 to 64 of a-z, 0-9, - and _")]
    Workspace(String, String),
    #[error("the write key for `{0}` must be 1 to 512 printable ASCII characters without a colon")]
    KeyShape(String),
    #[error("the write key for `{0}` is used twice")]
    KeyTwice(String),
    #[error("the quota for `{0}` must allow at least one event a second and a burst of at least one")]
    Quota(String),
    #[error("webhook secret of `{workspace}` for `{platform}`: {fault}")]
    Webhook { workspace: String, platform: String, fault: &'static str },
    #[error("allowed origin `{0}` is no origin, like https://shop.example")]
    Origin(String),
    #[error("max_bytes_in_flight must hold at least two bodies of max_body_bytes ({0})")]
    InFlight(usize),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl IngestState {
    /// # Errors
    /// A setting cannot be worked with; the message names it.
    pub fn new(
        config: IngestConfig,
        sink: Arc<dyn EventSink>,
        clock: Clock,
        elapsed: Elapsed,
        random: Random,
    ) -> Result<Self, ConfigError> {
        check_keys(&config)?;
        let limits = config.limits;
        if limits.max_bytes_in_flight < limits.max_body_bytes.saturating_mul(2) {
            return Err(ConfigError::InFlight(limits.max_body_bytes));
        }
        let origin = |text: String| HeaderValue::from_str(&text).map_err(|_| ConfigError::Origin(text));
        let allowed_origins = config.allowed_origins.into_iter().map(origin).collect::<Result<_, _>>()?;
        let permits = limits.max_bytes_in_flight.min(Semaphore::MAX_PERMITS);
        Ok(Self(Arc::new(Shared {
            allowed_origins,
            keys: WriteKeys::new(config.keys, config.managed_keys, &clock, &elapsed),
            webhooks: WebhookRing::new(config.webhook_secrets, &elapsed)?,
            strangers: StrangerLimit::new(&elapsed),
            sink,
            clock,
            random,
            metrics: IngestMetrics::new()?,
            tracer: config.tracer,
            bytes_in_flight: Arc::new(Semaphore::new(permits)),
            draining: AtomicBool::new(false),
            limits,
        })))
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The registry behind `/metrics`, for a process that shows several crates' metrics at one place.
    #[must_use]
    pub fn registry(&self) -> &prometheus::Registry {
        self.0.metrics.registry()
    }

    pub(super) fn allowed_origins(&self) -> &[HeaderValue] {
        &self.0.allowed_origins
    }

    pub(super) fn keys(&self) -> &WriteKeys {
        &self.0.keys
    }

    pub(super) fn webhooks(&self) -> &WebhookRing {
        &self.0.webhooks
    }

    pub(super) fn strangers(&self) -> &StrangerLimit {
        &self.0.strangers
    }

    pub(super) fn sink(&self) -> &dyn EventSink {
        self.0.sink.as_ref()
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.0.clock)()
    }

    pub(super) fn random(&self) -> u128 {
        (self.0.random)()
    }

    pub(super) fn metrics(&self) -> &IngestMetrics {
        &self.0.metrics
    }

    pub(super) fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    pub(super) fn bytes_in_flight(&self) -> &Arc<Semaphore> {
        &self.0.bytes_in_flight
    }

    pub(super) fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }
}

fn check_keys(config: &IngestConfig) -> Result<(), ConfigError> {
    let mut seen = HashSet::new();
    for key in &config.keys {
        let name = key.source_name.clone();
        let fits = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if !is_workspace_name(&key.workspace) {
            return Err(ConfigError::Workspace(key.workspace.clone(), name));
        }
        if key.key.is_empty() || key.key.len() > 512 || !key.key.bytes().all(fits) {
            return Err(ConfigError::KeyShape(name));
        }
        if !seen.insert(&key.key) {
            return Err(ConfigError::KeyTwice(name));
        }
        if key.events_per_second == 0 || key.burst == 0 {
            return Err(ConfigError::Quota(name));
        }
    }
    Ok(())
}
