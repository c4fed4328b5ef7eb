//! What every route shares.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::config::ApiConfig;
use crate::control::ControlLog;
use crate::definitions::Definitions;
use crate::feed::FeedLog;
use crate::feed::hub::Hub;
use crate::olap::Olap;
use crate::store::DefinitionStore;
use crate::telemetry::Telemetry;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The ports' adapters, chosen by `topology`.
pub struct Parts {
    pub olap: Arc<dyn Olap>,
    pub store: Arc<dyn DefinitionStore>,
    pub control: Arc<dyn ControlLog>,
    pub feed: Arc<dyn FeedLog>,
    pub clock: Clock,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Zone(#[from] neonhub_schemas::window::CalendarError),
    #[error("metrics cannot be registered: {0}")]
    Telemetry(#[from] prometheus::Error),
    #[error("the live hub has no thread: {0}")]
    Hub(#[from] std::io::Error),
}

struct Inner {
    config: ApiConfig,
    olap: Arc<dyn Olap>,
    clock: Clock,
    definitions: Arc<Definitions>,
    hub: Arc<Hub>,
    telemetry: Arc<Telemetry>,
    live_clients: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    openapi: std::sync::OnceLock<bytes::Bytes>,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ApiState(Arc<Inner>);

impl ApiState {
    /// Starts the live hub; nothing has to answer yet.
    ///
    /// # Errors
    /// The settings are wrong, or the system has no thread for the hub.
    pub fn start(config: ApiConfig, parts: Parts) -> Result<Self, StartError> {
        config.check()?;
        let telemetry = Arc::new(Telemetry::new()?);
        let clock = parts.clock.clone();
        let definitions = Arc::new(Definitions::new(parts.store, parts.control, parts.clock, telemetry.clone()));
        let known = definitions.clone();
        let aggregations = Arc::new(move |key: &neonhub_schemas::metric::MetricKey| known.aggregation(key));
        let hub = Hub::start(parts.feed, aggregations, config.live_buffer, telemetry.clone())?;
        Ok(Self(Arc::new(Inner {
            live_clients: Arc::new(Semaphore::new(config.max_live_clients)),
            config,
            olap: parts.olap,
            clock,
            definitions,
            hub,
            telemetry,
            stopping: watch::Sender::new(false),
            openapi: std::sync::OnceLock::new(),
        })))
    }

    #[must_use]
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.0.clock)()
    }

    #[must_use]
    pub fn olap(&self) -> &dyn Olap {
        self.0.olap.as_ref()
    }

    #[must_use]
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.0.definitions
    }

    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    #[must_use]
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.0.telemetry
    }

    #[must_use]
    pub fn live_clients(&self) -> &Arc<Semaphore> {
        &self.0.live_clients
    }

    /// Turns true when the server stops: live streams end.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stopping.subscribe()
    }

    /// Waits for [`Self::stop`].
    pub async fn stopped(&self) {
        let mut stopping = self.stopping();
        // An error means that the state is gone, which does not happen while we hold it.
        drop(stopping.wait_for(|stopping| *stopping).await);
    }

    /// Ends the live streams.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// The document's text. All answers share it: clients that do not read theirs must not hold a copy each.
    pub(crate) fn openapi(&self) -> &std::sync::OnceLock<bytes::Bytes> {
        &self.0.openapi
    }

    /// Compares the store and `control`, now and then at every interval, until the server stops.
    pub async fn keep_reconciled(&self) {
        let retry = Duration::from_secs(2).min(self.config().reconcile_interval);
        loop {
            let wait = match self.definitions().reconcile().await {
                Ok(_) => self.config().reconcile_interval,
                Err(problem) => {
                    tracing::warn!(detail = %problem.detail, "definitions could not be reconciled; trying again soon");
                    retry
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopped() => return,
            }
        }
    }
}
