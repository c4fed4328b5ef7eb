//! The id that a request goes by in answers and logs: the client's `X-Request-Id` where it is decent, else a new one.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use neonhub_schemas::ids;

use super::state::IngestState;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn request_id(state: &IngestState, headers: &HeaderMap) -> HeaderValue {
    if let Some(stated) = headers.get(REQUEST_ID).filter(|value| ids::is_request_id(value.as_bytes())) {
        return stated.clone();
    }
    let made = ids::message_id(state.now_ms(), state.random());
    HeaderValue::try_from(made).unwrap_or(HeaderValue::from_static("unknown"))
}
