//! The role `api`.

use std::collections::BTreeMap;
use std::sync::Arc;

use neonhub_api::cache::CacheConfig;
use neonhub_api::cache::redis::RedisCache;
use neonhub_api::cache::shared::SharedCache;
use neonhub_api::olap::http::ClickHouseOlap;
use neonhub_api::{ApiConfig, ApiKey, ApiState, Parts, serve};
use neonhub_schemas::access::SharedKeyRing;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::Tracer;
use tokio::net::TcpListener;

use super::Stop;
use crate::clients::{self, Backbone};
use crate::clock;
use crate::serving::{Server, Tls};
use crate::settings::Settings;

/// Serves until it is told to stop. `keys` is filled by whoever follows `control`.
///
/// # Errors
/// The settings cannot be worked with, the store is away, or serving fails.
pub async fn run(
    settings: &Settings,
    backbone: &Backbone,
    keys: SharedKeyRing,
    listener: TcpListener,
    tracer: Tracer,
    stop: Stop,
) -> anyhow::Result<()> {
    let Some(key) = settings.access.api_key.clone() else {
        anyhow::bail!("NEONHUB_BOOTSTRAP_API_KEY is not set: give the query API a key");
    };
    let config = ApiConfig {
        keys: vec![ApiKey { workspace: settings.access.workspace.clone(), key }],
        workspace_zones: BTreeMap::new(),
        default_zone: settings.access.timezone.clone(),
        requests_per_minute: settings.access.requests_per_minute,
        origins: settings.access.api_origins.clone(),
        cache: cache(settings),
        ..ApiConfig::default()
    };
    let shared_cache = settings.cache.redis_url.as_deref().map(RedisCache::new).transpose()?;
    let parts = Parts {
        olap: Arc::new(ClickHouseOlap::new(&clients::api_config(settings))),
        shared_cache: shared_cache.map(|redis| Arc::new(redis) as Arc<dyn SharedCache>),
        store: clients::operational_store(settings).await?,
        control: backbone.control_log()?,
        feed: backbone.feed_log(Topic::MetricsWindows)?,
        keys,
        clock: clock::wall(),
        elapsed: clock::elapsed(),
        random: Arc::new(|| clock::secret_bits().ok()),
        tracer,
    };
    let state = ApiState::start(config, parts)?;
    tracing::info!(address = %listener.local_addr()?, "query API listens");
    let tls = settings.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
    let server = Server::new(listener, settings.connections.clone(), state.telemetry().registry())?
        .with_client_limits(settings.clients.clone())
        .with_tls(tls);
    serve(state, async move { stop.stopped().await }, |router, told_to_stop| server.serve(router, told_to_stop)).await;
    Ok(())
}

fn cache(settings: &Settings) -> CacheConfig {
    let (cache, clickhouse) = (&settings.cache, &settings.clickhouse);
    // Deployments may reach tables of their own by the same address; their secrets differ.
    let tables = format!("{}/{}", clickhouse.effective_url(), clickhouse.database);
    let namespace = settings.access.key_secret.as_ref().map_or(tables.clone(), |secret| secret.namespace(&tables));
    CacheConfig { bytes: cache.bytes, open: cache.open, closed: cache.closed, namespace }
}
