//! What every route shares.

use std::sync::Arc;
use std::time::Duration;

use neonhub_schemas::access::SharedKeyRing;
use neonhub_schemas::trace::Tracer;
use tokio::sync::{Semaphore, watch};

use crate::administration::Administration;
use crate::auth::RateLimits;
use crate::cache::AnswerCache;
use crate::cache::shared::SharedCache;
use crate::config::ApiConfig;
use crate::control::ControlLog;
use crate::definitions::Definitions;
use crate::feed::FeedLog;
use crate::feed::hub::{Hub, Pushes};
use crate::keys::{Keys, Random};
use crate::olap::Olap;
use crate::problem::Problem;
use crate::routes::health::LastLook;
use crate::routes::request_id;
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Time since a moment of the process's own, for quotas: a wall clock that is set back would refuse everybody for as long.
pub type Elapsed = Arc<dyn Fn() -> std::time::Duration + Send + Sync>;

/// The ports' adapters, chosen by `topology`.
pub struct Parts {
    pub olap: Arc<dyn Olap>,
    /// `None`: this process shares no answers with others.
    pub shared_cache: Option<Arc<dyn SharedCache>>,
    pub store: Arc<dyn Store>,
    pub control: Arc<dyn ControlLog>,
    pub feed: Arc<dyn FeedLog>,
    /// Filled by whoever follows `control`.
    pub keys: SharedKeyRing,
    pub clock: Clock,
    pub elapsed: Elapsed,
    pub random: Random,
    /// Told of windows that are pushed, if they are traced.
    pub tracer: Tracer,
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
    answers: AnswerCache,
    clock: Clock,
    administration: Arc<Administration>,
    definitions: Arc<Definitions>,
    keys: Keys,
    rate_limits: RateLimits,
    hub: Arc<Hub>,
    telemetry: Arc<Telemetry>,
    live_clients: Arc<Semaphore>,
    stopping: watch::Sender<bool>,
    openapi: std::sync::OnceLock<bytes::Bytes>,
    last_look: LastLook,
    elapsed: Elapsed,
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
        let administration = Administration::new(parts.store, parts.control, parts.clock.clone(), telemetry.clone());
        let administration = Arc::new(administration);
        let definitions = Arc::new(Definitions::new(administration.clone()));
        let known = definitions.clone();
        let aggregations = Arc::new(move |key: &neonhub_schemas::metric::MetricKey| known.aggregation(key));
        let pushes = Pushes { tracer: parts.tracer, clock: clock.clone() };
        let hub = Hub::start(parts.feed, aggregations, config.live_buffer, telemetry.clone(), pushes)?;
        let (wall, elapsed) = (parts.clock, parts.elapsed.clone());
        let answers = AnswerCache::new(config.cache.clone(), parts.shared_cache, wall, elapsed, telemetry.clone());
        Ok(Self(Arc::new(Inner {
            answers,
            elapsed: parts.elapsed.clone(),
            live_clients: Arc::new(Semaphore::new(config.max_live_clients)),
            config,
            olap: parts.olap,
            rate_limits: RateLimits::new(parts.elapsed),
            clock,
            keys: Keys::new(administration.clone(), parts.keys, parts.random),
            administration,
            definitions,
            hub,
            telemetry,
            stopping: watch::Sender::new(false),
            openapi: std::sync::OnceLock::new(),
            last_look: LastLook::default(),
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

    /// On the clock that is never set.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        (self.0.elapsed)()
    }

    pub(crate) fn last_look(&self) -> &LastLook {
        &self.0.last_look
    }

    #[must_use]
    pub fn olap(&self) -> &dyn Olap {
        self.0.olap.as_ref()
    }

    #[must_use]
    pub fn answers(&self) -> &AnswerCache {
        &self.0.answers
    }

    #[must_use]
    pub fn definitions(&self) -> &Arc<Definitions> {
        &self.0.definitions
    }

    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.0.keys
    }

    #[must_use]
    pub(crate) fn rate_limits(&self) -> &RateLimits {
        &self.0.rate_limits
    }

    /// A change goes on to its end, whether or not its client waits: half of one would be in the store and not on `control`,
    /// and nobody would know whose it was.
    ///
    /// # Errors
    /// The change's; 500 if it panicked.
    pub async fn to_the_end<T, Changing>(&self, change: impl FnOnce(Self) -> Changing) -> Result<T, Problem>
    where
        T: Send + 'static,
        Changing: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let changing = tokio::spawn(request_id::Current::of_request().scope(change(self.clone())));
        changing.await.unwrap_or_else(|error| Err(Problem::internal(&error)))
    }

    /// # Errors
    /// The store does not answer.
    pub async fn ping_store(&self) -> Result<(), StoreError> {
        self.0.administration.ping().await
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
            let reconciled = match self.definitions().reconcile().await {
                Ok(_) => self.keys().reconcile().await,
                Err(problem) => Err(problem),
            };
            let wait = match reconciled {
                Ok(_) => self.config().reconcile_interval,
                Err(problem) => {
                    tracing::warn!(detail = %problem.detail, "definitions and keys could not be reconciled; trying again soon");
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
