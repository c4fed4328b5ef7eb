//! What `up` and `run` do: roles until they are asked to end.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use neonhub_topology::clients::Backbone;
use neonhub_topology::roles::processors::Processor;
use neonhub_topology::roles::stop::asked_to_end;
use neonhub_topology::roles::{self, Stop, olap, up};
use neonhub_topology::settings::{Settings, Values};
use neonhub_topology::telemetry::traces::Traces;
use tokio::net::TcpListener;

#[derive(Subcommand)]
pub enum Role {
    /// HTTP → Kafka.
    Ingest,
    /// The stream processors.
    Processors {
        /// Only these; all if absent.
        #[arg(long, value_delimiter = ',')]
        only: Vec<Processor>,
    },
    /// The query API.
    Api,
    /// The embedded ClickHouse.
    Olap {
        /// End when standard input closes.
        #[arg(long, hide = true)]
        supervised: bool,
    },
}

impl Role {
    /// OpenTelemetry's `service.name`.
    fn service(&self) -> &'static str {
        match self {
            Self::Ingest => "neonhub-ingest",
            Self::Processors { .. } => "neonhub-processors",
            Self::Api => "neonhub-api",
            Self::Olap { .. } => "neonhub-olap",
        }
    }
}

pub async fn run_up(settings: &Settings, library: PathBuf) -> anyhow::Result<()> {
    let traces = Traces::start(settings, "neonhub")?;
    let mut stack = up::start(settings, library, traces.tracer()).await?;
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    println!("ingest      {scheme}://{}", stack.ingest_addr);
    println!("query API   {scheme}://{}  (documentation at /docs)", stack.api_addr);
    println!("processors  http://{}  (/health/ready, /metrics)", stack.processors_addr);
    println!("ClickHouse  {}", stack.clickhouse_url);
    let outcome = tokio::select! {
        ended = stack.failed() => ended.and_then(|()| anyhow::bail!("a role ended by itself")),
        asked = asked_to_end() => asked.map_err(Into::into),
    };
    let stopped = stack.stop().await;
    traces.finish().await;
    outcome.and(stopped)
}

pub async fn run_role(role: Role, settings: &Settings, values: &Values) -> anyhow::Result<()> {
    let stop = Stop::default();
    let on_signal = stop.clone();
    let is_olap = matches!(role, Role::Olap { .. });
    if !is_olap {
        tokio::spawn(async move {
            if let Err(error) = asked_to_end().await {
                tracing::error!(%error, "signals cannot be listened to");
            }
            on_signal.stop();
        });
    }
    let traces = Traces::start(settings, role.service())?;
    let tracer = traces.tracer();
    let outcome = async {
        match role {
            Role::Ingest => {
                let (listener, backbone) = begin(settings, "ingest", settings.ingest_addr).await?;
                let keys = roles::access::follow(settings, &backbone, &stop)?;
                roles::ingest::run(settings, &backbone, keys, listener, tracer.clone(), stop).await
            }
            Role::Api => {
                let (listener, backbone) = begin(settings, "api", settings.api_addr).await?;
                let keys = roles::access::follow(settings, &backbone, &stop)?;
                roles::api::run(settings, &backbone, keys, listener, tracer.clone(), stop).await
            }
            Role::Processors { only } => {
                let (listener, backbone) = begin(settings, "processors", settings.processors_addr).await?;
                let processors = roles::processors::Processors::start(settings, &backbone, &only, tracer, &stop)?;
                processors.serve_health(listener, stop).await?;
                processors.join().await;
                Ok(())
            }
            Role::Olap { supervised } => olap::run(settings, olap::library(settings, values), supervised).await,
        }
    }
    .await;
    traces.finish().await;
    outcome
}

/// What every role on a shared log needs.
async fn begin(settings: &Settings, role: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, Backbone)> {
    up::require_shared_log(settings, role)?;
    let listener = up::listen(&format!("NEONHUB_{}_ADDR", role.to_ascii_uppercase()), address).await?;
    Ok((listener, Backbone::open(settings)?))
}
