//! A dashboard over 90 days: its widgets through the query API, and as SQL sent straight to ClickHouse, in turns.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use neonhub_processors::landing::{Block, BlockBuilder, ClickHouseTables, Tables as _};
use neonhub_schemas::record::{Headers, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::WindowUpsert;
use serde_json::Value;

use super::dashboard::{Widget, widgets, windows_of_day};
use super::embedded::{API_KEY, Up};
use super::usage::peak_rss_mb;
use super::writer;
use super::{Figure, events};
use crate::clients;
use crate::clock;
use crate::settings::Settings;

/// As many as a browser opens to one host.
const CONNECTIONS: usize = 6;
const DATABASE: &str = "neonhub";
const MERGED_LIMIT: Duration = Duration::from_secs(300);

pub async fn run(settings: &Settings, library: PathBuf, days: u32, rounds: u32) -> anyhow::Result<Figure> {
    let up = Up::start(&library, &[]).await?;
    load(settings, &up, days).await?;
    let widgets = widgets();
    let days = i64::from(days);
    let mut right = true;
    for widget in &widgets {
        let answer = serde_json::from_str(&ask(&up, widget.query(days)).await?)?;
        if let Err(error) = widget.check(&answer, days) {
            eprintln!("{error}");
            right = false;
        }
        select(&up, widget.sql(DATABASE, events::WORKSPACE, days)).await?;
    }
    let (mut of_api, mut of_sql) = (histogram()?, histogram()?);
    for _ in 0..rounds {
        of_api.record(load_dashboard(&widgets, |widget| ask(&up, widget.query(days))).await?)?;
        let sql = |widget: &Widget| select(&up, widget.sql(DATABASE, events::WORKSPACE, days));
        of_sql.record(load_dashboard(&widgets, sql).await?)?;
    }
    let quantile = |q: f64| Some(as_ms(of_api.value_at_quantile(q)));
    let mut figure = Figure {
        bench: "query".to_owned(),
        value: as_ms(of_api.value_at_quantile(0.95)),
        unit: "ms at p95",
        p50_ms: quantile(0.5),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
        peak_rss_mb: peak_rss_mb(up.role.id()),
        right,
        ..Figure::default()
    }
    .against(as_ms(of_sql.value_at_quantile(0.95)));
    figure.details.insert("sql_p50_ms", as_ms(of_sql.value_at_quantile(0.5)));
    figure.details.insert("sql_p99_ms", as_ms(of_sql.value_at_quantile(0.99)));
    Ok(figure)
}

pub(super) fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 600_000_000, 3)?)
}

#[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
pub(super) fn as_ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

/// The rows, in blocks as the landing inserts them; then ClickHouse's merges, so that all rounds read the same parts.
pub(super) async fn load(settings: &Settings, up: &Up, days: u32) -> anyhow::Result<()> {
    let mut settings = writer::settings(settings, up.clickhouse_url.clone());
    DATABASE.clone_into(&mut settings.clickhouse.database);
    tokio::task::spawn_blocking(move || {
        let mut tables = ClickHouseTables::new(&clients::landing_config(&settings)?)?;
        let now_ms = clock::now_ms();
        for day in 0..i64::from(days) {
            let block = block_of(&windows_of_day(events::WORKSPACE, day, now_ms))?;
            tables.insert(&block, &format!("bench-{day}"))?;
        }
        anyhow::Ok(())
    })
    .await??;
    let deadline = Instant::now() + MERGED_LIMIT;
    let mut quiet_since = Instant::now();
    while quiet_since.elapsed() < Duration::from_secs(2) && Instant::now() < deadline {
        if up.sql("SELECT count() FROM system.merges").await? > 0 {
            quiet_since = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn block_of(windows: &[WindowUpsert]) -> anyhow::Result<Block> {
    let place = TopicPartition { topic: Topic::MetricsWindows, partition: 0 };
    let mut rows = BlockBuilder::new(place);
    for (offset, window) in (0..).zip(windows) {
        let record = Record {
            topic: place.topic,
            partition: place.partition,
            offset,
            timestamp_ms: window.updated_at,
            key: Bytes::new(),
            value: Some(Bytes::from(window.encode())),
            headers: Headers::new(),
        };
        rows.push(&record).map_err(anyhow::Error::msg)?;
    }
    Ok(rows.finish())
}

/// Microseconds until the last widget is there.
pub(super) async fn load_dashboard<F: Future<Output = anyhow::Result<String>>>(
    widgets: &[Widget],
    load: impl Fn(&Widget) -> F,
) -> anyhow::Result<u64> {
    let began = Instant::now();
    let mut answers = futures_util::stream::iter(widgets.iter().map(load)).buffer_unordered(CONNECTIONS);
    while answers.try_next().await?.is_some() {}
    Ok(u64::try_from(began.elapsed().as_micros())?.max(1))
}

pub(super) async fn ask(up: &Up, query: Value) -> anyhow::Result<String> {
    let url = format!("{}/v1/metrics/query", up.api_url);
    let answer = up.http.post(url).bearer_auth(API_KEY).json(&query).send().await?;
    let (status, text) = (answer.status(), answer.text().await?);
    anyhow::ensure!(status.is_success(), "{query}: {status} {text}");
    Ok(text)
}

async fn select(up: &Up, sql: String) -> anyhow::Result<String> {
    // Settings inside a statement are not for the front's reader.
    let answer = writer::signed(up.http.post(&up.clickhouse_url)).body(sql.clone()).send().await?;
    let (status, text) = (answer.status(), answer.text().await.context("the rows")?);
    anyhow::ensure!(status.is_success(), "{sql}: {status} {text}");
    Ok(text)
}
