//! From a POST to its effect, at a thousand events a second, as users would come: on time, whether or not the answers to
//! others have come (Tene, "How NOT to Measure Latency": no coordinated omission).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::embedded::{API_KEY, Up, WRITE_KEY};
use super::usage::peak_rss_mb;
use super::{Figure, events};
use crate::clock;
use crate::commands::demo::event_stream::EventStream;
use crate::settings::Settings;

/// Where the effect shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Destination {
    /// The live feed (server-sent events).
    Push,
    /// A row in `events`.
    Clickhouse,
}

const EVENTS_A_TICK: u64 = 10;
const TICK: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(20);

/// Events of the first `warm_up` seconds are sent and counted like all others, but take no part in the quantiles: a broker
/// that has just been started needs both cores for itself.
pub async fn run(
    settings: &Settings,
    library: PathBuf,
    to: Destination,
    warm_up: u64,
    seconds: u64,
) -> anyhow::Result<Figure> {
    let mut more = Vec::new();
    if !settings.is_embedded_log() {
        more.push(("NEONHUB_KAFKA_BROKERS", settings.backbone.kafka_brokers.clone()));
        more.push(("NEONHUB_TOPIC_PREFIX", format!("bench-{:x}.", clock::now_ms())));
    }
    let up = Arc::new(Up::start(&library, &more).await?);
    let ticks_a_second = 1_000 / u64::try_from(TICK.as_millis())?;
    let ticks = (warm_up + seconds) * ticks_a_second;
    let (unmeasured, expected) = (warm_up * ticks_a_second * EVENTS_A_TICK, ticks * EVENTS_A_TICK);
    let (seen_sender, seen) = watch::channel((Instant::now(), 0_u64));
    let watching = match to {
        Destination::Push => tokio::spawn(follow_feed(Arc::clone(&up), seen_sender, expected)),
        Destination::Clickhouse => tokio::spawn(follow_rows(Arc::clone(&up), seen_sender, expected)),
    };
    let began = Instant::now() + Duration::from_secs(1);
    let recording = tokio::spawn(record(seen, began, unmeasured, expected));
    send(&up, began, ticks).await?;
    let (histogram, visible) = recording.await??;
    watching.abort();
    let quantile = |q: f64| Some(micros_as_ms(histogram.value_at_quantile(q)));
    let where_to = if to == Destination::Push { "" } else { " --to clickhouse" };
    let backbone = if settings.is_embedded_log() { "embedded" } else { "Kafka" };
    Ok(Figure {
        bench: format!("latency{where_to} ({backbone})"),
        value: micros_as_ms(histogram.value_at_quantile(0.5)),
        unit: "ms",
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        p999_ms: quantile(0.999),
        peak_rss_mb: peak_rss_mb(up.role.id()),
        right: visible == expected,
        ..Figure::default()
    })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
fn micros_as_ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// Posts a batch each tick; none waits for another's answer.
async fn send(up: &Arc<Up>, began: Instant, ticks: u64) -> anyhow::Result<()> {
    let mut posts = tokio::task::JoinSet::new();
    for tick in 0..ticks {
        tokio::time::sleep_until((began + TICK * u32::try_from(tick)?).into()).await;
        let now_ms = clock::now_ms();
        let batch: Vec<Value> = (0..EVENTS_A_TICK)
            .map(|index| {
                json!({
                    "type": "impression", "campaign": "latency", "anonymousId": format!("person-{index}"),
                    "messageId": format!("latency-{tick}-{index}"), "timestamp": now_ms,
                })
            })
            .collect();
        let request = up.http.post(format!("{}/v1/campaigns/events", up.ingest_url)).basic_auth(WRITE_KEY, Some(""));
        let request = request.json(&json!({ "batch": batch }));
        posts.spawn(async move { request.send().await?.error_for_status().map(drop) });
    }
    while let Some(outcome) = posts.join_next().await {
        outcome??;
    }
    Ok(())
}

/// When the n-th event should have been sent is known, and when n events were seen.
async fn record(
    mut seen: watch::Receiver<(Instant, u64)>,
    began: Instant,
    unmeasured: u64,
    expected: u64,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3)?;
    let mut done = 0;
    while done < expected {
        match tokio::time::timeout(PATIENCE + Duration::from_secs(1), seen.changed()).await {
            Ok(Ok(())) => {}
            _ => break,
        }
        let (at, count) = *seen.borrow_and_update();
        while done < count.min(expected) {
            if done >= unmeasured {
                let meant = began + TICK * u32::try_from(done / EVENTS_A_TICK)?;
                let micros = u64::try_from(at.saturating_duration_since(meant).as_micros())?;
                histogram.record(micros.max(1))?;
            }
            done += 1;
        }
        if count > expected {
            return Ok((histogram, count));
        }
    }
    Ok((histogram, done))
}

/// Adds up the newest revisions of all windows.
async fn follow_feed(up: Arc<Up>, seen: watch::Sender<(Instant, u64)>, expected: u64) -> anyhow::Result<()> {
    let url = format!("{}/v1/live/metrics?metrics=impressions&grain=minute&filter=campaign:latency", up.api_url);
    let answer = up.http.get(url).bearer_auth(API_KEY).send().await?.error_for_status()?;
    let (mut bytes, mut stream) = (answer.bytes_stream(), EventStream::default());
    let mut windows = std::collections::HashMap::new();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk?;
        let at = Instant::now();
        for event in stream.push(&chunk) {
            if event.name != "window" {
                continue;
            }
            let window: Value = serde_json::from_str(&event.data)?;
            let place = (window["window_start"].to_string(), window["epoch"].to_string());
            windows.insert(place, window["count"].as_u64().unwrap_or(0));
        }
        let total: u64 = windows.values().sum();
        seen.send_replace((at, total));
        if total > expected {
            break;
        }
    }
    Ok(())
}

async fn follow_rows(up: Arc<Up>, seen: watch::Sender<(Instant, u64)>, expected: u64) -> anyhow::Result<()> {
    let query = format!("SELECT count() FROM neonhub.events WHERE workspace = '{}'", events::WORKSPACE);
    let mut last = 0;
    while last < expected {
        let count = up.sql(&query).await?;
        if count > last {
            last = count;
            seen.send_replace((Instant::now(), count));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
