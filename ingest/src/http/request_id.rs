//! The id that a request goes by in answers and logs: the client's `X-Request-Id` where it is decent, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use neonhub_schemas::ids;

use super::state::IngestState;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Printable ASCII.
pub(super) fn request_id(state: &IngestState, headers: &HeaderMap) -> HeaderValue {
    let decent = |value: &&HeaderValue| {
        let text = value.as_bytes();
        !text.is_empty() && text.len() <= 128 && text.iter().all(u8::is_ascii_graphic)
    };
    if let Some(stated) = headers.get(REQUEST_ID).filter(decent) {
        return stated.clone();
    }
    let made = ids::message_id(state.now_ms(), state.random());
    HeaderValue::try_from(made).unwrap_or(HeaderValue::from_static("unknown"))
}
