//! `neonhub audit`: recounts every metric window from the raw `events` table and lists those that differ.
//!
//! The recount shares the definitions' evaluation and the calendar with the processors, and nothing else: no partials, no
//! epochs, no revisions, no state. Windows that reach over the asked range are left out.

mod recount;
mod report;

use std::collections::BTreeMap;

use anyhow::Context as _;
use clickhouse::{Client, Row};
use neonhub_schemas::metric::DefinitionText;
use neonhub_schemas::sketch::{DdSketch, HyperLogLog};
use neonhub_schemas::window::{Aggregate, Calendar, Grain};
use neonhub_schemas::{Micros, time};
use serde::Deserialize;

use recount::{EventRow, Recount, Series};
pub use report::{Difference, Report};

use crate::clients::landing_config;
use crate::settings::Settings;

/// Which windows are looked at, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub from_ms: i64,
    pub to_ms: i64,
}

impl Default for Range {
    fn default() -> Self {
        Self { from_ms: time::EARLIEST_MS, to_ms: time::LATEST_MS }
    }
}

/// What a window belongs to; ordered for the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub grain: Grain,
    pub window_start: i64,
    /// Dimensions as canonical JSON.
    pub key: String,
}

#[derive(Row, Deserialize)]
struct ActivationRow {
    workspace: String,
    metric: String,
    series: u64,
    source: String,
    partition: u32,
    from_offset: u64,
    until_offset: Option<u64>,
    definition: String,
}

#[derive(Row, Deserialize)]
struct WindowRow {
    workspace: String,
    metric: String,
    series: u64,
    grain: String,
    window_start: u32,
    key: String,
    count: u64,
    sum: String,
    min: String,
    max: String,
    #[serde(with = "serde_bytes")]
    distinct: Vec<u8>,
    #[serde(with = "serde_bytes")]
    distribution: Vec<u8>,
}

const AUTHENTICATION_FAILED: &str = "Code: 516.";
const OTHER_FOLDER: &str = "ClickHouse takes another password: run this with the NEONHUB_DATA_DIR of the stack, where its password lies, or \
     with its NEONHUB_CLICKHOUSE_PASSWORD";

/// # Errors
/// ClickHouse does not answer, or holds something that cannot be read.
pub async fn run(settings: &Settings, range: Range) -> anyhow::Result<Report> {
    let client = landing_config(settings)?.client();
    let calendar = Calendar::new(&settings.access.timezone)?;
    let series = series(&client).await;
    let series = match series {
        Err(error) if format!("{error:#}").contains(AUTHENTICATION_FAILED) => return Err(error).context(OTHER_FOLDER),
        series => series?,
    };
    let mut recount = Recount::new(calendar, series);
    let mut report = Report::default();
    let mut events = client
        .query(
            "SELECT workspace, message_id, toString(source) AS source_name, kind, name, \
             user_id, anonymous_id, group_id, previous_id, session_id, campaign, platform, ifNull(toString(value), '') AS value_text, \
             toUnixTimestamp64Milli(timestamp) AS timestamp_ms, toJSONString(properties) AS properties_text, \
             toJSONString(context) AS context_text, partition, offset FROM events \
             WHERE timestamp >= fromUnixTimestamp64Milli(?) AND timestamp < fromUnixTimestamp64Milli(?) \
             SETTINGS json_type_escape_dots_in_keys = 1",
        )
        .bind(range.from_ms)
        .bind(range.to_ms)
        .fetch::<EventRow>()?;
    while let Some(event) = events.next().await? {
        report.events += 1;
        recount.add(&event)?;
    }
    report.duplicates =
        client.query("SELECT count() - uniqExact(source, partition, offset) FROM events").fetch_one().await?;
    let mut expected = recount.finish(range);
    let found = windows(&client, settings, range, &recount).await?;
    report.compare(&mut expected, found);
    Ok(report)
}

/// The definitions of people, with where they count. The newest row of each place counts.
async fn series(client: &Client) -> anyhow::Result<Vec<Series>> {
    let rows: Vec<ActivationRow> = client
        .query(
            "SELECT workspace, metric, series, toString(source) AS source_name, partition, from_offset, until_offset, \
             definition FROM metric_activations FINAL",
        )
        .fetch_all()
        .await?;
    let mut by_series: BTreeMap<(String, String, u64), Series> = BTreeMap::new();
    for row in rows {
        let definition: DefinitionText = serde_json::from_str(&row.definition)?;
        let series =
            by_series.entry((row.workspace.clone(), row.metric.clone(), row.series)).or_insert_with(|| Series {
                workspace: row.workspace,
                metric: row.metric,
                series: row.series,
                definition,
                counts: BTreeMap::new(),
            });
        series.counts.insert((row.source, row.partition), (row.from_offset, row.until_offset.unwrap_or(u64::MAX)));
    }
    Ok(by_series.into_values().collect())
}

async fn windows(
    client: &Client,
    settings: &Settings,
    range: Range,
    recount: &Recount,
) -> anyhow::Result<BTreeMap<Place, Aggregate>> {
    let mut rows = client
        .query(
            "SELECT workspace, metric, series, toString(grain) AS grain_name, toUnixTimestamp(window_start) AS start_s, \
             key, count, toString(sum) AS sum_text, ifNull(toString(min), '') AS min_text, \
             ifNull(toString(max), '') AS max_text, distinct, distribution FROM metric_windows FINAL \
             WHERE zone IN ('UTC', ?) AND toInt64(toUnixTimestamp(window_start)) * 1000 >= ? \
             AND toInt64(toUnixTimestamp(window_end)) * 1000 <= ?",
        )
        .bind(&settings.access.timezone)
        .bind(range.from_ms)
        .bind(range.to_ms)
        .fetch::<WindowRow>()?;
    let mut found: BTreeMap<Place, Aggregate> = BTreeMap::new();
    while let Some(row) = rows.next().await? {
        let grain = Grain::from_name(&row.grain).ok_or_else(|| anyhow::anyhow!("unknown grain {}", row.grain))?;
        let (min, max) = (decimal(&row.min)?, decimal(&row.max)?);
        let aggregate = Aggregate {
            count: row.count,
            sum: decimal(&row.sum)?.unwrap_or_default(),
            range: min.zip(max).map(Box::new),
            distinct: if row.distinct.is_empty() {
                None
            } else {
                Some(Box::new(HyperLogLog::from_bytes(&row.distinct)?))
            },
            distribution: if row.distribution.is_empty() {
                None
            } else {
                Some(Box::new(DdSketch::from_bytes(&row.distribution)?))
            },
        };
        let place = Place {
            workspace: row.workspace,
            metric: row.metric,
            series: row.series,
            grain,
            window_start: i64::from(row.window_start),
            key: row.key,
        };
        // A series without a definition (its activation has not landed) cannot be recounted.
        if recount.knows(&place) {
            found.entry(place).or_default().merge(&aggregate)?;
        }
    }
    Ok(found)
}

fn decimal(text: &str) -> anyhow::Result<Option<Micros>> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_value(serde_json::Value::String(text.to_owned()))?))
}
