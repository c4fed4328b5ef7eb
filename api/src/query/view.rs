//! Pure: no I/O, no clock, no async.
//!
//! Windows and groups → the rows of the answer.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use neonhub_schemas::metric::{Definition, Number};
use neonhub_schemas::window::Aggregate;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::collect::{Cell, Table};
use super::number::raw_number;
use super::plan::Plan;
use super::request::{Direction, QueryGrain};
use crate::problem::Problem;

/// Column names, shared by all rows.
#[derive(Debug, PartialEq, Eq)]
struct Columns {
    groups: Vec<String>,
    metrics: Vec<String>,
}

/// One window and group.
#[derive(Clone, Debug)]
pub struct AnswerRow {
    columns: Arc<Columns>,
    bucket: usize,
    pub window_start: String,
    pub window_end: String,
    pub groups: Vec<String>,
    pub values: Vec<Option<Number>>,
    pub is_final: bool,
    pub previous: Option<Vec<Option<Number>>>,
}

/// What was asked, as it was understood.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Meta {
    pub grain: QueryGrain,
    pub timezone: String,
    pub from: String,
    pub to: String,
    /// The stored windows that were added up.
    pub stored_grain: &'static str,
    /// There are more rows than `limit` let through.
    pub truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Period>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Period {
    pub from: String,
    pub to: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Answer {
    /// `window_start`, `window_end`, the dimensions of `group_by` (null: the events had none), the metrics (null: no
    /// value), `final`, and `previous` when compared.
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<AnswerRow>,
    pub meta: Meta,
}

/// # Errors
/// 422: filling the gaps makes too many rows.
pub fn answer(plan: &Plan, current: &Table, previous: Option<&Table>) -> Result<Answer, Problem> {
    let columns = Arc::new(Columns { groups: plan.group_by.clone(), metrics: plan.metrics.clone() });
    let clock = Clock::new(&plan.zone);
    let nothing = Cell { aggregates: vec![Aggregate::default(); plan.series.len()], all_final: false };
    let mut rows = Vec::new();
    for key in keys(plan, current, previous)? {
        let cell = current.cells().get(&key);
        let (index, groups) = key;
        let Some(bucket) = plan.span.buckets.get(index) else { continue };
        let before = previous.map(|previous| previous.cells().get(&(index, groups.clone())).unwrap_or(&nothing));
        // Parts that nobody has written yet may still come, unless final windows show that their time is over.
        let is_over = current.closed_until() >= bucket.end_s.min(plan.span.to_s);
        rows.push(AnswerRow {
            columns: columns.clone(),
            bucket: index,
            window_start: clock.text(bucket.start_s, bucket.first_s),
            window_end: clock.text(bucket.end_s, bucket.end_s),
            values: values(plan, cell.unwrap_or(&nothing)),
            is_final: is_over && cell.is_none_or(|cell| cell.all_final),
            previous: before.map(|cell| values(plan, cell)),
            groups,
        });
    }
    sort(plan, &mut rows);
    let truncated = rows.len() > plan.limit;
    rows.truncate(plan.limit);
    let period = |span: &super::span::Span| Period {
        from: clock.text(span.from_s, span.from_s),
        to: clock.text(span.to_s, span.to_s),
    };
    let Period { from, to } = period(&plan.span);
    let meta = Meta {
        grain: plan.grain,
        timezone: plan.zone.clone(),
        from,
        to,
        stored_grain: plan.span.stored_grain.as_str(),
        truncated,
        previous: plan.previous.as_ref().map(period),
    };
    Ok(Answer { rows, meta })
}

/// Windows and groups that get a row: those with data, now or before; with `fill`, every window of every such group.
fn keys(plan: &Plan, current: &Table, previous: Option<&Table>) -> Result<BTreeSet<(usize, Vec<String>)>, Problem> {
    let tables = [Some(current), previous];
    let mut keys: BTreeSet<(usize, Vec<String>)> =
        tables.into_iter().flatten().flat_map(|table| table.cells().keys().cloned()).collect();
    if plan.fill {
        let mut groups: BTreeSet<Vec<String>> = keys.iter().map(|(_, groups)| groups.clone()).collect();
        if plan.group_by.is_empty() {
            groups.insert(Vec::new());
        }
        let windows = plan.span.buckets.len();
        if groups.len().saturating_mul(windows) > plan.max_rows {
            let detail = format!("{} groups in {windows} windows are more than {} rows", groups.len(), plan.max_rows);
            return Err(Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, detail));
        }
        keys = (0..windows).flat_map(|window| groups.iter().map(move |group| (window, group.clone()))).collect();
    }
    Ok(keys)
}

fn values(plan: &Plan, cell: &Cell) -> Vec<Option<Number>> {
    plan.metrics.iter().map(|name| value(plan, cell, name, 0)).collect()
}

fn value(plan: &Plan, cell: &Cell, name: &str, depth: usize) -> Option<Number> {
    if depth > crate::catalog::MAX_DEPTH {
        return None;
    }
    match plan.definitions.get(name)? {
        Definition::Events(metric) => {
            let index = plan.series.iter().position(|series| series.name == name)?;
            metric.aggregation.read(cell.aggregates.get(index)?)
        }
        Definition::Derived(expression) => {
            let value_of = |needed: &str| value(plan, cell, needed, depth + 1).map(Number::to_f64);
            expression.evaluate(&value_of).map(Number::Double)
        }
    }
}

fn sort(plan: &Plan, rows: &mut [AnswerRow]) {
    let by_place =
        |left: &AnswerRow, right: &AnswerRow| (left.bucket, &left.groups).cmp(&(right.bucket, &right.groups));
    rows.sort_by(|left, right| {
        for order in &plan.order {
            let turned = |ordering: Ordering| match order.direction {
                Direction::Asc => ordering,
                Direction::Desc => ordering.reverse(),
            };
            let ordering = if order.by == "window_start" {
                turned(left.bucket.cmp(&right.bucket))
            } else if let Some(index) = plan.group_by.iter().position(|name| *name == order.by) {
                turned(left.groups.get(index).cmp(&right.groups.get(index)))
            } else {
                let index = plan.metrics.iter().position(|name| *name == order.by);
                let number = |row: &AnswerRow| Some(row.values.get(index?)?.as_ref()?.to_f64());
                match (number(left), number(right)) {
                    (Some(left), Some(right)) => turned(left.total_cmp(&right)),
                    (left, right) => right.is_some().cmp(&left.is_some()),
                }
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        by_place(left, right)
    });
}

/// Instants as RFC 3339 with the zone's offset.
struct Clock(TimeZone);

impl Clock {
    fn new(zone: &str) -> Self {
        Self(TimeZone::get(zone).unwrap_or(TimeZone::UTC))
    }

    /// `at_s`, with the offset in force at `in_force_s`: an hour in which the clock changed starts by the new clock.
    fn text(&self, at_s: i64, in_force_s: i64) -> String {
        let instant = |second| Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
        let offset = self.0.to_offset(instant(in_force_s));
        if offset.seconds() == 0 {
            return instant(at_s).to_string();
        }
        instant(at_s).display_with_offset(offset).to_string()
    }
}

/// Numbers by metric.
struct Values<'a>(&'a [String], &'a [Option<Number>]);

impl Values<'_> {
    fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        for (name, value) in self.0.iter().zip(self.1) {
            map.serialize_entry(name, &value.and_then(raw_number))?;
        }
        Ok(())
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.write(&mut map)?;
        map.end()
    }
}

impl Serialize for AnswerRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("window_start", &self.window_start)?;
        map.serialize_entry("window_end", &self.window_end)?;
        for (name, value) in self.columns.groups.iter().zip(&self.groups) {
            map.serialize_entry(name, &(!value.is_empty()).then_some(value))?;
        }
        Values(&self.columns.metrics, &self.values).write(&mut map)?;
        map.serialize_entry("final", &self.is_final)?;
        if let Some(previous) = &self.previous {
            map.serialize_entry("previous", &Values(&self.columns.metrics, previous))?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::olap::WindowRow;
    use crate::query::plan::tests::plan;
    use serde_json::json;

    fn row(metric: &str, bucket: i64, group: &str, count: u64, final_until: i64) -> WindowRow {
        WindowRow {
            metric_name: metric.into(),
            bucket,
            group_values: vec![group.into()],
            total_count: count,
            total_sum: "0".into(),
            all_final: u8::from(final_until > 0),
            final_until,
            ..WindowRow::default()
        }
    }

    const DAY: i64 = 86_400;
    const FIRST: i64 = 1_574_553_600;

    fn answer_of(query: serde_json::Value, rows: &[WindowRow], before: Option<&[WindowRow]>) -> serde_json::Value {
        let plan = plan(query).unwrap();
        let mut table = Table::new(&plan, &plan.span);
        rows.iter().for_each(|row| table.add_sums(row).unwrap());
        let previous = before.map(|rows| {
            let mut table = Table::new(&plan, plan.previous.as_ref().unwrap());
            rows.iter().for_each(|row| table.add_sums(row).unwrap());
            table
        });
        let text = serde_json::to_string(&answer(&plan, &table, previous.as_ref()).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn rows_hold_dimensions_metrics_and_whether_they_are_final() {
        let query = json!({"metrics": ["impressions", "clicks", "ctr"], "group_by": ["campaign"]});
        let rows = [
            row("impressions", FIRST, "men", 8, FIRST + DAY),
            row("clicks", FIRST, "men", 2, FIRST + DAY),
            row("impressions", FIRST, "", 4, FIRST + DAY),
            row("clicks", FIRST + DAY, "men", 1, 0),
        ];
        let answer = answer_of(query, &rows, None);
        let expected = json!([
            {"window_start": "2019-11-24T00:00:00Z", "window_end": "2019-11-25T00:00:00Z", "campaign": null,
             "impressions": 4, "clicks": 0, "ctr": 0.0, "final": true},
            {"window_start": "2019-11-24T00:00:00Z", "window_end": "2019-11-25T00:00:00Z", "campaign": "men",
             "impressions": 8, "clicks": 2, "ctr": 0.25, "final": true},
            {"window_start": "2019-11-25T00:00:00Z", "window_end": "2019-11-26T00:00:00Z", "campaign": "men",
             "impressions": 0, "clicks": 1, "ctr": null, "final": false},
        ]);
        assert_eq!(answer["rows"], expected);
        assert_eq!(answer["meta"]["stored_grain"], "day");
    }

    #[test]
    fn parts_that_are_final_make_no_final_window_before_its_time_is_over() {
        let query = json!({"metrics": ["clicks"], "group_by": ["campaign"], "timezone": "Asia/Kathmandu",
            "from": "2019-11-24T00:15:00Z", "to": "2019-11-24T01:15:00Z", "grain": "hour"});
        let start = FIRST + 900;
        let open = answer_of(query.clone(), &[row("clicks", start, "men", 2, start + 900)], None);
        assert_eq!(open["rows"][0]["final"], false);
        assert_eq!(open["rows"][0]["window_start"], "2019-11-24T06:00:00+05:45");
        let closed = answer_of(query, &[row("clicks", start, "men", 2, start + 3_600)], None);
        assert_eq!(closed["rows"][0]["final"], true);
    }

    #[test]
    fn rows_are_final_when_every_source_is_closed_until_their_end() {
        let query = json!({"metrics": ["clicks", "page_views"], "grain": "total", "fill": true});
        let is_final = |closes: &[(&str, i64)], rows: &[WindowRow]| {
            let plan = plan(query.clone()).unwrap();
            let mut table = Table::new(&plan, &plan.span);
            rows.iter().for_each(|row| table.add_sums(row).unwrap());
            closes.iter().for_each(|(metric, until)| table.close(metric, *until));
            answer(&plan, &table, None).unwrap().rows[0].is_final
        };
        let end = FIRST + 7 * DAY;
        let mut quiet_tail = row("clicks", 0, "", 2, FIRST + DAY);
        quiet_tail.group_values.clear();
        let rows = [quiet_tail];
        assert!(!is_final(&[], &rows));
        assert!(!is_final(&[("impressions", end)], &rows), "behavior is open");
        assert!(!is_final(&[("impressions", end), ("sessions", end - 1)], &rows));
        assert!(is_final(&[("impressions", end), ("sessions", end)], &rows));
        assert!(is_final(&[("impressions", end), ("sessions", end)], &[]), "nothing came, and nothing will");
        let open = [WindowRow { all_final: 0, ..rows[0].clone() }];
        assert!(!is_final(&[("impressions", end), ("sessions", end)], &open));
    }

    #[test]
    fn previous_windows_are_joined_by_their_place() {
        let query = json!({"group_by": ["campaign"], "compare": "previous_period",
            "from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"});
        let now = [row("clicks", FIRST, "men", 5, 0)];
        let before = [row("clicks", FIRST - DAY, "men", 3, 0), row("clicks", FIRST - DAY, "women", 1, 0)];
        let answer = answer_of(query, &now, Some(&before));
        assert_eq!(answer["rows"][0]["previous"], json!({"clicks": 3}));
        assert_eq!((&answer["rows"][1]["clicks"], &answer["rows"][1]["previous"]["clicks"]), (&json!(0), &json!(1)));
        assert_eq!(answer["meta"]["previous"]["from"], "2019-11-23T00:00:00Z");
    }

    #[test]
    fn order_limit_and_fill() {
        let rows = [row("clicks", FIRST, "men", 1, 0), row("clicks", FIRST, "women", 3, 0)];
        let query = json!({"group_by": ["campaign"], "order": [{"by": "clicks", "direction": "desc"}], "limit": 1});
        let answer = answer_of(query, &rows, None);
        assert_eq!(answer["rows"][0]["campaign"], "women");
        assert_eq!(answer["meta"]["truncated"], true);
        let filled = answer_of(json!({"group_by": ["campaign"], "fill": true}), &rows, None);
        assert_eq!(filled["rows"].as_array().unwrap().len(), 14);
        let empty = answer_of(json!({"fill": true}), &[], None);
        assert_eq!(empty["rows"].as_array().unwrap().len(), 7);
    }
}
