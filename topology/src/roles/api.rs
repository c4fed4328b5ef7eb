//! The role `api`.

use std::collections::BTreeMap;
use std::sync::Arc;

use neonhub_api::olap::http::ClickHouseOlap;
use neonhub_api::{ApiConfig, ApiKey, ApiState, Parts, serve};
use tokio::net::TcpListener;

use super::Stop;
use crate::clients::{self, Backbone};
use crate::clock;
use crate::serving::Server;
use crate::settings::Settings;

/// Serves until it is told to stop.
///
/// # Errors
/// The settings cannot be worked with, the store is away, or serving fails.
pub async fn run(settings: &Settings, backbone: &Backbone, listener: TcpListener, stop: Stop) -> anyhow::Result<()> {
    let Some(key) = settings.access.api_key.clone() else {
        anyhow::bail!("NEONHUB_BOOTSTRAP_API_KEY is not set: give the query API a key");
    };
    let config = ApiConfig {
        keys: vec![ApiKey { workspace: settings.access.workspace.clone(), key }],
        workspace_zones: BTreeMap::new(),
        default_zone: settings.access.timezone.clone(),
        allow_any_origin: settings.access.allow_any_origin,
        ..ApiConfig::default()
    };
    let parts = Parts {
        olap: Arc::new(ClickHouseOlap::new(&clients::api_config(settings))),
        store: clients::definition_store(settings).await?,
        control: backbone.control_log()?,
        feed: backbone.feed_log()?,
        clock: clock::wall(),
    };
    let state = ApiState::start(config, parts)?;
    tracing::info!(address = %listener.local_addr()?, "query API listens");
    let server = Server::new(listener, settings.connections.clone(), state.telemetry().registry())?;
    serve(state, async move { stop.stopped().await }, |router, told_to_stop| server.serve(router, told_to_stop)).await;
    Ok(())
}
