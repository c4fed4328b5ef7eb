//! Ingest on Kafka.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use neonhub_schemas::topics::Topic;

use super::Figure;
use super::children::{Role, free_address};
use super::events::{self, Spread};
use super::load::post_all;
use super::scratch::Scratch;
use super::usage::{Meter, Used, peak_rss_mb};
use crate::clients::http_client;
use crate::settings::Settings;

const WRITE_KEY: &str = "bench-write-key";
/// Requests of one event need many in flight to share a produce request.
const CONNECTIONS: usize = 32;
const SINGLE_CONNECTIONS: usize = 256;

pub async fn run(settings: &Settings, batch: usize, events: u64) -> anyhow::Result<Figure> {
    let scratch = Scratch::new(settings).await?;
    let size = u64::try_from(batch.max(1))?;
    let bodies: Vec<String> =
        (0..events / size).map(|number| events::body(number * size..(number + 1) * size)).collect();
    let (events, bodies) = (events / size * size, Arc::new(bodies));
    let address = free_address()?;
    let mut ingest = Role::start(
        &["run", "ingest"],
        &[
            ("NEONHUB_INGEST_ADDR", address.to_string()),
            ("NEONHUB_KAFKA_BROKERS", scratch.brokers.clone()),
            ("NEONHUB_TOPIC_PREFIX", scratch.prefix.clone()),
            ("NEONHUB_BOOTSTRAP_WORKSPACE", events::WORKSPACE.to_owned()),
            ("NEONHUB_BOOTSTRAP_WRITE_KEY", WRITE_KEY.to_owned()),
            ("NEONHUB_BOOTSTRAP_API_KEY", "bench-api-key".to_owned()),
            ("NEONHUB_EVENTS_PER_SECOND", "10000000".to_owned()),
        ],
    )?;
    ingest.ready(&http_client(None)?, &format!("http://{address}/health/ready")).await?;
    let url = format!("http://{address}/v1/campaigns/events");
    let used = load(&ingest, &url, &bodies, if batch <= 1 { SINGLE_CONNECTIONS } else { CONNECTIONS }).await?;
    let peak = peak_rss_mb(ingest.id());
    drop(ingest);
    let mut on_log = 0;
    scratch.read(Topic::RawCampaign, |_| on_log += 1)?;
    let requests_or_events = if batch <= 1 { bodies.len() as u64 } else { events };
    let limit = if batch <= 1 { handler_limit(&bodies).await? } else { producer_limit(settings, events).await? };
    let figure = Figure {
        bench: format!("ingest --batch {batch}"),
        value: per_second(requests_or_events, used.cpu),
        unit: if batch <= 1 { "requests/CPU-s" } else { "events/CPU-s" },
        events_per_second: Some(per_second(events, used.wall)),
        peak_rss_mb: peak,
        right: on_log == events,
        ..Figure::default()
    };
    Ok(figure.against(limit))
}

async fn load(server: &Role, url: &str, bodies: &Arc<Vec<String>>, connections: usize) -> anyhow::Result<Used> {
    let meter = Meter::of(server.id())?;
    post_all(url, WRITE_KEY, Arc::clone(bodies), connections).await?;
    meter.used()
}

#[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
pub fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

/// Events per CPU second of a producer that is handed finished records.
async fn producer_limit(settings: &Settings, events: u64) -> anyhow::Result<f64> {
    let scratch = Scratch::new(settings).await?;
    let records = events::raw_records(Spread::Few, 0..events)?;
    tokio::task::spawn_blocking(move || {
        let producer = scratch.producer()?;
        let meter = Meter::this_process()?;
        records.chunks(1_000).try_for_each(|chunk| scratch.produce(&producer, chunk))?;
        scratch.flush(&producer)?;
        Ok(per_second(events, meter.used()?.cpu))
    })
    .await?
}

/// Requests per CPU second of a handler that does nothing.
async fn handler_limit(bodies: &Arc<Vec<String>>) -> anyhow::Result<f64> {
    let address = free_address()?;
    let mut server = Role::start(&["bench", "limit-http", &address.to_string()], &[])?;
    server.ready(&http_client(None)?, &format!("http://{address}/")).await?;
    let used = load(&server, &format!("http://{address}/"), bodies, SINGLE_CONNECTIONS).await?;
    Ok(per_second(bodies.len() as u64, used.cpu))
}

/// Reads bodies and answers 200, until it is ended.
///
/// # Errors
/// The address is taken.
pub async fn serve_limit(address: SocketAddr) -> anyhow::Result<()> {
    let answer = |body: Bytes| async move { if body.is_empty() { StatusCode::BAD_REQUEST } else { StatusCode::OK } };
    let app = Router::new().route("/", post(answer).merge(get(|| async { StatusCode::OK })));
    Ok(axum::serve(tokio::net::TcpListener::bind(address).await?, app).await?)
}
