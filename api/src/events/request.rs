//! Pure: no I/O, no clock, no async.
//!
//! What `POST /v1/events/query` takes, and its checked form.

use neonhub_schemas::event::FieldPath;
use neonhub_schemas::metric::{Condition, Operator};
use neonhub_schemas::time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::columns::{Column, DEFAULTS};
use super::cursor::Cursor;
use crate::problem::Problem;

pub const MAX_LIMIT: usize = 1_000;
const MAX_COLUMNS: usize = 50;
const MAX_FILTERS: usize = 32;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EventFilter {
    /// A column, or `properties.…`, `context.…`.
    pub field: String,
    /// `eq`, `ne`, `in`, `not_in`, `gt`, `gte`, `lt`, `lte`, `contains`, `prefix`, `exists`, `not_exists`.
    #[schema(value_type = String, example = "eq")]
    pub op: Operator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<serde_json::Value>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z", "columns": ["timestamp", "kind", "properties.item"],
    "filters": [{"field": "kind", "op": "eq", "value": "click"}], "limit": 50
}))]
pub struct EventsQuery {
    /// RFC 3339; included. Absent: from the first event on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// RFC 3339; excluded. Absent: to the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// All must hold.
    #[serde(default)]
    pub filters: Vec<EventFilter>,
    #[serde(default)]
    pub columns: Vec<String>,
    /// 1 to 1,000; 100 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CheckedFilter {
    pub column: Column,
    pub operator: Operator,
    pub values: Vec<FilterValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterValue {
    pub text: String,
    pub is_number: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EventsRequest {
    pub from_ms: i64,
    pub to_ms: i64,
    pub filters: Vec<CheckedFilter>,
    pub columns: Vec<(String, Column)>,
    pub limit: usize,
    pub cursor: Option<Cursor>,
}

impl EventsRequest {
    /// # Errors
    /// 400 names the field.
    pub fn check(query: &EventsQuery) -> Result<Self, Problem> {
        let instant = |field: &str, text: &Option<String>, default: i64| match text {
            None => Ok(default),
            Some(text) => time::parse_ms(text)
                .map(|ms| ms.clamp(time::EARLIEST_MS, time::LATEST_MS))
                .map_err(|_| Problem::field(field, format!("`{text}` is not RFC 3339, like 2019-11-24T00:00:00Z"))),
        };
        let from_ms = instant("from", &query.from, time::EARLIEST_MS)?;
        let to_ms = instant("to", &query.to, time::LATEST_MS)?;
        if from_ms >= to_ms {
            return Err(Problem::field("to", "must be after `from`"));
        }
        let limit = query.limit.unwrap_or(100);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::field("limit", format!("is 1 to {MAX_LIMIT}")));
        }
        let cursor = query.cursor.as_deref().map(|text| {
            Cursor::decode(text).ok_or_else(|| Problem::field("cursor", "is not the `next_cursor` of a page"))
        });
        Ok(Self {
            from_ms,
            to_ms,
            filters: check_filters(&query.filters)?,
            columns: check_columns(&query.columns)?,
            limit,
            cursor: cursor.transpose()?,
        })
    }
}

fn check_columns(names: &[String]) -> Result<Vec<(String, Column)>, Problem> {
    if names.len() > MAX_COLUMNS {
        return Err(Problem::field("columns", format!("are at most {MAX_COLUMNS}")));
    }
    let names: Vec<String> =
        if names.is_empty() { DEFAULTS.iter().map(|name| (*name).to_owned()).collect() } else { names.to_vec() };
    let read = |(index, name): (usize, String)| {
        let column = Column::read(&name).map_err(|reason| Problem::field(format!("columns[{index}]"), reason))?;
        Ok((name, column))
    };
    names.into_iter().enumerate().map(read).collect()
}

fn check_filters(filters: &[EventFilter]) -> Result<Vec<CheckedFilter>, Problem> {
    if filters.len() > MAX_FILTERS {
        return Err(Problem::field("filters", format!("are at most {MAX_FILTERS}")));
    }
    filters.iter().enumerate().map(|(index, filter)| check_filter(&format!("filters[{index}]"), filter)).collect()
}

fn check_filter(place: &str, filter: &EventFilter) -> Result<CheckedFilter, Problem> {
    let column = Column::read(&filter.field).map_err(|reason| Problem::field(format!("{place}.field"), reason))?;
    if matches!(column, Column::Timestamp | Column::ReceivedAt | Column::Properties | Column::Context) {
        let detail = "cannot be filtered by: use `from` and `to`, or a path like properties.item";
        return Err(Problem::field(format!("{place}.field"), detail));
    }
    let given = match (&filter.value, &filter.values) {
        (Some(_), Some(_)) => return Err(Problem::field(place, "has both `value` and `values`")),
        (Some(value), None) => vec![value.clone()],
        (None, values) => values.clone().unwrap_or_default(),
    };
    // The same rules as for a metric's conditions.
    Condition::new(FieldPath::Name, filter.op, &given).map_err(|reason| Problem::field(place, reason))?;
    let value = |value: serde_json::Value| FilterValue {
        is_number: value.is_number(),
        text: value.as_str().map_or_else(|| value.to_string(), str::to_owned),
    };
    Ok(CheckedFilter { column, operator: filter.op, values: given.into_iter().map(value).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wrong_field_is_named() {
        let cases = [
            (json!({"from": "x"}), "from"),
            (json!({"from": "2020-01-01T00:00:00Z", "to": "2019-01-01T00:00:00Z"}), "to"),
            (json!({"limit": 1001}), "limit"),
            (json!({"cursor": "x"}), "cursor"),
            (json!({"columns": ["kind", "planet"]}), "columns[1]"),
            (json!({"filters": [{"field": "planet", "op": "eq", "value": 1}]}), "filters[0].field"),
            (json!({"filters": [{"field": "timestamp", "op": "eq", "value": 1}]}), "filters[0].field"),
            (json!({"filters": [{"field": "kind", "op": "in"}]}), "filters[0]"),
        ];
        for (json, field) in cases {
            let query: EventsQuery = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(EventsRequest::check(&query).unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        let defaults = EventsRequest::check(&EventsQuery::default()).unwrap();
        assert_eq!((defaults.limit, defaults.columns.len()), (100, DEFAULTS.len()));
    }
}
