//! The id that a request goes by in answers and logs: the client's `X-Request-Id` where it is decent, else a new one.

use axum::http::{HeaderMap, HeaderName};
use neonhub_schemas::ids;

use super::state::IngestState;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn request_id(state: &IngestState, headers: &HeaderMap) -> String {
    let stated = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let decent =
        |text: &&str| !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
    match stated.filter(decent) {
        Some(stated) => stated.to_owned(),
        None => ids::message_id(state.now_ms(), state.random()),
    }
}
