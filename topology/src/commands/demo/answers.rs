//! Pure: no I/O, no clock, no async.
//!
//! The questions that the demo asks the query API and ClickHouse, and how it reads the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::tally::{Counts, Group, Tally};

/// The days of the data as `[from, to)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: String,
    pub to: String,
}

impl Period {
    /// Whole UTC days, both included.
    ///
    /// # Errors
    /// Not `2019-11-24`.
    pub fn of_days(first: &str, last: &str) -> Result<Self, jiff::Error> {
        let end = last.parse::<jiff::civil::Date>()?.tomorrow()?;
        let first = first.parse::<jiff::civil::Date>()?;
        Ok(Self { from: format!("{first}T00:00:00Z"), to: format!("{end}T00:00:00Z") })
    }
}

/// The body of `POST /v1/metrics/query`; `grain` is `total` or `day`.
#[must_use]
pub fn metric_query(grain: &str, period: &Period) -> Value {
    json!({
        "metrics": ["impressions", "clicks", "ctr"],
        "grain": grain,
        "from": period.from,
        "to": period.to,
        "timezone": "UTC",
        "group_by": ["campaign", "policy"],
    })
}

#[derive(Deserialize)]
struct MetricAnswer {
    rows: Vec<MetricRow>,
}

#[derive(Deserialize)]
struct MetricRow {
    window_start: String,
    campaign: Option<String>,
    policy: Option<String>,
    impressions: Option<u64>,
    clicks: Option<u64>,
    ctr: Option<f64>,
}

/// What the query API says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ApiAnswer {
    /// From the query by day.
    pub days: Tally,
    /// From the query of the total: it reads other windows.
    #[serde(serialize_with = "group_list")]
    pub groups: BTreeMap<Group, Counts>,
    /// As the API divides; by group.
    #[serde(skip)]
    pub ctr: BTreeMap<Group, f64>,
}

/// # Errors
/// Not an answer to these queries.
pub fn read_api_answer(total: &[u8], by_day: &[u8]) -> serde_json::Result<ApiAnswer> {
    let mut answer = ApiAnswer::default();
    for row in serde_json::from_slice::<MetricAnswer>(total)?.rows {
        let (group, counts) = (row.group(), row.counts());
        if let Some(ctr) = row.ctr {
            answer.ctr.insert(group.clone(), ctr);
        }
        answer.groups.insert(group, counts);
    }
    for row in serde_json::from_slice::<MetricAnswer>(by_day)?.rows {
        let day = row.window_start.chars().take(10).collect();
        answer.days.add(row.group(), day, row.counts());
    }
    Ok(answer)
}

impl MetricRow {
    fn group(&self) -> Group {
        Group { campaign: self.campaign.clone().unwrap_or_default(), policy: self.policy.clone().unwrap_or_default() }
    }

    fn counts(&self) -> Counts {
        Counts { impressions: self.impressions.unwrap_or_default(), clicks: self.clicks.unwrap_or_default() }
    }
}

fn group_list<S: serde::Serializer>(groups: &BTreeMap<Group, Counts>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        group: &'a Group,
        #[serde(flatten)]
        counts: &'a Counts,
    }
    serializer.collect_seq(groups.iter().map(|(group, counts)| Line { group, counts }))
}

/// Everything by group and day, and all rows against all different ids: no `FINAL`, no `DISTINCT` in the counts.
pub const RAW_COUNTS: &str = "\
SELECT campaign, ifNull(properties.policy.:String, '') AS policy, toString(toDate(timestamp, 'UTC')) AS day,
       toUInt32(countIf(kind = 'impression')) AS impressions, toUInt32(countIf(kind = 'click')) AS clicks
FROM {database:Identifier}.events
WHERE workspace = {workspace:String}
GROUP BY campaign, policy, day
FORMAT JSONEachRow";

pub const RAW_IDS: &str = "\
SELECT toUInt32(count()) AS events, toUInt32(uniqExact(message_id)) AS message_ids
FROM {database:Identifier}.events
WHERE workspace = {workspace:String}
FORMAT JSONEachRow";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawIds {
    pub events: u64,
    pub message_ids: u64,
}

/// What SQL on the raw events says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SqlAnswer {
    pub days: Tally,
    #[serde(flatten)]
    pub ids: RawIds,
}

#[derive(Deserialize)]
struct RawRow {
    campaign: String,
    policy: String,
    day: String,
    impressions: u64,
    clicks: u64,
}

/// # Errors
/// Not the rows of these statements.
pub fn read_sql_answer(counts: &str, ids: &str) -> serde_json::Result<SqlAnswer> {
    let mut days = Tally::default();
    for line in counts.lines().filter(|line| !line.trim().is_empty()) {
        let row: RawRow = serde_json::from_str(line)?;
        let group = Group { campaign: row.campaign, policy: row.policy };
        days.add(group, row.day, Counts { impressions: row.impressions, clicks: row.clicks });
    }
    Ok(SqlAnswer { days, ids: serde_json::from_str(ids.trim())? })
}

/// Whether each source says what the files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Agreement {
    pub api: bool,
    pub sql: bool,
}

#[must_use]
pub fn agreement(truth: &Tally, api: &ApiAnswer, sql: &SqlAnswer) -> Agreement {
    let groups = truth.groups();
    let total = truth.total();
    let events = total.impressions + total.clicks;
    let same_ctr = groups.iter().all(|(group, counts)| {
        let (expected, found) = (counts.ctr(), api.ctr.get(group).copied());
        expected.zip(found).is_some_and(|(expected, found)| (expected - found).abs() < 1e-12)
    });
    Agreement {
        api: api.days == *truth && api.groups == groups && same_ctr,
        sql: sql.days == *truth && sql.ids == RawIds { events, message_ids: events },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> Group {
        Group { campaign: "men".into(), policy: "bts".into() }
    }

    fn truth() -> Tally {
        let mut truth = Tally::default();
        truth.add(group(), "2019-11-24".into(), Counts { impressions: 4, clicks: 1 });
        truth.add(group(), "2019-11-25".into(), Counts { impressions: 6, clicks: 0 });
        truth
    }

    fn api(day_two: u64) -> ApiAnswer {
        let total = json!({"rows": [{"window_start": "2019-11-24T00:00:00Z", "window_end": "x", "campaign": "men",
            "policy": "bts", "impressions": 10, "clicks": 1, "ctr": 0.1, "final": false}], "meta": {}});
        let row = |day: &str, impressions: u64, clicks: u64| {
            json!({"window_start": format!("{day}T00:00:00Z"),
            "campaign": "men", "policy": "bts", "impressions": impressions, "clicks": clicks, "ctr": 0.0})
        };
        let days = json!({"rows": [row("2019-11-24", 4, 1), row("2019-11-25", day_two, 0)]});
        read_api_answer(total.to_string().as_bytes(), days.to_string().as_bytes()).unwrap()
    }

    fn sql(events: u64, ids: u64) -> SqlAnswer {
        let counts = r#"{"campaign":"men","policy":"bts","day":"2019-11-24","impressions":4,"clicks":1}
{"campaign":"men","policy":"bts","day":"2019-11-25","impressions":6,"clicks":0}
"#;
        read_sql_answer(counts, &json!({"events": events, "message_ids": ids}).to_string()).unwrap()
    }

    #[test]
    fn three_sources_agree_or_not() {
        assert_eq!(agreement(&truth(), &api(6), &sql(11, 11)), Agreement { api: true, sql: true });
        assert_eq!(agreement(&truth(), &api(5), &sql(11, 11)), Agreement { api: false, sql: true });
        assert!(!agreement(&truth(), &api(6), &sql(12, 11)).sql, "an event is there twice");
        assert!(!agreement(&truth(), &api(6), &sql(12, 12)).sql, "an event of another kind");
        assert!(!agreement(&truth(), &ApiAnswer::default(), &sql(11, 11)).api);
    }

    #[test]
    fn the_period_is_whole_days() {
        let period = Period::of_days("2019-11-24", "2019-11-30").unwrap();
        assert_eq!((period.from.as_str(), period.to.as_str()), ("2019-11-24T00:00:00Z", "2019-12-01T00:00:00Z"));
        assert!(Period::of_days("soon", "2019-11-30").is_err());
        assert_eq!(metric_query("day", &period)["group_by"][1], "policy");
    }
}
