//! Health and metrics, for whoever looks after the process.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::state::IngestState;

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Liveness {
    #[schema(example = "live")]
    status: &'static str,
}

/// Each part is `ready`, or says why not.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    #[schema(example = "ready")]
    log: String,
    #[schema(example = "ready")]
    listener: String,
    #[schema(example = "ready")]
    capacity: String,
    #[schema(example = "ready")]
    keys: String,
}

/// The process runs.
#[utoipa::path(get, path = "/health/live", tag = "operations", responses((status = 200, body = Liveness)))]
pub(super) async fn live() -> Json<Liveness> {
    Json(Liveness { status: "live" })
}

/// The process can take events now.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness, description = "a part is not ready"))
)]
pub(super) async fn ready(State(state): State<IngestState>) -> Response {
    let part = |fault: Option<String>| fault.unwrap_or_else(|| "ready".to_owned());
    let log = state.sink().ready().err();
    let listener = state.is_draining().then(|| "shutting down".to_owned());
    let full = state.bytes_in_flight().available_permits() < state.limits().max_body_bytes;
    let capacity = full.then(|| "too many bytes in flight".to_owned());
    let keys = (!state.keys().are_read()).then(|| "write keys are still being read".to_owned());
    let ready = [&log, &listener, &capacity, &keys].into_iter().all(Option::is_none);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let readiness =
        Readiness { ready, log: part(log), listener: part(listener), capacity: part(capacity), keys: part(keys) };
    (status, Json(readiness)).into_response()
}

/// Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(super) async fn metrics(State(state): State<IngestState>) -> Response {
    let in_flight = state.limits().max_bytes_in_flight.saturating_sub(state.bytes_in_flight().available_permits());
    match state.metrics().text(in_flight) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
