//! Everything in one process, on the embedded log and the embedded ClickHouse.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::children::{Role, free_address};
use super::ingest::per_second;
use super::load::post_all;
use super::usage::{Meter, peak_rss_mb};
use super::writer;
use super::{Figure, events};
use crate::clients::http_client;

pub const WRITE_KEY: &str = "bench-write-key";
pub const API_KEY: &str = "bench-api-key";
const BATCH: u64 = 100;
const CONNECTIONS: usize = 16;
const LIMIT: Duration = Duration::from_secs(300);

/// `neonhub up` with a folder and ports of its own.
pub struct Up {
    pub role: Role,
    pub ingest_url: String,
    pub api_url: String,
    pub clickhouse_url: String,
    pub processors_url: String,
    pub http: reqwest::Client,
    /// `None`: the caller's.
    _folder: Option<tempfile::TempDir>,
}

impl Up {
    pub async fn start(library: &Path, more: &[(&str, String)]) -> anyhow::Result<Self> {
        let folder = scratch_folder()?;
        let up = Self::start_in(folder.path(), library, more).await?;
        Ok(Self { _folder: Some(folder), ..up })
    }

    /// On data that may be there already.
    pub async fn start_in(folder: &Path, library: &Path, more: &[(&str, String)]) -> anyhow::Result<Self> {
        let (ingest, api, processors, clickhouse) =
            (free_address()?, free_address()?, free_address()?, free_address()?);
        let mut settings = vec![
            ("NEONHUB_DATA_DIR", folder.display().to_string()),
            ("NEONHUB_LIBCHDB", library.display().to_string()),
            ("NEONHUB_INGEST_ADDR", ingest.to_string()),
            ("NEONHUB_API_ADDR", api.to_string()),
            ("NEONHUB_PROCESSORS_ADDR", processors.to_string()),
            ("NEONHUB_CLICKHOUSE_ADDR", clickhouse.to_string()),
            ("NEONHUB_BOOTSTRAP_WORKSPACE", events::WORKSPACE.to_owned()),
            ("NEONHUB_BOOTSTRAP_WRITE_KEY", WRITE_KEY.to_owned()),
            ("NEONHUB_BOOTSTRAP_API_KEY", API_KEY.to_owned()),
            ("NEONHUB_EVENTS_PER_SECOND", "10000000".to_owned()),
            // What is measured is the way to ClickHouse and back.
            ("NEONHUB_QUERY_CACHE_MB", "0".to_owned()),
        ];
        settings.extend(writer::of_front());
        settings.extend(more.iter().cloned());
        let http = http_client(None)?;
        let mut role = Role::start(&["up"], &settings)?;
        role.ready(&http, &format!("http://{api}/health/ready")).await?;
        role.ready(&http, &format!("http://{ingest}/health/ready")).await?;
        Ok(Self {
            role,
            ingest_url: format!("http://{ingest}"),
            api_url: format!("http://{api}"),
            clickhouse_url: format!("http://{clickhouse}"),
            processors_url: format!("http://{processors}"),
            http,
            _folder: None,
        })
    }

    /// The count of impressions over all time, from the query API.
    pub async fn impressions(&self) -> anyhow::Result<u64> {
        let query = json!({
            "metrics": ["impressions"], "grain": "total",
            "from": "2026-02-03T00:00:00Z", "to": "2026-02-05T00:00:00Z",
        });
        let url = format!("{}/v1/metrics/query", self.api_url);
        let answer = self.http.post(url).bearer_auth(API_KEY).json(&query).send().await?;
        let answer: Value = answer.json().await?;
        Ok(answer["rows"][0]["impressions"].as_u64().unwrap_or(0))
    }

    /// One number from ClickHouse.
    pub async fn sql(&self, query: &str) -> anyhow::Result<u64> {
        let text = self.http.post(&self.clickhouse_url).body(query.to_owned()).send().await?.text().await?;
        text.trim().parse().map_err(|_| anyhow::anyhow!("{query}: {text}"))
    }
}

/// Gone when dropped.
pub fn scratch_folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::Builder::new().prefix("neonhub-bench-").tempdir()
}

pub async fn run(library: PathBuf, events: u64) -> anyhow::Result<Figure> {
    let events = events / BATCH * BATCH;
    let bodies: Vec<String> =
        (0..events / BATCH).map(|number| events::body(number * BATCH..(number + 1) * BATCH)).collect();
    let up = Up::start(&library, &[]).await?;
    let meter = Meter::of(up.role.id())?;
    let url = format!("{}/v1/campaigns/events", up.ingest_url);
    post_all(&url, WRITE_KEY, Arc::new(bodies), CONNECTIONS).await?;
    let expected = events::impressions(events);
    let deadline = tokio::time::Instant::now() + LIMIT;
    while up.impressions().await? < expected && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while up.sql("SELECT count() FROM neonhub.events").await? < events && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = meter.used()?;
    let landed = up.sql("SELECT count() FROM neonhub.events").await?;
    Ok(Figure {
        bench: "embedded".to_owned(),
        value: per_second(events, used.wall),
        unit: "events/s",
        peak_rss_mb: peak_rss_mb(up.role.id()),
        right: landed == events && up.impressions().await? == expected,
        ..Figure::default()
    })
}
