//! Pure: no I/O, no clock, no async.
//!
//! Bodies of `POST /v1/events/query`, and cursors.

use super::check_statement;
use crate::events::cursor::Cursor;
use crate::events::request::{EventsQuery, EventsRequest};
use crate::events::statement::statement;
use crate::extract::parse;

pub(super) fn check(bytes: &[u8]) {
    if let Some(cursor) = std::str::from_utf8(bytes).ok().and_then(Cursor::decode) {
        assert_eq!(Cursor::decode(&cursor.encode()).as_ref(), Some(&cursor));
    }
    let Ok(query) = parse::<EventsQuery>(bytes) else { return };
    let written = serde_json::to_vec(&query).unwrap_or_default();
    assert_eq!(parse::<EventsQuery>(&written).ok().as_ref(), Some(&query), "a query is another after a round trip");
    match EventsRequest::check(&query) {
        Err(problem) => assert_eq!((problem.status.as_u16(), problem.field.is_some()), (400, true), "{problem:?}"),
        Ok(request) => {
            assert!(request.from_ms < request.to_ms && request.limit <= 1_000);
            let values = request.filters.iter().flat_map(|filter| &filter.values).map(|value| value.text.as_str());
            let outside: Vec<&str> = values.chain(query.columns.iter().map(String::as_str)).collect();
            check_statement(&statement(&request, "it's \"odd\""), &outside);
        }
    }
}
