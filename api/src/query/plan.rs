//! Pure: no I/O, no clock, no async.
//!
//! A checked query: which series to read over which span, and what to make of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use axum::http::StatusCode;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::{Aggregation, Definition};
use neonhub_schemas::time;
use neonhub_schemas::window::Calendar;
use sha2::{Digest as _, Sha256};

use super::request::{DimensionFilter, DimensionOperator, MetricQuery, Order, QueryGrain};
use super::span::{Span, SpanRequest, previous};
use crate::auth::Grant;
use crate::catalog::{Catalog, Metric};
use crate::problem::Problem;

const MAX_METRICS: usize = 20;
const MAX_GROUPS: usize = 8;
const MAX_FILTERS: usize = 32;
const MAX_VALUES: usize = 1_000;

/// An event metric's series of windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub series: u64,
    pub aggregation: Aggregation,
    pub source: Source,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub dimension: String,
    pub operator: DimensionOperator,
    pub values: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub workspace: String,
    pub zone: String,
    pub grain: QueryGrain,
    pub span: Span,
    pub previous: Option<Span>,
    /// What is read.
    pub series: Vec<Series>,
    /// Every event metric of the sources of `series`: time is closed for a source as a whole, whoever noticed.
    pub witnesses: Vec<Series>,
    /// What is answered, in the order asked.
    pub metrics: Vec<String>,
    /// Those of `metrics` and all that they need.
    pub definitions: BTreeMap<String, Definition>,
    pub group_by: Vec<String>,
    pub filters: Vec<Filter>,
    pub fill: bool,
    pub order: Vec<Order>,
    pub limit: usize,
    pub max_rows: usize,
}

impl Plan {
    /// # Errors
    /// 400 names what is wrong; 403: the caller's grant does not reach so far; 422: more windows than may be answered.
    pub fn new(
        query: &MetricQuery,
        catalog: &Catalog,
        grant: &Grant,
        workspace_zone: &str,
        max_rows: usize,
    ) -> Result<Self, Problem> {
        // First: whoever may not see a metric learns nothing of it.
        if let Some(name) = query.metrics.iter().find(|name| !grant.shows(name)) {
            return Err(Problem::new(StatusCode::FORBIDDEN, format!("the token does not show `{name}`")));
        }
        let series = check_metrics(query, catalog)?;
        check_groups(query, catalog)?;
        let mut filters = check_filters(query, catalog)?;
        filters.extend(granted_rows(query, catalog, grant)?);
        check_order(query)?;
        let limit = check_limit(query.limit, max_rows)?;
        let zone = query.timezone.as_deref().unwrap_or(workspace_zone);
        let mut calendar = Calendar::new(zone).map_err(|error| Problem::field("timezone", error.to_string()))?;
        let (from_ms, to_ms) = (instant("from", &query.from)?, instant("to", &query.to)?);
        if from_ms >= to_ms {
            return Err(Problem::field("to", "must be after `from`"));
        }
        let grain = query.grain.windows();
        let span_of = |from_ms, to_ms, calendar: &mut Calendar| {
            let zone = calendar;
            Span::new(&mut SpanRequest { from_ms, to_ms, grain, zone, workspace_zone, limit: max_rows }).map_err(|_| {
                let detail = format!("more than {max_rows} windows lie between `from` and `to`: take a coarser grain");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
            })
        };
        let span = span_of(from_ms, to_ms, &mut calendar)?;
        let previous_span = match query.compare {
            None => None,
            Some(_) => {
                let (from_ms, to_ms) = previous(&span, grain, &mut calendar);
                if from_ms >= to_ms {
                    return Err(Problem::field("compare", "there is no time before `from`"));
                }
                Some(span_of(from_ms, to_ms, &mut calendar)?)
            }
        };
        Ok(Self {
            workspace: grant.workspace.clone(),
            zone: zone.to_owned(),
            grain: query.grain,
            span,
            previous: previous_span,
            witnesses: witnesses(&series, catalog),
            series,
            metrics: query.metrics.clone(),
            definitions: definitions(query, catalog),
            group_by: query.group_by.clone(),
            filters,
            fill: query.fill,
            order: query.order.clone(),
            limit,
            max_rows,
        })
    }
}

/// Text goes into the digest.
struct Digesting(Sha256);

impl fmt::Write for Digesting {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text);
        Ok(())
    }
}

impl Plan {
    /// Two plans with one fingerprint have the same answer: everything that it is made of is in the plan, whose derived
    /// `Debug` leaves out no field.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut digest = Digesting(Sha256::new());
        // Writing into a digest cannot fail.
        let _infallible = write!(digest, "{self:?}");
        digest.0.finalize().into()
    }
}

fn instant(field: &str, text: &str) -> Result<i64, Problem> {
    let ms = time::parse_ms(text)
        .map_err(|_| Problem::field(field, format!("`{text}` is not RFC 3339, like 2019-11-24T00:00:00Z")))?;
    if !(time::EARLIEST_MS..=time::LATEST_MS).contains(&ms) {
        return Err(Problem::field(field, "must lie between the years 1972 and 2106"));
    }
    Ok(ms)
}

fn check_limit(limit: Option<usize>, max_rows: usize) -> Result<usize, Problem> {
    match limit {
        None => Ok(max_rows),
        Some(limit) if (1..=max_rows).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::field("limit", format!("is 1 to {max_rows}"))),
    }
}

fn check_metrics(query: &MetricQuery, catalog: &Catalog) -> Result<Vec<Series>, Problem> {
    if query.metrics.is_empty() || query.metrics.len() > MAX_METRICS {
        return Err(Problem::field("metrics", format!("names 1 to {MAX_METRICS} metrics")));
    }
    let mut found = BTreeMap::new();
    for (index, name) in query.metrics.iter().enumerate() {
        let field = || format!("metrics[{index}]");
        if catalog.get(name).is_none() {
            return Err(Problem::field(field(), format!("`{name}` is no metric of this workspace")));
        }
        if query.metrics[..index].contains(name) {
            return Err(Problem::field(field(), format!("`{name}` is named twice")));
        }
        for (name, series, metric) in catalog.events_behind(name) {
            let name = name.to_owned();
            let found_one =
                Series { name: name.clone(), series, aggregation: metric.aggregation, source: metric.source };
            found.insert(name, found_one);
        }
    }
    Ok(found.into_values().collect())
}

fn definitions(query: &MetricQuery, catalog: &Catalog) -> BTreeMap<String, Definition> {
    let needed = query.metrics.iter().flat_map(|name| catalog.behind(name));
    needed.map(|metric| (metric.name.clone(), metric.definition.clone())).collect()
}

fn witnesses(series: &[Series], catalog: &Catalog) -> Vec<Series> {
    let sources: BTreeSet<Source> = series.iter().map(|series| series.source).collect();
    let of_a_source = |metric: &Metric| match &metric.definition {
        Definition::Events(events) if sources.contains(&events.source) => Some(Series {
            name: metric.name.clone(),
            series: metric.series,
            aggregation: events.aggregation,
            source: events.source,
        }),
        _ => None,
    };
    catalog.iter().filter_map(of_a_source).collect()
}

fn check_dimension(field: &str, dimension: &str, query: &MetricQuery, catalog: &Catalog) -> Result<(), Problem> {
    for metric in &query.metrics {
        let known = catalog.dimensions(metric);
        if !known.contains(dimension) {
            let known = if known.is_empty() {
                "it has none".to_owned()
            } else {
                format!("it has {}", known.into_iter().collect::<Vec<_>>().join(", "))
            };
            let detail = format!("metric `{metric}` has no dimension `{dimension}`: {known}");
            return Err(Problem::field(field, detail));
        }
    }
    Ok(())
}

fn check_groups(query: &MetricQuery, catalog: &Catalog) -> Result<(), Problem> {
    if query.group_by.len() > MAX_GROUPS {
        return Err(Problem::field("group_by", format!("names at most {MAX_GROUPS} dimensions")));
    }
    for (index, dimension) in query.group_by.iter().enumerate() {
        let field = format!("group_by[{index}]");
        if query.group_by[..index].contains(dimension) {
            return Err(Problem::field(field, format!("`{dimension}` is named twice")));
        }
        if query.metrics.contains(dimension) {
            return Err(Problem::field(field, format!("`{dimension}` is also the name of a metric in the answer")));
        }
        check_dimension(&field, dimension, query, catalog)?;
    }
    Ok(())
}

fn check_filters(query: &MetricQuery, catalog: &Catalog) -> Result<Vec<Filter>, Problem> {
    if query.filters.len() > MAX_FILTERS {
        return Err(Problem::field("filters", format!("are at most {MAX_FILTERS}")));
    }
    let check = |(index, filter): (usize, &DimensionFilter)| {
        let field = format!("filters[{index}]");
        check_dimension(&format!("{field}.dimension"), &filter.dimension, query, catalog)?;
        let values = filter_values(&field, filter)?;
        Ok(Filter { dimension: filter.dimension.clone(), operator: filter.op, values })
    };
    query.filters.iter().enumerate().map(check).collect()
}

/// What the grant adds to the filters, whatever the query asks for: every row that is read passes them.
fn granted_rows(query: &MetricQuery, catalog: &Catalog, grant: &Grant) -> Result<Vec<Filter>, Problem> {
    for dimension in grant.rows.keys() {
        if let Some(name) = query.metrics.iter().find(|name| !catalog.dimensions(name).contains(dimension.as_str())) {
            let detail = format!("the token shows rows by `{dimension}`, which `{name}` does not have");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
    }
    let filter = |(dimension, values): (&String, &BTreeSet<String>)| Filter {
        dimension: dimension.clone(),
        operator: DimensionOperator::In,
        values: values.iter().cloned().collect(),
    };
    Ok(grant.rows.iter().map(filter).collect())
}

fn filter_values(field: &str, filter: &DimensionFilter) -> Result<Vec<String>, Problem> {
    use serde_json::Value;
    let given = match (&filter.value, &filter.values) {
        (Some(_), Some(_)) => return Err(Problem::field(field, "has both `value` and `values`")),
        (Some(value), None) => vec![value.clone()],
        (None, values) => values.clone().unwrap_or_default(),
    };
    let fits = match filter.op {
        DimensionOperator::In | DimensionOperator::NotIn => (1..=MAX_VALUES).contains(&given.len()),
        DimensionOperator::Exists | DimensionOperator::NotExists => given.is_empty(),
        _ => given.len() == 1,
    };
    if !fits {
        let detail = "takes one `value`; in and not_in take `values` (1 to 1,000), exists and not_exists take none";
        return Err(Problem::field(field, detail));
    }
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(value) => Ok(value.to_string()),
        // As in answers: an event that had none.
        Value::Null => Ok(String::new()),
        other => Err(Problem::field(field, format!("{other} is not text, a number, a boolean or null"))),
    };
    given.into_iter().map(text).collect()
}

fn check_order(query: &MetricQuery) -> Result<(), Problem> {
    for (index, order) in query.order.iter().enumerate() {
        let is_column =
            order.by == "window_start" || query.metrics.contains(&order.by) || query.group_by.contains(&order.by);
        if !is_column {
            let detail = format!("`{}` is neither `window_start` nor a metric or dimension of the answer", order.by);
            return Err(Problem::field(format!("order[{index}].by"), detail));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn query(json: serde_json::Value) -> MetricQuery {
        let mut base = serde_json::json!({
            "metrics": ["clicks"], "grain": "day", "from": "2019-11-24T00:00:00Z", "to": "2019-12-01T00:00:00Z"
        });
        let serde_json::Value::Object(changes) = json else { panic!("an object is expected") };
        for (name, value) in changes {
            base[&name] = value;
        }
        serde_json::from_value(base).unwrap()
    }

    pub fn plan(json: serde_json::Value) -> Result<Plan, Problem> {
        granted(json, &Grant::whole("acme"))
    }

    fn granted(json: serde_json::Value, grant: &Grant) -> Result<Plan, Problem> {
        Plan::new(&query(json), &Catalog::new(&[]), grant, "UTC", 50_000)
    }

    #[test]
    fn the_wrong_field_is_named() {
        use serde_json::json;
        let cases = [
            (json!({"metrics": []}), "metrics"),
            (json!({"metrics": ["clicks", "nope"]}), "metrics[1]"),
            (json!({"metrics": ["clicks", "clicks"]}), "metrics[1]"),
            (json!({"from": "yesterday"}), "from"),
            (json!({"to": "2019-11-24T00:00:00Z"}), "to"),
            (json!({"to": "2919-11-24T00:00:00Z"}), "to"),
            (json!({"timezone": "Mars/Olympus"}), "timezone"),
            (json!({"group_by": ["planet"]}), "group_by[0]"),
            (json!({"group_by": ["campaign", "campaign"]}), "group_by[1]"),
            (json!({"metrics": ["clicks", "page_views"], "group_by": ["policy"]}), "group_by[0]"),
            (json!({"filters": [{"dimension": "planet", "op": "eq", "value": "x"}]}), "filters[0].dimension"),
            (json!({"filters": [{"dimension": "policy", "op": "in"}]}), "filters[0]"),
            (json!({"filters": [{"dimension": "policy", "op": "eq", "value": [1]}]}), "filters[0]"),
            (json!({"order": [{"by": "ctr"}]}), "order[0].by"),
            (json!({"limit": 0}), "limit"),
        ];
        for (json, field) in cases {
            assert_eq!(plan(json.clone()).unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        let problem = plan(json!({"metrics": ["clicks", "page_views"], "group_by": ["policy"]})).unwrap_err();
        assert!(problem.detail.contains("`page_views`") && problem.detail.contains("`policy`"), "{}", problem.detail);
        let problem = plan(json!({"grain": "minute", "from": "2000-01-01T00:00:00Z"})).unwrap_err();
        assert_eq!(problem.status, StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn only_the_definitions_that_are_needed_are_part_of_a_plan() {
        let plan = plan(serde_json::json!({"metrics": ["ctr"]})).unwrap();
        assert_eq!(plan.definitions.keys().collect::<Vec<_>>(), ["clicks", "ctr", "impressions"]);
    }

    #[test]
    fn a_grant_is_part_of_every_plan() {
        use serde_json::json;
        let grant = Grant {
            metrics: Some(["clicks".to_owned(), "ctr".to_owned()].into()),
            rows: [("campaign".to_owned(), ["men".to_owned()].into())].into(),
            ..Grant::whole("acme")
        };
        let of_men = Filter {
            dimension: "campaign".to_owned(),
            operator: DimensionOperator::In,
            values: vec!["men".to_owned()],
        };
        let wider = json!({"metrics": ["ctr"], "filters": [{"dimension": "campaign", "op": "ne", "value": "men"}]});
        for query in [json!({}), json!({"group_by": ["campaign"], "compare": "previous_period"}), wider] {
            assert!(granted(query.clone(), &grant).unwrap().filters.contains(&of_men), "{query}");
        }
        let unknown = json!({"metrics": ["no_such_metric"], "group_by": ["nope"]});
        for query in [json!({"metrics": ["impressions"]}), json!({"metrics": ["clicks", "spend"]}), unknown] {
            assert_eq!(granted(query, &grant).unwrap_err().status, StatusCode::FORBIDDEN);
        }
        let of_policy =
            Grant { rows: [("policy".to_owned(), ["bts".to_owned()].into())].into(), ..Grant::whole("acme") };
        let problem = granted(json!({"metrics": ["page_views"]}), &of_policy).unwrap_err();
        assert_eq!(problem.status, StatusCode::FORBIDDEN, "it has no policy to filter by");
    }

    #[test]
    fn derived_metrics_read_what_they_are_made_of() {
        let plan = plan(serde_json::json!({"metrics": ["ctr", "roas"]})).unwrap();
        let names: Vec<&str> = plan.series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names, ["clicks", "impressions", "revenue", "spend"]);
        assert!(plan.previous.is_none());
    }
}
