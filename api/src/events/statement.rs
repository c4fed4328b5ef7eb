//! Pure: no I/O, no clock, no async.
//!
//! SQL of an events query. Whatever came from outside is a bound parameter, paths into JSON too.

use neonhub_schemas::metric::Operator;

use super::columns::{Column, TEXTS};
use super::request::{CheckedFilter, EventsRequest};
use crate::olap::{Param, SqlStatement};

/// One row more than the page holds, to know whether there is another page.
#[must_use]
pub fn statement(request: &EventsRequest, workspace: &str) -> SqlStatement {
    let mut statement = SqlStatement::default();
    let mut conditions = Vec::new();
    let workspace = statement.bind("String", Param::Text(workspace.to_owned()));
    conditions.push(format!("e.workspace = {workspace}"));
    let from = statement.bind("Int64", Param::Integer(request.from_ms));
    conditions.push(format!("e.timestamp >= fromUnixTimestamp64Milli({from}, 'UTC')"));
    let to = statement.bind("Int64", Param::Integer(request.to_ms));
    conditions.push(format!("e.timestamp < fromUnixTimestamp64Milli({to}, 'UTC')"));
    if let Some(cursor) = &request.cursor {
        let timestamp = statement.bind("Int64", Param::Integer(cursor.timestamp_ms));
        let id = statement.bind("String", Param::Text(cursor.message_id.clone()));
        let source = statement.bind("Int8", Param::Integer(i64::from(cursor.source_number)));
        let partition = statement.bind("UInt32", Param::Unsigned(u64::from(cursor.partition)));
        let offset = statement.bind("UInt64", Param::Unsigned(cursor.offset));
        // The first condition is for the index, the second for the exact place.
        conditions.push(format!("e.timestamp <= fromUnixTimestamp64Milli({timestamp}, 'UTC')"));
        conditions.push(format!(
            "(toUnixTimestamp64Milli(e.timestamp), e.message_id, toInt8(e.source), e.partition, e.offset) \
             < ({timestamp}, {id}, {source}, {partition}, {offset})"
        ));
    }
    for filter in &request.filters {
        let condition = condition(&mut statement, filter);
        conditions.push(condition);
    }
    let reads = |wanted: fn(&Column) -> bool| request.columns.iter().any(|(_, column)| wanted(column));
    let json =
        |is_read: bool, column: &str| if is_read { format!("toJSONString(e.{column})") } else { "''".to_owned() };
    let properties = json(reads(|column| matches!(column, Column::Properties | Column::Property(_))), "properties");
    let context = json(reads(|column| matches!(column, Column::Context | Column::InContext(_))), "context");
    let texts = (0..TEXTS.len()).map(text_of).collect::<Vec<_>>().join(", ");
    statement.sql = format!(
        "SELECT toInt8(e.source) AS source_number, e.partition AS place_partition, e.offset AS place_offset, \
         toUnixTimestamp64Milli(e.timestamp) AS timestamp_ms, toUnixTimestamp64Milli(e.received_at) AS received_at_ms, \
         e.message_id AS id, [{texts}] AS texts, {properties} AS properties_json, {context} AS context_json \
         FROM events AS e WHERE {} \
         ORDER BY e.timestamp DESC, e.message_id DESC, source_number DESC, e.partition DESC, e.offset DESC LIMIT {}",
        conditions.join(" AND "),
        request.limit + 1,
    );
    statement
}

fn text_of(index: usize) -> String {
    match TEXTS[index] {
        "value" => "ifNull(toString(e.value), '')".to_owned(),
        name => format!("CAST(e.{name} AS String)"),
    }
}

/// The column as text; empty where there is none.
fn text(statement: &mut SqlStatement, column: &Column) -> String {
    let mut at = |column: &str, path: &[String]| {
        let path = statement.bind("String", Param::Text(path.join(".")));
        format!("ifNull(toString(getSubcolumn(e.{column}, {path})), '')")
    };
    match column {
        Column::Text(index) => text_of(*index),
        Column::Property(path) => at("properties", path),
        Column::InContext(path) => at("context", path),
        Column::Actor => {
            "multiIf(e.anonymous_id != '', e.anonymous_id, e.user_id != '', e.user_id, e.message_id)".to_owned()
        }
        // Refused by the request's check.
        Column::Timestamp | Column::ReceivedAt | Column::Properties | Column::Context => "''".to_owned(),
    }
}

fn condition(statement: &mut SqlStatement, filter: &CheckedFilter) -> String {
    let text = text(statement, &filter.column);
    let first = filter.values.first();
    match filter.operator {
        Operator::Eq | Operator::In => any_of(statement, filter, &text),
        Operator::Ne | Operator::NotIn => format!("NOT ({})", any_of(statement, filter, &text)),
        Operator::Exists => format!("{text} != ''"),
        Operator::NotExists => format!("{text} = ''"),
        Operator::Contains | Operator::Prefix => {
            let wanted =
                statement.bind("String", Param::Text(first.map(|value| value.text.clone()).unwrap_or_default()));
            if filter.operator == Operator::Prefix {
                format!("startsWith({text}, {wanted})")
            } else {
                format!("position({text}, {wanted}) > 0")
            }
        }
        Operator::Gt => compare(statement, filter, &text, ">"),
        Operator::Gte => compare(statement, filter, &text, ">="),
        Operator::Lt => compare(statement, filter, &text, "<"),
        Operator::Lte => compare(statement, filter, &text, "<="),
    }
}

/// Text compares as text, numbers as decimals (5 is 5.0).
fn any_of(statement: &mut SqlStatement, filter: &CheckedFilter, text: &str) -> String {
    let list = |is_number: bool| {
        filter.values.iter().filter(|value| value.is_number == is_number).map(|value| value.text.clone()).collect()
    };
    let (texts, numbers): (Vec<String>, Vec<String>) = (list(false), list(true));
    let mut parts = Vec::new();
    if !texts.is_empty() {
        let texts = statement.bind("Array(String)", Param::Texts(texts));
        parts.push(format!("has({texts}, {text})"));
    }
    if !numbers.is_empty() {
        let numbers = statement.bind("Array(String)", Param::Texts(numbers));
        parts.push(format!(
            "has(arrayMap(number -> toDecimal128OrNull(number, 6), {numbers}), toDecimal128OrNull({text}, 6)) \
             AND toDecimal128OrNull({text}, 6) IS NOT NULL"
        ));
    }
    format!("({})", parts.join(" OR "))
}

fn compare(statement: &mut SqlStatement, filter: &CheckedFilter, text: &str, operator: &str) -> String {
    let limit = filter.values.first().map(|value| value.text.clone()).unwrap_or_default();
    let limit = statement.bind("String", Param::Text(limit));
    format!("ifNull(toDecimal128OrNull({text}, 6) {operator} toDecimal128OrNull({limit}, 6), false)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::cursor::Cursor;
    use crate::events::request::EventsQuery;
    use serde_json::json;

    #[test]
    fn whatever_came_from_outside_is_bound() {
        let evil = "x'); DROP TABLE events; --";
        let cursor = Cursor { timestamp_ms: 5, message_id: evil.into(), source_number: 1, partition: 0, offset: 9 };
        let query: EventsQuery = serde_json::from_value(json!({
            "filters": [{"field": format!("properties.{evil}"), "op": "in", "values": [evil, 5]},
                        {"field": "context.page.path", "op": "prefix", "value": evil},
                        {"field": "value", "op": "gte", "value": 5.5},
                        {"field": "actor", "op": "ne", "value": evil}],
            "columns": ["properties.a"], "cursor": cursor.encode()
        }))
        .unwrap();
        let statement = statement(&EventsRequest::check(&query).unwrap(), evil);
        assert!(!statement.sql.contains("DROP"), "{}", statement.sql);
        for (name, _) in &statement.params {
            assert!(statement.sql.contains(&format!("{{{name}:")), "{name} is not used");
        }
        assert!(statement.sql.contains("'' AS context_json"), "{}", statement.sql);
        assert!(statement.sql.ends_with("LIMIT 101"));
    }
}
