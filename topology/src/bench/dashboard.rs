//! Pure: no I/O, no clock, no async.
//!
//! The dashboard of the query bench: hourly and daily windows of three metrics and 1,000 keys, by formula; twelve widgets
//! over them, each as a query of the API and as the best SQL; and what each must show.

use std::collections::BTreeMap;

use neonhub_schemas::Micros;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::window::{Epoch, Grain, WindowState, WindowUpsert};
use serde_json::{Value, json};

/// 2026-02-03T00:00:00Z.
pub const BEGIN_S: i64 = 1_770_076_800;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
const CAMPAIGNS: usize = 100;
const CHANNELS: [&str; 5] = ["display", "email", "search", "social", "video"];
const POLICIES: [&str; 2] = ["bts", "random"];
pub const KEYS: usize = CAMPAIGNS * CHANNELS.len() * POLICIES.len();

/// Campaign, channel and policy.
fn names(key: usize) -> [String; 3] {
    let (campaign, rest) = (key / 10, key % 10);
    [format!("campaign-{campaign:03}"), CHANNELS[rest / 2].to_owned(), POLICIES[rest % 2].to_owned()]
}

/// What was counted: impressions, clicks, revenue in cents.
type Counts = [u64; 3];

fn counts(hour: i64, key: usize) -> Counts {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hour.to_le_bytes());
    bytes[8..].copy_from_slice(&(key as u64).to_le_bytes());
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    let impressions = hash % 400 + 100;
    [impressions, (hash >> 16) % impressions, (hash >> 32) % 100_000 + 1]
}

const METRICS: [&str; 3] = ["impressions", "clicks", "revenue"];
const DIMENSIONS: [&str; 3] = ["campaign", "channel", "policy"];

/// The windows of one day: 24 hours and the day of each key and metric.
pub fn windows_of_day(workspace: &str, day: i64, now_ms: i64) -> Vec<WindowUpsert> {
    let mut windows = Vec::with_capacity(KEYS * METRICS.len() * 25);
    for key in 0..KEYS {
        let mut of_day = [0; 3];
        for hour in 0..24 {
            let of_hour = counts(day * 24 + hour, key);
            let start_s = BEGIN_S + day * DAY + hour * HOUR;
            for metric in 0..METRICS.len() {
                of_day[metric] += of_hour[metric];
                windows.push(window(workspace, metric, key, (Grain::Hour, start_s, HOUR), of_hour, now_ms));
            }
        }
        for metric in 0..METRICS.len() {
            windows.push(window(workspace, metric, key, (Grain::Day, BEGIN_S + day * DAY, DAY), of_day, now_ms));
        }
    }
    windows
}

fn window(
    workspace: &str,
    metric: usize,
    key: usize,
    (grain, start_s, length_s): (Grain, i64, i64),
    counts: Counts,
    now_ms: i64,
) -> WindowUpsert {
    let dimensions = DIMENSIONS.iter().map(|name| (*name).to_owned()).zip(names(key)).collect();
    let cents = Micros::from_raw(i128::from(counts[2]) * 10_000);
    let is_sum = METRICS[metric] == "revenue";
    let epoch = Epoch { partition: u32::try_from(key % 4).unwrap_or(0), offset: start_s.unsigned_abs() };
    let sum_only = |micros: Micros| is_sum.then_some(micros);
    WindowUpsert {
        key: MetricKey { workspace: workspace.to_owned(), metric: METRICS[metric].to_owned(), series: 0, dimensions },
        source: Source::Campaign,
        grain,
        zone: "UTC".to_owned(),
        window_start: start_s,
        window_end: start_s + length_s,
        epoch,
        revision: 1,
        r#final: true,
        state: WindowState {
            count: counts[if is_sum { 1 } else { metric }],
            sum: sum_only(cents).unwrap_or_default(),
            min: sum_only(Micros::from_raw(10_000)),
            max: sum_only(cents),
            ..WindowState::default()
        },
        as_of: 0,
        updated_at: now_ms,
    }
}

/// One widget.
pub struct Widget {
    pub name: &'static str,
    metrics: &'static [&'static str],
    grain: &'static str,
    group_by: &'static [usize],
    /// A dimension and the values it may have.
    filter: Option<(usize, Vec<String>)>,
    /// Of the last so many days; all if absent.
    last_days: Option<i64>,
    /// The most of a metric, so many.
    top: Option<(&'static str, usize)>,
}

/// The twelve.
pub fn widgets() -> Vec<Widget> {
    let widget = |name, metrics, grain, group_by| Widget {
        name,
        metrics,
        grain,
        group_by,
        filter: None,
        last_days: None,
        top: None,
    };
    let campaigns = |count: usize| (0..count).map(|campaign| names(campaign * 70 % 1_000)[0].clone()).collect();
    vec![
        widget("totals", &["impressions", "clicks", "ctr", "revenue"], "total", &[]),
        widget("impressions by hour", &["impressions"], "hour", &[]),
        widget("click rate by hour", &["impressions", "clicks", "ctr"], "hour", &[]),
        widget("revenue by hour and channel", &["revenue"], "hour", &[1]),
        widget("clicks by hour and policy", &["clicks"], "hour", &[2]),
        widget("revenue by day and channel", &["revenue"], "day", &[1]),
        Widget {
            filter: Some((0, campaigns(1))),
            ..widget("one campaign by hour", &["impressions", "clicks", "revenue"], "hour", &[])
        },
        Widget { filter: Some((0, campaigns(8))), ..widget("eight campaigns by hour", &["clicks"], "hour", &[0]) },
        Widget { top: Some(("revenue", 10)), ..widget("top campaigns", &["revenue", "clicks"], "total", &[0]) },
        Widget { top: Some(("ctr", 20)), ..widget("best click rates", &["clicks", "ctr"], "total", &[0, 1]) },
        Widget { last_days: Some(7), ..widget("last week by hour", &["impressions", "clicks"], "hour", &[1, 2]) },
        widget("every key", &["revenue"], "total", &[0, 1, 2]),
    ]
}

/// Impressions, clicks and revenue in cents, by start of the window and values of the group.
type Truth = BTreeMap<(i64, Vec<String>), Counts>;

impl Widget {
    fn begins_s(&self, days: i64) -> i64 {
        BEGIN_S + self.last_days.map_or(0, |last| (days - last).max(0)) * DAY
    }

    /// The body of a request to the query API.
    pub fn query(&self, days: i64) -> Value {
        let instant = |second: i64| neonhub_schemas::time::format_ms(second * 1_000);
        let mut query = json!({
            "metrics": self.metrics, "grain": self.grain,
            "from": instant(self.begins_s(days)), "to": instant(BEGIN_S + days * DAY),
            "group_by": self.group_by.iter().map(|index| DIMENSIONS[*index]).collect::<Vec<_>>(),
        });
        if let Some((dimension, values)) = &self.filter {
            query["filters"] = json!([{ "dimension": DIMENSIONS[*dimension], "op": "in", "values": values }]);
        }
        if let Some((metric, limit)) = self.top {
            query["order"] = json!([{ "by": metric, "direction": "desc" }]);
            query["limit"] = json!(limit);
        }
        query
    }

    /// The best SQL: one statement, no more columns than the widget shows, cut where it is cut.
    pub fn sql(&self, database: &str, workspace: &str, days: i64) -> String {
        let is_total = self.grain == "total";
        let stored = if self.grain == "hour" { "hour" } else { "day" };
        let mut columns = Vec::new();
        if !is_total {
            columns.push("window_start".to_owned());
        }
        columns.extend(self.group_by.iter().map(|index| format!("dimensions['{0}'] AS {0}", DIMENSIONS[*index])));
        let groups = columns.len();
        columns.extend(self.metrics.iter().map(|metric| match *metric {
            "revenue" => "sumIf(sum, metric = 'revenue') AS revenue".to_owned(),
            "ctr" => "sumIf(count, metric = 'clicks') / sumIf(count, metric = 'impressions') AS ctr".to_owned(),
            counted => format!("sumIf(count, metric = '{counted}') AS {counted}"),
        }));
        let needed: Vec<String> = self.stored_metrics().iter().map(|index| format!("'{}'", METRICS[*index])).collect();
        let mut sql = format!(
            "SELECT {} FROM {database}.metric_windows FINAL WHERE workspace = '{workspace}' AND metric IN ({}) \
             AND series = 0 AND grain = '{stored}' AND zone = 'UTC' AND window_start >= toDateTime({}, 'UTC') \
             AND window_start < toDateTime({}, 'UTC')",
            columns.join(", "),
            needed.join(", "),
            self.begins_s(days),
            BEGIN_S + days * DAY,
        );
        if let Some((dimension, values)) = &self.filter {
            let values: Vec<String> = values.iter().map(|value| format!("'{value}'")).collect();
            sql += &format!(" AND dimensions['{}'] IN ({})", DIMENSIONS[*dimension], values.join(", "));
        }
        if groups > 0 {
            let places: Vec<String> = (1..=groups).map(|place| place.to_string()).collect();
            sql += &format!(" GROUP BY {0} ORDER BY {0}", places.join(", "));
        }
        if let Some((metric, limit)) = self.top {
            let (before, _) = sql.split_once(" ORDER BY ").unwrap_or((&sql, ""));
            sql = format!("{before} ORDER BY {metric} DESC LIMIT {limit}");
        }
        sql + " SETTINGS do_not_merge_across_partitions_select_final = 1, optimize_move_to_prewhere_if_final = 1 FORMAT JSONCompactEachRow"
    }

    /// The stored metrics behind those that it shows.
    fn stored_metrics(&self) -> Vec<usize> {
        let is_needed = |name: &&str| {
            self.metrics.contains(name)
                || self.metrics.contains(&"ctr") && (*name == "clicks" || *name == "impressions")
        };
        METRICS.iter().enumerate().filter(|(_, name)| is_needed(name)).map(|(index, _)| index).collect()
    }

    fn truth(&self, days: i64) -> Truth {
        let mut truth = Truth::new();
        let first_hour = (self.begins_s(days) - BEGIN_S) / HOUR;
        for key in 0..KEYS {
            let names = names(key);
            if self.filter.as_ref().is_some_and(|(dimension, values)| !values.contains(&names[*dimension])) {
                continue;
            }
            let group: Vec<String> = self.group_by.iter().map(|index| names[*index].clone()).collect();
            for hour in first_hour..days * 24 {
                let start_s = match self.grain {
                    "hour" => BEGIN_S + hour * HOUR,
                    "day" => BEGIN_S + hour / 24 * DAY,
                    _ => self.begins_s(days),
                };
                let cell = truth.entry((start_s, group.clone())).or_default();
                cell.iter_mut().zip(counts(hour, key)).for_each(|(sum, gained)| *sum += gained);
            }
        }
        truth
    }

    /// # Errors
    /// What the answer of the query API has wrong.
    pub fn check(&self, answer: &Value, days: i64) -> anyhow::Result<()> {
        let truth = self.truth(days);
        let rows = answer["rows"].as_array().ok_or_else(|| anyhow::anyhow!("{}: no rows: {answer}", self.name))?;
        let expected = self.top.map_or(truth.len(), |(_, limit)| limit.min(truth.len()));
        anyhow::ensure!(rows.len() == expected, "{}: {} rows of {expected}", self.name, rows.len());
        let mut shown = std::collections::BTreeSet::new();
        let mut least_shown = f64::INFINITY;
        for row in rows {
            let start = row["window_start"].as_str().unwrap_or_default();
            let start_s = neonhub_schemas::time::parse_ms(start)? / 1_000;
            let group =
                self.group_by.iter().map(|index| row[DIMENSIONS[*index]].as_str().unwrap_or_default().to_owned());
            let place = (start_s, group.collect::<Vec<_>>());
            let counts = truth.get(&place).ok_or_else(|| anyhow::anyhow!("{}: {place:?} was not made", self.name))?;
            for metric in self.metrics {
                let (found, wanted) = (row[metric].as_f64().unwrap_or(f64::NAN), value(metric, counts));
                let differs = (found - wanted).abs() > wanted.abs() * 1e-12;
                anyhow::ensure!(!differs && !found.is_nan(), "{}: {metric} of {place:?}: {row}", self.name);
            }
            anyhow::ensure!(row["final"] == true, "{}: {place:?} is not final", self.name);
            if let Some((metric, _)) = self.top {
                anyhow::ensure!(value(metric, counts) <= least_shown, "{}: {place:?} is out of order", self.name);
                least_shown = value(metric, counts);
            }
            shown.insert(place);
        }
        anyhow::ensure!(shown.len() == rows.len(), "{}: a row comes twice", self.name);
        if let Some((metric, _)) = self.top {
            let hidden = truth.iter().filter(|(place, _)| !shown.contains(place));
            let is_more = |counts: &Counts| value(metric, counts) > least_shown;
            anyhow::ensure!(!hidden.into_iter().any(|(_, counts)| is_more(counts)), "{}: not the top", self.name);
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "sums far below 2^52")]
fn value(metric: &str, counts: &Counts) -> f64 {
    match metric {
        "impressions" => counts[0] as f64,
        "clicks" => counts[1] as f64,
        "revenue" => counts[2] as f64 / 100.0,
        _ => counts[1] as f64 / counts[0] as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that the truth gives, and what is wrong with it afterwards.
    fn answer_of(widget: &Widget, days: i64) -> Value {
        let row = |((start_s, group), counts): (&(i64, Vec<String>), &Counts)| {
            let mut row = json!({ "window_start": neonhub_schemas::time::format_ms(start_s * 1_000), "final": true });
            widget.group_by.iter().zip(group).for_each(|(index, value)| row[DIMENSIONS[*index]] = json!(value));
            widget.metrics.iter().for_each(|metric| row[*metric] = json!(value(metric, counts)));
            row
        };
        let mut rows: Vec<Value> = widget.truth(days).iter().map(row).collect();
        if let Some((metric, limit)) = widget.top {
            rows.sort_by(|left, right| right[metric].as_f64().unwrap().total_cmp(&left[metric].as_f64().unwrap()));
            rows.truncate(limit);
        }
        json!({ "rows": rows })
    }

    #[test]
    fn a_right_answer_passes_and_a_wrong_one_does_not() {
        for widget in widgets() {
            let right = answer_of(&widget, 1);
            widget.check(&right, 1).unwrap();
            let mut wrong = right.clone();
            let metric = widget.metrics[0];
            wrong["rows"][0][metric] = json!(right["rows"][0][metric].as_f64().unwrap() + 1.0);
            assert!(widget.check(&wrong, 1).is_err(), "{}", widget.name);
            let mut fewer = right.clone();
            fewer["rows"].as_array_mut().unwrap().pop();
            assert!(widget.check(&fewer, 1).is_err(), "{}", widget.name);
        }
    }

    #[test]
    fn the_windows_of_a_day_add_up() {
        let windows = windows_of_day("bench", 3, 0);
        assert_eq!(windows.len(), KEYS * 3 * 25);
        for metric in METRICS {
            let of = |grain: Grain| {
                let windows = windows.iter().filter(|window| window.key.metric == metric && window.grain == grain);
                let states = windows.map(|window| (window.state.count, window.state.sum.raw()));
                states.fold((0, 0), |(count, sum), (more, gained)| (count + more, sum + gained))
            };
            assert_eq!(of(Grain::Hour), of(Grain::Day));
        }
    }
}
