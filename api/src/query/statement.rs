//! Pure: no I/O, no clock, no async.
//!
//! SQL of a metric query. Whatever came from outside is a bound parameter; names of columns, functions and grains come
//! from here.

use std::fmt::Write as _;

use neonhub_schemas::metric::Aggregation;

use super::plan::{Filter, Plan, Series};
use super::request::DimensionOperator;
use super::span::{Grouping, Span};
use crate::olap::{Param, SqlStatement};

fn needs_sketch(series: &&Series) -> bool {
    matches!(series.aggregation, Aggregation::Uniques | Aggregation::Quantile(_))
}

/// Counts, sums and ranges, added up in ClickHouse. `None` when no metric needs them.
#[must_use]
pub fn sums(plan: &Plan, span: &Span) -> Option<SqlStatement> {
    let series: Vec<&Series> = plan.series.iter().filter(|series| !needs_sketch(series)).collect();
    if series.is_empty() {
        return None;
    }
    let mut statement = SqlStatement::default();
    let Columns { select, group_by } = columns(&mut statement, plan, span);
    let conditions = conditions(&mut statement, plan, span, &series);
    // One more than may be answered tells that it is too much.
    let limit = (plan.max_rows + 1).saturating_mul(series.len());
    // Columns that no metric needs are not read.
    let needs = |wanted: &[Aggregation]| series.iter().any(|series| wanted.contains(&series.aggregation));
    let only_if =
        |needed: bool, expression: &'static str, instead: &'static str| if needed { expression } else { instead };
    let sum = only_if(needs(&[Aggregation::Sum, Aggregation::Avg]), "toString(sum(w.sum))", "'0'");
    let least = only_if(needs(&[Aggregation::Min]), "ifNull(toString(min(w.min)), '')", "''");
    let greatest = only_if(needs(&[Aggregation::Max]), "ifNull(toString(max(w.max)), '')", "''");
    statement.sql = format!(
        "SELECT {select}, sum(w.count) AS total_count, {sum} AS total_sum, {least} AS least, {greatest} AS greatest, \
         toUInt8(min(w.final)) AS all_final, \
         toInt64(max(if(w.final, toUnixTimestamp(w.window_end), 0))) AS final_until \
         FROM metric_windows AS w FINAL WHERE {conditions} GROUP BY {group_by} LIMIT {limit}"
    );
    Some(statement)
}

/// Stored windows with their sketches, one row each: they are merged here, because ClickHouse does not know them.
#[must_use]
pub fn sketches(plan: &Plan, span: &Span) -> Option<SqlStatement> {
    let series: Vec<&Series> = plan.series.iter().filter(needs_sketch).collect();
    if series.is_empty() {
        return None;
    }
    let mut statement = SqlStatement::default();
    let Columns { select, .. } = columns(&mut statement, plan, span);
    let conditions = conditions(&mut statement, plan, span, &series);
    statement.sql = format!(
        "SELECT {select}, w.count AS total_count, base64Encode(w.distinct) AS distinct_base64, \
         base64Encode(w.distribution) AS distribution_base64, toUInt8(w.final) AS all_final, \
         toInt64(if(w.final, toUnixTimestamp(w.window_end), 0)) AS final_until \
         FROM metric_windows AS w FINAL WHERE {conditions}"
    );
    Some(statement)
}

/// The greatest end of a final window by metric, whatever the query's filters and end: a quiet tail closes too. With
/// `around`, of windows that begin near that second: cheap, and the greatest of all if there is one and nothing is later.
#[must_use]
pub fn closed(plan: &Plan, around: Option<i64>) -> SqlStatement {
    let mut statement = SqlStatement::default();
    let workspace = statement.bind("String", Param::Text(plan.workspace.clone()));
    let which = which(&mut statement, &plan.witnesses);
    let from = statement.bind("Int64", Param::Integer(around.unwrap_or(plan.span.from_s)));
    // Without FINAL and minutes, to be cheap: what is final stays so in every later revision. Windows that began before
    // the query does may end within it.
    let since = |interval: &str| format!("w.window_start >= toDateTime({from}, 'UTC') - INTERVAL {interval}");
    let until = around
        .map_or_else(String::new, |_| format!(" AND w.window_start < toDateTime({from}, 'UTC') + INTERVAL 2 HOUR"));
    statement.sql = format!(
        "SELECT CAST(w.metric AS String) AS metric_name, toInt64(max(toUnixTimestamp(w.window_end))) AS closed_until \
         FROM metric_windows AS w WHERE w.workspace = {workspace} AND ({which}) AND w.final \
         AND ((w.grain IN ('quarter', 'hour') AND {}) OR (w.grain IN ('day', 'week', 'month') AND {})){until} \
         GROUP BY w.metric",
        since("2 HOUR"),
        since("32 DAY"),
    );
    statement
}

/// What a statement selects of a row's place, and the same for GROUP BY: by the columns as they are stored, which is faster
/// than by their texts.
struct Columns {
    select: String,
    group_by: String,
}

fn columns(statement: &mut SqlStatement, plan: &Plan, span: &Span) -> Columns {
    let mut group_by = vec!["w.metric".to_owned()];
    let bucket = match &span.grouping {
        Grouping::Label => {
            group_by.push("w.window_start".to_owned());
            "toInt64(toUnixTimestamp(w.window_start))".to_owned()
        }
        Grouping::Whole => "toInt64(0)".to_owned(),
        Grouping::Starts(starts) => {
            let starts = statement.bind("Array(Int64)", Param::Integers(starts.clone()));
            group_by.push("bucket".to_owned());
            format!("toInt64(roundDown(toInt64(toUnixTimestamp(w.window_start)), {starts}))")
        }
    };
    let values = plan.group_by.iter().map(|name| dimension(statement, name)).collect::<Vec<_>>();
    let groups = if values.is_empty() { "emptyArrayString()".to_owned() } else { format!("[{}]", values.join(", ")) };
    group_by.extend(values);
    let select = format!("CAST(w.metric AS String) AS metric_name, {bucket} AS bucket, {groups} AS group_values");
    Columns { select, group_by: group_by.join(", ") }
}

fn dimension(statement: &mut SqlStatement, name: &str) -> String {
    let name = statement.bind("String", Param::Text(name.to_owned()));
    format!("w.dimensions[{name}]")
}

fn which<'a>(statement: &mut SqlStatement, series: impl IntoIterator<Item = &'a Series>) -> String {
    let mut one = |series: &Series| {
        let name = statement.bind("String", Param::Text(series.name.clone()));
        let number = statement.bind("UInt64", Param::Unsigned(series.series));
        format!("(w.metric = {name} AND w.series = {number})")
    };
    series.into_iter().map(&mut one).collect::<Vec<_>>().join(" OR ")
}

fn conditions(statement: &mut SqlStatement, plan: &Plan, span: &Span, series: &[&Series]) -> String {
    let workspace = statement.bind("String", Param::Text(plan.workspace.clone()));
    let which = which(statement, series.iter().copied());
    let zone = statement.bind("String", Param::Text(span.stored_zone.clone()));
    let from = statement.bind("Int64", Param::Integer(span.labels.0));
    let to = statement.bind("Int64", Param::Integer(span.labels.1));
    let mut text = format!(
        "w.workspace = {workspace} AND ({which}) AND w.grain = '{}' AND w.zone = {zone} \
         AND w.window_start >= toDateTime({from}, 'UTC') AND w.window_start < toDateTime({to}, 'UTC')",
        span.stored_grain.as_str(),
    );
    for filter in &plan.filters {
        let condition = condition(statement, filter);
        // Writing into a String cannot fail.
        let _infallible = write!(text, " AND {condition}");
    }
    text
}

fn condition(statement: &mut SqlStatement, filter: &Filter) -> String {
    let value = dimension(statement, &filter.dimension);
    let mut list = || statement.bind("Array(String)", Param::Texts(filter.values.clone()));
    match filter.operator {
        DimensionOperator::Eq | DimensionOperator::In => format!("has({}, {value})", list()),
        DimensionOperator::Ne | DimensionOperator::NotIn => format!("NOT has({}, {value})", list()),
        DimensionOperator::Contains => format!("position({value}, {}[1]) > 0", list()),
        DimensionOperator::Prefix => format!("startsWith({value}, {}[1])", list()),
        DimensionOperator::Exists => format!("{value} != ''"),
        DimensionOperator::NotExists => format!("{value} = ''"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::plan::tests::plan;
    use serde_json::json;

    #[test]
    fn whatever_came_from_outside_is_bound() {
        let evil = "'); DROP TABLE events; --";
        let plan = plan(json!({
            "group_by": ["campaign"], "timezone": "Asia/Kathmandu",
            "filters": [{"dimension": "policy", "op": "in", "values": [evil]},
                        {"dimension": "channel", "op": "contains", "value": evil}]
        }))
        .unwrap();
        let statement = sums(&plan, &plan.span).unwrap();
        assert!(!statement.sql.contains("DROP") && !statement.sql.contains("campaign"), "{}", statement.sql);
        assert!(statement.params.contains(&("p9".to_owned(), Param::Texts(vec![evil.to_owned()]))), "{statement:?}");
        for (name, _) in &statement.params {
            assert!(statement.sql.contains(&format!("{{{name}:")), "{name} is not used");
        }
        assert!(statement.sql.contains("roundDown(") && statement.sql.contains("w.grain = 'quarter'"));
    }

    #[test]
    fn what_is_closed_is_asked_of_every_metric_of_the_sources_and_nothing_else() {
        let plan =
            plan(json!({"metrics": ["clicks"], "filters": [{"dimension": "policy", "op": "eq", "value": "bts"}]}))
                .unwrap();
        let statement = closed(&plan, None);
        let binds = |text: &str| statement.params.iter().any(|(_, param)| *param == Param::Text(text.to_owned()));
        assert!(binds("acme") && binds("clicks") && binds("impressions") && !binds("page_views"), "{statement:?}");
        assert!(!binds("bts") && !statement.sql.contains("window_start <"), "{}", statement.sql);
        assert!(statement.params.iter().any(|(_, param)| *param == Param::Integer(plan.span.from_s)));
        let statement = closed(&plan, Some(plan.span.to_s));
        assert!(statement.params.iter().any(|(_, param)| *param == Param::Integer(plan.span.to_s)));
        assert!(statement.sql.contains("window_start <"), "{}", statement.sql);
    }

    #[test]
    fn each_metric_is_read_the_way_it_needs() {
        let counts = plan(json!({"metrics": ["clicks", "ctr"]})).unwrap();
        assert!(sketches(&counts, &counts.span).is_none());
        let statement = sums(&counts, &counts.span).unwrap();
        assert!(statement.sql.contains("toInt64(toUnixTimestamp(w.window_start)) AS bucket"), "{}", statement.sql);
        assert!(!statement.sql.contains("w.sum") && !statement.sql.contains("w.min"), "{}", statement.sql);
        let amounts = plan(json!({"metrics": ["revenue", "clicks"]})).unwrap();
        let statement = sums(&amounts, &amounts.span).unwrap();
        assert!(statement.sql.contains("sum(w.sum)") && !statement.sql.contains("w.max"), "{}", statement.sql);
        let uniques = plan(json!({"metrics": ["visitors"], "grain": "total"})).unwrap();
        assert!(sums(&uniques, &uniques.span).is_none());
        assert!(sketches(&uniques, &uniques.span).unwrap().sql.contains("base64Encode(w.distinct)"));
    }
}
