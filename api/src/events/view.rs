//! Pure: no I/O, no clock, no async.
//!
//! Rows from ClickHouse → a page of events.

use neonhub_schemas::time;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::columns::{Column, TEXTS};
use super::cursor::Cursor;
use super::request::EventsRequest;
use crate::olap::EventRow;

/// Newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventsPage {
    /// One object an event, with the columns asked for; null where an event has none. `value` is decimal text.
    #[schema(value_type = Vec<Object>)]
    pub events: Vec<serde_json::Map<String, Value>>,
    /// Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

#[must_use]
pub fn page(request: &EventsRequest, mut rows: Vec<EventRow>) -> EventsPage {
    let has_more = rows.len() > request.limit;
    rows.truncate(request.limit);
    let next_cursor = rows.last().filter(|_| has_more).map(|last| {
        let cursor = Cursor {
            timestamp_ms: last.timestamp_ms,
            message_id: last.id.clone(),
            source_number: last.source_number,
            partition: last.place_partition,
            offset: last.place_offset,
        };
        cursor.encode()
    });
    EventsPage { events: rows.iter().map(|row| event(request, row)).collect(), next_cursor }
}

fn event(request: &EventsRequest, row: &EventRow) -> serde_json::Map<String, Value> {
    let json = |text: &str| serde_json::from_str(text).unwrap_or(Value::Null);
    let properties: Value = json(&row.properties_json);
    let context: Value = json(&row.context_json);
    let value = |column: &Column| match column {
        Column::Text(index) => text(row, *index),
        Column::Actor => ["anonymous_id", "user_id", "message_id"]
            .into_iter()
            .filter_map(|name| TEXTS.iter().position(|known| *known == name))
            .map(|index| text(row, index))
            .find(|found| !found.is_null())
            .unwrap_or(Value::Null),
        Column::Timestamp => Value::String(time::format_ms(row.timestamp_ms)),
        Column::ReceivedAt => Value::String(time::format_ms(row.received_at_ms)),
        Column::Properties => properties.clone(),
        Column::Context => context.clone(),
        Column::Property(path) => at(&properties, path),
        Column::InContext(path) => at(&context, path),
    };
    request.columns.iter().map(|(name, column)| (name.clone(), value(column))).collect()
}

fn text(row: &EventRow, index: usize) -> Value {
    let found = row.texts.get(index).filter(|text| !text.is_empty());
    found.map_or(Value::Null, |text| Value::String(text.clone()))
}

fn at(value: &Value, path: &[String]) -> Value {
    let found = path.iter().try_fold(value, |value, step| value.get(step));
    found.cloned().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::request::EventsQuery;
    use serde_json::json;

    #[test]
    fn a_page_has_the_columns_asked_for_and_a_cursor_when_there_is_more() {
        let query: EventsQuery = serde_json::from_value(json!({
            "limit": 1, "columns": ["timestamp", "user_id", "group_id", "actor", "properties.cart.total", "context"]
        }))
        .unwrap();
        let request = EventsRequest::check(&query).unwrap();
        let mut texts = vec![String::new(); TEXTS.len()];
        texts[4] = "u".to_owned();
        let row = EventRow {
            timestamp_ms: 1_574_553_600_000,
            id: "m".into(),
            texts,
            properties_json: r#"{"cart":{"total":5}}"#.into(),
            ..EventRow::default()
        };
        let page = page(&request, vec![row.clone(), row]);
        let expected = json!({"timestamp": "2019-11-24T00:00:00.000Z", "user_id": "u", "group_id": null, "actor": "u",
            "properties.cart.total": 5, "context": null});
        assert_eq!(Value::Object(page.events[0].clone()), expected);
        let cursor = Cursor::decode(&page.next_cursor.unwrap()).unwrap();
        assert_eq!((cursor.timestamp_ms, cursor.message_id.as_str()), (1_574_553_600_000, "m"));
    }
}
