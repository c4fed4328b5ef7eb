//! The role `processors`: one thread a worker. A worker that fails is dropped and made anew from what is committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use neonhub_processors::engine::kafka::Scope;
use neonhub_processors::engine::{Clock, EngineError, EngineMetrics, Ports, Stage, Worker, WorkerConfig};
use neonhub_processors::landing::{BatchLimits, LANDED_TOPICS, Landing, LandingConfig};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::event::Source;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::Stop;
use crate::clients::{self, Backbone};
use crate::clock;
use crate::embedded::state::FjallStates;
use crate::serving::{ConnectionLimits, Server};
use crate::settings::Settings;

/// Which processors a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Processor {
    Refine,
    Metrics,
    Landing,
}

/// Running threads, and what they share.
pub struct Processors {
    threads: Vec<JoinHandle<()>>,
    health: Health,
    registry: Registry,
}

/// How many workers there are, and how many are at work (not waiting to be made anew).
#[derive(Clone, Default)]
struct Health {
    total: Arc<AtomicUsize>,
    working: Arc<AtomicUsize>,
}

struct Shared {
    settings: Settings,
    backbone: Backbone,
    metrics: EngineMetrics,
    health: Health,
    stop: Stop,
    clock: Clock,
    states: FjallStates,
}

/// Blocks of local state in memory, for each stage that keeps one.
const STATE_CACHE_BYTES: u64 = 32 << 20;

impl Processors {
    /// Starts the threads; an empty `only` means all.
    ///
    /// # Errors
    /// A setting cannot be worked with, or the system gives no threads.
    pub fn start(settings: &Settings, backbone: &Backbone, only: &[Processor], stop: &Stop) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            backbone: backbone.clone(),
            metrics: EngineMetrics::register(&registry)?,
            health: Health::default(),
            stop: stop.clone(),
            clock: clock::wall(),
            states: FjallStates::new(
                settings.data_dir.join("state").join(&settings.backbone.instance),
                STATE_CACHE_BYTES,
            ),
        });
        let wanted = |processor| only.is_empty() || only.contains(&processor);
        let mut threads = Vec::new();
        for worker in 0..settings.processing.workers {
            if wanted(Processor::Refine) {
                let config = refine_config(settings);
                threads.push(spawn_stage(&shared, "refine", worker, move || Ok(Refine::new(config)))?);
            }
            if wanted(Processor::Metrics) {
                let partial = partial_config(settings);
                threads
                    .push(spawn_stage(&shared, "metrics-partial", worker, move || Ok(MetricsPartial::new(partial)))?);
                let merge = merge_config(settings);
                let make =
                    move || MetricsMerge::new(merge.clone()).map_err(|error| EngineError::Fatal(error.to_string()));
                threads.push(spawn_stage(&shared, "metrics-merge", worker, make)?);
            }
            if wanted(Processor::Landing) {
                let of_worker = Arc::clone(&shared);
                let slot = slot(settings, worker);
                threads.push(spawn(&shared, format!("landing-{worker}"), move || land(&of_worker, &slot))?);
            }
        }
        Ok(Self { threads, health: shared.health.clone(), registry })
    }

    /// Waits for the threads, which end when they are told to stop.
    pub async fn join(self) {
        let join = move || {
            for thread in self.threads {
                let name = thread.thread().name().unwrap_or_default().to_owned();
                if thread.join().is_err() {
                    tracing::error!(name, "a worker's thread panicked");
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(join).await {
            tracing::error!(%error, "the workers could not be waited for");
        }
    }

    /// `/health/live`, `/health/ready` and `/metrics`.
    pub fn router(&self) -> Router {
        let (health, registry) = (self.health.clone(), self.registry.clone());
        let ready = move || {
            let (total, working) = (health.total.load(Ordering::Relaxed), health.working.load(Ordering::Relaxed));
            async move {
                let status = if working == total { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (
                    status,
                    axum::Json(serde_json::json!({ "ready": working == total, "workers": total, "working": working })),
                )
            }
        };
        let metrics = move || {
            let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
            async move {
                match text {
                    Ok(text) => (StatusCode::OK, text),
                    Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
        };
        Router::new()
            .route("/health/live", get(|| async { axum::Json(serde_json::json!({ "live": true })) }))
            .route("/health/ready", get(ready))
            .route("/metrics", get(metrics))
    }

    /// Serves [`Self::router`] until it is told to stop.
    ///
    /// # Errors
    /// It is served already.
    pub async fn serve_health(&self, listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
        let server = Server::new(listener, ConnectionLimits::for_operators(), &self.registry)?;
        server.serve(self.router(), stop.stopped()).await;
        Ok(())
    }
}

fn slot(settings: &Settings, worker: u32) -> String {
    format!("{}-{worker}", settings.backbone.instance)
}

fn refine_config(settings: &Settings) -> RefineConfig {
    RefineConfig {
        dedup_window: settings.processing.dedup_window,
        memory_per_partition: memory_per_partition(settings) / Source::ALL.len(),
        ..RefineConfig::default()
    }
}

fn partial_config(settings: &Settings) -> PartialConfig {
    PartialConfig {
        out_of_orderness: settings.processing.out_of_orderness,
        partials_partitions: settings.backbone.partitions,
        ..PartialConfig::default()
    }
}

fn merge_config(settings: &Settings) -> MergeConfig {
    MergeConfig {
        partitions: settings.backbone.partitions,
        default_zone: settings.access.timezone.clone(),
        max_keys: settings.processing.max_keys,
        memory_per_partition: memory_per_partition(settings),
        ..MergeConfig::default()
    }
}

/// Of a topic that has all of a processor's state.
fn memory_per_partition(settings: &Settings) -> usize {
    settings.processing.state_memory_bytes / settings.backbone.partitions.max(1) as usize
}

fn spawn_stage<S: Stage + 'static>(
    shared: &Arc<Shared>,
    group: &'static str,
    worker: u32,
    make: impl Fn() -> Result<S, EngineError> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let of_worker = Arc::clone(shared);
    let slot = slot(&shared.settings, worker);
    spawn(shared, format!("{group}-{worker}"), move || run_stage(&of_worker, group, &slot, make()?))
}

/// A thread that runs `work` until it ends well; after an error it begins again, later each time.
fn spawn(
    shared: &Arc<Shared>,
    name: String,
    work: impl Fn() -> Result<(), EngineError> + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    shared.health.total.fetch_add(1, Ordering::Relaxed);
    let processor = name.clone();
    let body = move || {
        let mut backoff = Duration::from_millis(100);
        while !shared.stop.is_stopped() {
            let began_ms = (shared.clock)();
            // A panic is a bug, but one that must not stop the others' events for good.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&work));
            let outcome = outcome.unwrap_or_else(|_| Err(EngineError::Fatal("the worker panicked".to_owned())));
            let Err(error) = outcome else { break };
            shared.metrics.restarts.with_label_values(&[processor.as_str()]).inc();
            if (shared.clock)() - began_ms > 30_000 {
                backoff = Duration::from_millis(100);
            }
            let backoff_ms = backoff.as_millis();
            if matches!(error, EngineError::Fatal(_)) {
                tracing::error!(processor, %error, backoff_ms, "worker begins again, but this needs a person");
            } else {
                tracing::warn!(processor, %error, backoff_ms, "worker begins again from what is committed");
            }
            if shared.stop.wait(backoff) {
                break;
            }
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
    };
    Ok(std::thread::Builder::new().name(name).spawn(body)?)
}

fn run_stage<S: Stage>(shared: &Shared, group: &str, slot: &str, stage: S) -> Result<(), EngineError> {
    let (inputs, outputs) = (stage.inputs(), stage.outputs());
    let scope = Scope { group, inputs: &inputs, outputs: &outputs };
    let mut ports: Ports = shared.backbone.engine_ports(scope, slot)?;
    ports.states = Some(Box::new(shared.states.clone()));
    let config =
        WorkerConfig { commit_interval: shared.settings.processing.commit_interval, ..WorkerConfig::default() };
    let mut worker = Worker::new(stage, ports, Arc::clone(&shared.clock), config, shared.metrics.clone())?;
    let _at_work = AtWork::new(&shared.health);
    while !shared.stop.is_stopped() {
        worker.step()?;
    }
    worker.finish()
}

fn land(shared: &Shared, slot: &str) -> Result<(), EngineError> {
    let ports = shared.backbone.landing_ports("landing", slot, &LANDED_TOPICS)?;
    let inserters = clients::inserters(&shared.settings, &format!("landing-{slot}"))
        .map_err(|error| EngineError::Fatal(error.to_string()))?;
    let limits = BatchLimits { max_rows: shared.settings.processing.landing_rows, ..LandingConfig::default().limits };
    let config = LandingConfig {
        limits,
        linger: shared.settings.processing.landing_linger,
        token_prefix: shared.settings.backbone.topic_prefix.clone(),
        ..LandingConfig::default()
    };
    let clock = Arc::clone(&shared.clock);
    let mut landing = Landing::new(ports, Box::new(inserters), clock, config, shared.metrics.clone());
    let _at_work = AtWork::new(&shared.health);
    while !shared.stop.is_stopped() {
        landing.step()?;
    }
    landing.finish()
}

/// Counts a worker as working while it lives.
struct AtWork(Health);

impl AtWork {
    fn new(health: &Health) -> Self {
        health.working.fetch_add(1, Ordering::Relaxed);
        Self(health.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::Relaxed);
    }
}
