//! `neonhub bench`: each figure beside its limit, measured in the same run on the same machine and broker. What a bench
//! computes is checked against what its events were made to say: a wrong result has no speed.
//!
//! | module | has |
//! |---|---|
//! | `usage` | CPU seconds and peak memory of a process |
//! | `events` | the events, the same each time, and what they add up to |
//! | `children` | roles as processes of their own, so that what drives them is not counted |
//! | `scratch` | topics of this run on the broker that the settings name |
//! | `stepper` | a stage stepped by hand, under a virtual clock |
//! | `dashboard` | the widgets of `query`, the rows behind them and what they must show |
//! | the others | one bench each |

mod children;
mod dashboard;
mod embedded;
mod events;
mod ingest;
mod landing;
mod latency;
mod load;
mod memory;
mod metrics;
mod query;
mod refine;
mod restore;
mod scaling;
mod scratch;
mod spill;
mod spill_refine;
mod spread;
mod stepper;
mod usage;
mod viewers;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::settings::Settings;

pub use ingest::serve_limit;

/// What to measure.
#[derive(Clone, Copy, Debug, clap::Subcommand)]
pub enum Bench {
    /// Events into Kafka over HTTP, per CPU second of ingest. Limit: a raw idempotent producer with the same records
    /// (`--batch` above 1), or an HTTP handler that does nothing (`--batch 1`).
    Ingest {
        #[arg(long, default_value_t = 100)]
        batch: usize,
        #[arg(long, default_value_t = 300_000)]
        events: u64,
    },
    /// Raw events to refined ones on Kafka. Limit: a bare consumer that parses and produces.
    Refine {
        #[arg(long, default_value_t = 300_000)]
        events: u64,
    },
    /// Refined events to windows on Kafka, exactly once. Limit: a bare consumer, a parser and a hash map on one thread.
    Metrics {
        #[arg(long, default_value_t = 500_000)]
        events: u64,
        /// All built-in metrics instead of a count and a sum.
        #[arg(long)]
        builtin: bool,
    },
    /// Refined events into ClickHouse. Limit: the same rows posted straight to it.
    Landing {
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// From a POST at 1,000 events a second to its effect.
    Latency {
        #[arg(long, value_enum, default_value = "push")]
        to: latency::Destination,
        /// Sent beforehand, and not measured.
        #[arg(long, default_value_t = 20)]
        warm_up: u64,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// From POST to windows and ClickHouse, everything in one process on the embedded stack.
    Embedded {
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// A dashboard of 12 widgets over 90 days of hourly windows of 1,000 keys. Limit: the best SQL, sent straight to
    /// ClickHouse.
    Query {
        #[arg(long, default_value_t = 90)]
        days: u32,
        #[arg(long, default_value_t = 30)]
        rounds: u32,
    },
    /// The same dashboard, loaded by many people at one time who load it again as soon as it is there. Limit: a query API that
    /// keeps no answers.
    Viewers {
        #[arg(long, default_value_t = 90)]
        days: u32,
        #[arg(long, default_value_t = 20)]
        viewers: u32,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// Windows of the merge stage read back after kill -9. Limit: reading the bytes.
    Restore {
        #[arg(long, default_value_t = 1_000_000)]
        windows: u64,
    },
    /// Bytes of a live window of the merge stage, and whether a week adds any.
    Memory {
        #[arg(long, default_value_t = 1_000_000)]
        windows: u64,
        #[arg(long, default_value_t = 7)]
        days: u32,
    },
    /// What `memory` measures in a process of its own.
    #[command(hide = true)]
    MemoryOf { content: memory::Content, windows: u64 },
    /// More windows than memory may take: the rest waits in the local state. Limit: all in memory.
    Spill {
        #[arg(long, default_value_t = 10_000_000)]
        windows: u64,
        /// For windows and their keys; the process has some for the store, too.
        #[arg(long, default_value_t = 128)]
        memory_mb: usize,
    },
    /// What `spill` compares with, in a process of its own.
    #[command(hide = true)]
    SpillInMemory { windows: u64 },
    /// More message ids within the dedup window than memory may hold: the rest waits in the local state. Limit: all in
    /// memory.
    SpillRefine {
        #[arg(long, default_value_t = 20_000_000)]
        messages: u64,
        /// For the state of refine; the process has some for the store, too.
        #[arg(long, default_value_t = 64)]
        memory_mb: usize,
    },
    /// What `spill-refine` compares with, in a process of its own.
    #[command(hide = true)]
    SpillRefineInMemory { messages: u64 },
    /// The metric stages where one key has half the traffic. Limit: keys that are alike.
    Skew {
        #[arg(long, default_value_t = 500_000)]
        events: u64,
    },
    /// Two workers of each metric stage. Limit: one.
    Workers {
        #[arg(long, default_value_t = 6_000_000)]
        events: u64,
    },
    /// How the cost of an event grows with keys, definitions, partitions and events a commit; curves as SVG.
    Scaling {
        #[arg(long, default_value_t = 200_000)]
        events: u64,
    },
    /// An HTTP handler that reads the body and answers 200.
    #[command(hide = true)]
    LimitHttp { address: std::net::SocketAddr },
}

/// What came out. Absent is what does not matter for the bench.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Figure {
    pub bench: String,
    pub value: f64,
    pub unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p999_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_mb: Option<f64>,
    /// What only this bench has to say.
    #[serde(flatten)]
    pub details: BTreeMap<&'static str, f64>,
    pub right: bool,
}

impl Figure {
    fn against(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self.ratio = Some(self.value / limit);
        self
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<28} {:>12.1} {}", self.bench, self.value, self.unit)?;
        if let (Some(limit), Some(ratio)) = (self.limit, self.ratio) {
            write!(f, "   limit {limit:.1}   ratio {ratio:.3}")?;
        }
        if let Some(rate) = self.events_per_second {
            write!(f, "   {rate:.0} events/s")?;
        }
        for (name, value) in [("p50", self.p50_ms), ("p95", self.p95_ms), ("p99", self.p99_ms), ("p99.9", self.p999_ms)]
        {
            if let Some(value) = value {
                write!(f, "   {name} {value:.1} ms")?;
            }
        }
        if let Some(peak) = self.peak_rss_mb {
            write!(f, "   peak {peak:.0} MB")?;
        }
        for (name, value) in &self.details {
            write!(f, "   {name} {value:.1}")?;
        }
        write!(f, "   {}", if self.right { "right" } else { "WRONG" })
    }
}

/// # Errors
/// What is needed is not there: a broker, the OLAP library.
pub async fn run(bench: Bench, settings: &Settings, library: PathBuf) -> anyhow::Result<Figure> {
    match bench {
        Bench::Ingest { batch, events } => ingest::run(settings, batch, events).await,
        Bench::Refine { events } => refine::run(settings, events).await,
        Bench::Metrics { events, builtin } => metrics::run(settings, events, builtin).await,
        Bench::Landing { events } => landing::run(settings, library, events).await,
        Bench::Latency { to, warm_up, seconds } => latency::run(settings, library, to, warm_up, seconds).await,
        Bench::Embedded { events } => embedded::run(library, events).await,
        Bench::Query { days, rounds } => query::run(settings, library, days, rounds).await,
        Bench::Viewers { days, viewers, seconds } => viewers::run(settings, library, days, viewers, seconds).await,
        Bench::Restore { windows } => restore::run(settings, library, windows).await,
        Bench::Memory { windows, days } => tokio::task::spawn_blocking(move || memory::run(windows, days)).await?,
        Bench::MemoryOf { content, windows } => memory::of(content, windows),
        Bench::Spill { windows, memory_mb } => spill::run(windows, memory_mb),
        Bench::SpillInMemory { windows } => spill::of(windows, None),
        Bench::SpillRefine { messages, memory_mb } => spill_refine::run(messages, memory_mb),
        Bench::SpillRefineInMemory { messages } => spill_refine::of(messages, None),
        Bench::Skew { events } => spread::skew(settings, events).await,
        Bench::Workers { events } => spread::workers(settings, events).await,
        Bench::Scaling { events } => scaling::run(std::path::Path::new(scaling::FOLDER), events),
        Bench::LimitHttp { address } => {
            serve_limit(address).await?;
            Ok(Figure::default())
        }
    }
}
