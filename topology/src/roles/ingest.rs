//! The role `ingest`.

use neonhub_ingest::config::{IngestConfig, Limits, ManagedKeys, WebhookSecret, WriteKey};
use neonhub_ingest::http::{IngestState, serve};
use neonhub_schemas::access::SharedKeyRing;
use neonhub_schemas::trace::Tracer;
use std::sync::Arc;
use tokio::net::TcpListener;

use super::Stop;
use crate::clients::Backbone;
use crate::clock;
use crate::serving::{Server, Tls};
use crate::settings::Settings;

/// Serves until it is told to stop; then drains. `keys` is filled by whoever follows `control`.
///
/// # Errors
/// The settings cannot be worked with, or serving fails.
pub async fn run(
    settings: &Settings,
    backbone: &Backbone,
    keys: SharedKeyRing,
    listener: TcpListener,
    tracer: Tracer,
    stop: Stop,
) -> anyhow::Result<()> {
    let state = IngestState::new(
        config(settings, keys, tracer)?,
        backbone.event_sink()?,
        clock::wall(),
        clock::elapsed(),
        Arc::new(clock::random),
    )?;
    tracing::info!(address = %listener.local_addr()?, "ingest listens");
    let tls = settings.tls.as_ref().map(Tls::load).transpose()?.map(Arc::new);
    let server = Server::new(listener, settings.connections.clone(), state.registry())?
        .with_client_limits(settings.clients.clone())
        .with_tls(tls);
    serve(state, async move { stop.stopped().await }, |router, told_to_stop| server.serve(router, told_to_stop))
        .await?;
    Ok(())
}

fn config(settings: &Settings, ring: SharedKeyRing, tracer: Tracer) -> anyhow::Result<IngestConfig> {
    let Some(key) = &settings.access.write_key else {
        anyhow::bail!("NEONHUB_BOOTSTRAP_WRITE_KEY is not set: give the SDKs a write key");
    };
    let (limits, access) = (&settings.limits, &settings.access);
    Ok(IngestConfig {
        limits: Limits {
            max_event_bytes: limits.max_event_bytes,
            max_body_bytes: limits.max_batch_bytes,
            max_batch_events: limits.max_batch_events,
            ..Limits::default()
        },
        keys: vec![WriteKey {
            events_per_second: limits.events_per_second,
            burst: limits.burst,
            ..WriteKey::new(&settings.access.workspace, key, "bootstrap")
        }],
        managed_keys: ManagedKeys { ring, events_per_second: limits.events_per_second, burst: limits.burst },
        webhook_secrets: access
            .webhook_secret
            .iter()
            .map(|secret| WebhookSecret {
                workspace: access.workspace.clone(),
                platform: "*".to_owned(),
                secret: secret.clone(),
            })
            .collect(),
        allowed_origins: access.ingest_origins.clone(),
        tracer,
    })
}
