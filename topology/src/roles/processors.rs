//! The role `processors`: one thread a worker. A worker that fails is dropped and made anew from what is committed.

use std::sync::Arc;
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
use neonhub_schemas::trace::Tracer;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::Stop;
use super::posts::{Post, Watch, Work};
use crate::clients::{self, Backbone};
use crate::clock;
use crate::embedded::state::TreeStates;
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
    posts: Arc<Vec<Post>>,
    watchman: JoinHandle<()>,
    registry: Registry,
    metrics: EngineMetrics,
}

/// Between two looks at the workers.
const ROUND: Duration = Duration::from_secs(1);

struct Shared {
    settings: Settings,
    backbone: Backbone,
    metrics: EngineMetrics,
    tracer: Tracer,
    stop: Stop,
    clock: Clock,
    states: TreeStates,
}

/// Blocks of local state in memory, for each stage that keeps one.
const STATE_CACHE_BYTES: u64 = 32 << 20;

impl Processors {
    /// Starts the threads; an empty `only` means all.
    ///
    /// # Errors
    /// A setting cannot be worked with, or the system gives no threads.
    pub fn start(
        settings: &Settings,
        backbone: &Backbone,
        only: &[Processor],
        tracer: &Tracer,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let metrics = EngineMetrics::register(&registry)?;
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            backbone: backbone.clone(),
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            stop: stop.clone(),
            clock: clock::wall(),
            states: TreeStates::new(
                settings.data_dir.join("state").join(&settings.backbone.instance),
                STATE_CACHE_BYTES,
            )?,
        });
        let wanted = |processor| only.is_empty() || only.contains(&processor);
        let mut posts = Vec::new();
        for worker in 0..settings.processing.workers {
            if wanted(Processor::Refine) {
                let config = refine_config(settings);
                posts.push(stage_post(&shared, "refine", worker, move || Ok(Refine::new(config)))?);
            }
            if wanted(Processor::Metrics) {
                let partial = partial_config(settings);
                posts.push(stage_post(&shared, "metrics-partial", worker, move || Ok(MetricsPartial::new(partial)))?);
                let merge = merge_config(settings);
                let make =
                    move || MetricsMerge::new(merge.clone()).map_err(|error| EngineError::Fatal(error.to_string()));
                posts.push(stage_post(&shared, "metrics-merge", worker, make)?);
            }
            if wanted(Processor::Landing) {
                let of_worker = Arc::clone(&shared);
                let slot = slot(settings, worker);
                let work: Work = Arc::new(move |watch: &Watch| land(&of_worker, &slot, watch));
                posts.push(post(&shared, format!("landing-{worker}"), work)?);
            }
        }
        let posts = Arc::new(posts);
        let (watched, stop) = (Arc::clone(&posts), stop.clone());
        let rounds = move || {
            while !stop.wait(ROUND) {
                for post in &*watched {
                    if let Err(error) = post.look_after() {
                        tracing::error!(%error, "no thread for another worker");
                    }
                }
            }
        };
        let watchman = std::thread::Builder::new().name("watchman".to_owned()).spawn(rounds)?;
        Ok(Self { posts, watchman, registry, metrics })
    }

    /// Waits for the threads, which end when they are told to stop.
    pub async fn join(self) {
        let join = move || {
            if self.watchman.join().is_err() {
                tracing::error!("the watchman panicked");
            }
            // The health service may still look at them.
            self.posts.iter().for_each(Post::join);
        };
        if let Err(error) = tokio::task::spawn_blocking(join).await {
            tracing::error!(%error, "the workers could not be waited for");
        }
    }

    /// `/health/live`, `/health/ready` and `/metrics`.
    pub fn router(&self) -> Router {
        let (posts, registry, engine) = (Arc::clone(&self.posts), self.registry.clone(), self.metrics.clone());
        let ready = move || {
            let not_working: Vec<String> =
                posts.iter().filter(|post| !post.is_at_work()).map(|post| post.name().to_owned()).collect();
            let (total, working) = (posts.len(), posts.len() - not_working.len());
            let (lag, not_landed) = (engine.lag_by_processor(), engine.landings_that_fail());
            async move {
                let is_ready = working == total && not_landed == 0;
                let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                (
                    status,
                    axum::Json(serde_json::json!({
                        "ready": is_ready,
                        "workers": total,
                        "working": working,
                        "not_working": not_working,
                        "inserts_that_fail": not_landed,
                        "lag_records": lag,
                    })),
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

fn stage_post<S: Stage + 'static>(
    shared: &Arc<Shared>,
    group: &'static str,
    worker: u32,
    make: impl Fn() -> Result<S, EngineError> + Send + Sync + 'static,
) -> std::io::Result<Post> {
    let of_worker = Arc::clone(shared);
    let slot = slot(&shared.settings, worker);
    let work: Work = Arc::new(move |watch: &Watch| run_stage(&of_worker, group, &slot, watch, make()?));
    post(shared, format!("{group}-{worker}"), work)
}

fn post(shared: &Arc<Shared>, name: String, work: Work) -> std::io::Result<Post> {
    let restarts = shared.metrics.restarts.with_label_values(&[name.as_str()]);
    Post::fill(name, work, shared.stop.clone(), Arc::clone(&shared.clock), restarts)
}

fn run_stage<S: Stage>(shared: &Shared, group: &str, slot: &str, watch: &Watch, stage: S) -> Result<(), EngineError> {
    let (inputs, outputs) = (stage.inputs(), stage.outputs());
    let scope = Scope { group, inputs: &inputs, outputs: &outputs };
    let mut ports: Ports = shared.backbone.engine_ports(scope, slot, shared.tracer.clone())?;
    ports.committer = watch.over(ports.committer);
    ports.states = Some(Box::new(shared.states.clone()));
    let config =
        WorkerConfig { commit_interval: shared.settings.processing.commit_interval, ..WorkerConfig::default() };
    let mut worker = Worker::new(stage, ports, Arc::clone(&shared.clock), config, shared.metrics.clone())?;
    let _at_work = watch.at_work();
    while !shared.stop.is_stopped() {
        worker.step()?;
    }
    worker.finish()
}

fn land(shared: &Shared, slot: &str, watch: &Watch) -> Result<(), EngineError> {
    let mut ports = shared.backbone.landing_ports("landing", slot, &LANDED_TOPICS)?;
    ports.tracer = shared.tracer.clone();
    ports.committer = watch.over(ports.committer);
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
    let _at_work = watch.at_work();
    while !shared.stop.is_stopped() {
        landing.step()?;
    }
    landing.finish()
}
