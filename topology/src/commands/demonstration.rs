//! `neonhub demo`: the demo on a stack of its own, in this process, on free ports and a fresh folder.

use std::io::IsTerminal as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;

use super::demo::{self, DemoOptions, DemoStack};
use neonhub_schemas::trace::Tracer;

use crate::clock;
use crate::roles::stop::asked_to_end;
use crate::roles::up;
use crate::serving::ClientLimits;
use crate::settings::Settings;

/// # Errors
/// The stack does not start, or the demo cannot be carried through.
pub async fn run(mut settings: Settings, library: PathBuf, data: PathBuf, json: bool) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("neonhub-demo-").tempdir()?;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    settings.data_dir = folder.path().to_owned();
    (settings.ingest_addr, settings.api_addr, settings.processors_addr) = (any_port, any_port, any_port);
    settings.clickhouse.front_addr = free_address()?;
    // It posts and asks over plain HTTP, on loopback.
    settings.tls = None;
    settings.clients = ClientLimits::default();
    // It measures how soon an answer has what it sent.
    settings.cache.bytes = 0;
    let (write_key, api_key) = (secret("write"), secret("api"));
    settings.access.write_key = Some(write_key.clone());
    settings.access.api_key = Some(api_key.clone());
    "demo".clone_into(&mut settings.access.workspace);
    // Each demo counts from nothing, on servers that are shared too.
    if !settings.is_embedded_log() {
        settings.backbone.topic_prefix = format!("{}demo-{:x}.", settings.backbone.topic_prefix, clock::now_ms());
    }
    if settings.clickhouse.url.is_some() {
        settings.clickhouse.database = format!("{}_demo_{:x}", settings.clickhouse.database, clock::now_ms());
    }

    let mut stack = up::start(&settings, library, &Tracer::default()).await?;
    let interactive = std::io::stdout().is_terminal() && !json;
    let addresses = DemoStack {
        ingest_url: format!("http://{}", stack.ingest_addr),
        api_url: format!("http://{}", stack.api_addr),
        clickhouse_url: stack.clickhouse_url.clone(),
        database: settings.clickhouse.database.clone(),
        workspace: settings.access.workspace.clone(),
        write_key,
        api_key,
    };
    let outcome = tokio::select! {
        outcome = demo::run(DemoOptions { data, json, interactive }, addresses) => outcome,
        ended = stack.failed() => ended.and_then(|()| anyhow::bail!("a role ended by itself")),
        _ = asked_to_end() => anyhow::bail!("ended before the demo was through"),
    };
    if interactive && outcome.is_ok() {
        asked_to_end().await?;
    }
    stack.stop().await?;
    Ok(if outcome?.agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Free a moment ago; the front is told an address before it listens.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

fn secret(name: &str) -> String {
    format!("{name}-{:032x}", clock::random())
}
