//! The role `up`: everything in one process, on the embedded stack or on the servers that the settings name.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::processors::Processors;
use super::{Stop, access, api, ingest, olap};
use crate::clients::{Backbone, TopicWork, check_or_create_topics, migrate};
use crate::clock;
use crate::embedded::log::Log;
use crate::embedded::olap::supervisor::OlapChild;
use crate::serving::Tls;
use crate::settings::Settings;

/// A running stack and where it answers.
pub struct Stack {
    pub ingest_addr: SocketAddr,
    pub api_addr: SocketAddr,
    pub processors_addr: SocketAddr,
    pub clickhouse_url: String,
    /// Ingest stops first, so that everything it accepted is still worked on.
    stop_ingest: Stop,
    stop_rest: Stop,
    ingest: JoinHandle<anyhow::Result<()>>,
    api: JoinHandle<anyhow::Result<()>>,
    health: JoinHandle<()>,
    olap: Option<OlapChild>,
    backbone: Backbone,
}

/// Starts every role: servers first, then what needs them.
///
/// # Errors
/// A part cannot be started; what was started is stopped.
pub async fn start(settings: &Settings, library: PathBuf, tracer: &Tracer) -> anyhow::Result<Stack> {
    anyhow::ensure!(
        settings.access.write_key.is_some() && settings.access.api_key.is_some(),
        "set NEONHUB_BOOTSTRAP_WRITE_KEY (for SDKs) and NEONHUB_BOOTSTRAP_API_KEY (for the query API)"
    );
    std::fs::create_dir_all(&settings.data_dir)
        .map_err(|error| anyhow::anyhow!("NEONHUB_DATA_DIR = `{}`: {error}", settings.data_dir.display()))?;
    // Certificate and addresses first: a file that is missing or a port that is taken should not cost the start of a database.
    settings.tls.as_ref().map(Tls::load).transpose()?;
    let ingest_listener = listen("NEONHUB_INGEST_ADDR", settings.ingest_addr).await?;
    let api_listener = listen("NEONHUB_API_ADDR", settings.api_addr).await?;
    let processors_listener = listen("NEONHUB_PROCESSORS_ADDR", settings.processors_addr).await?;
    let olap = match &settings.clickhouse.url {
        Some(_) => None,
        None => Some(olap::start_child(settings, library).await?),
    };
    for migration in migrate(settings).await? {
        tracing::info!(migration, "applied");
    }
    if !settings.is_embedded_log() {
        for report in check_or_create_topics(&settings.backbone, TopicWork::Create).await? {
            anyhow::ensure!(report.is_fine, "topic {}: {}", report.topic, report.state);
        }
    }
    let backbone = Backbone::open(settings)?;
    let (stop_ingest, stop_rest) = (Stop::default(), Stop::default());
    if let Backbone::Embedded(log) = &backbone {
        maintain(log.clone(), stop_rest.clone())?;
    }
    let processors = Processors::start(settings, &backbone, &[], tracer, &stop_rest)?;
    let (ingest_addr, api_addr, processors_addr) =
        (ingest_listener.local_addr()?, api_listener.local_addr()?, processors_listener.local_addr()?);
    let health = {
        let stop = stop_rest.clone();
        tokio::spawn(async move {
            if let Err(error) = processors.serve_health(processors_listener, stop.clone()).await {
                tracing::error!(%error, "health and metrics of the processors are not served");
            }
            stop.stopped().await;
            processors.join().await;
        })
    };
    let keys = access::follow(settings, &backbone, &stop_rest)?;
    let api = {
        let (settings, backbone, keys, stop) = (settings.clone(), backbone.clone(), keys.clone(), stop_rest.clone());
        let tracer = tracer.clone();
        tokio::spawn(async move { api::run(&settings, &backbone, keys, api_listener, tracer, stop).await })
    };
    let ingest = {
        let (settings, backbone, stop) = (settings.clone(), backbone.clone(), stop_ingest.clone());
        let tracer = tracer.clone();
        tokio::spawn(async move { ingest::run(&settings, &backbone, keys, ingest_listener, tracer, stop).await })
    };
    Ok(Stack {
        ingest_addr,
        api_addr,
        processors_addr,
        clickhouse_url: settings.clickhouse.effective_url(),
        stop_ingest,
        stop_rest,
        ingest,
        api,
        health,
        olap,
        backbone,
    })
}

impl Stack {
    /// Returns when a role has ended by itself, with its error.
    ///
    /// # Errors
    /// The role's.
    pub async fn failed(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.ingest => ended?,
            ended = &mut self.api => ended?,
        }
    }

    /// Stops accepting, drains, flushes, ends the database.
    ///
    /// # Errors
    /// A role ended with an error.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop_ingest.stop();
        let ingest = if self.ingest.is_finished() { Ok(()) } else { self.ingest.await? };
        self.stop_rest.stop();
        let api = if self.api.is_finished() { Ok(()) } else { self.api.await? };
        self.health.await?;
        if let Backbone::Embedded(log) = &self.backbone {
            log.shutdown();
        }
        drop(self.backbone);
        if let Some(olap) = self.olap {
            olap.stop().await;
        }
        ingest.and(api)
    }
}

/// # Errors
/// The address is taken or not ours.
pub async fn listen(name: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| anyhow::anyhow!("{name} = `{address}` cannot be listened on: {error}"))
}

/// How often the embedded log forgets.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(10);

fn maintain(log: Log, stop: Stop) -> std::io::Result<()> {
    let body = move || {
        while !stop.wait(MAINTENANCE_INTERVAL) {
            loop {
                match log.maintain(clock::now_ms()) {
                    Ok(done) if done.more && !stop.is_stopped() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::error!(%error, "the log's maintenance failed");
                        break;
                    }
                }
            }
        }
    };
    std::thread::Builder::new().name("log-maintenance".to_owned()).spawn(body).map(drop)
}

/// Whether the embedded log is needed by more than one process, which it cannot be.
///
/// # Errors
/// Says what to do instead.
pub fn require_shared_log(settings: &Settings, role: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        !settings.is_embedded_log(),
        "`neonhub run {role}` needs NEONHUB_KAFKA_BROKERS: the embedded log ({} and others) lives in one process; use `neonhub up`",
        Topic::RawBehavior.name()
    );
    Ok(())
}
