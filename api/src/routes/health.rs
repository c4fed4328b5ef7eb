//! Health and metrics: no key is needed.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::PublicProblems;
use crate::problem::{Problem, ProblemBody};
use crate::state::ApiState;

const PATIENCE: Duration = Duration::from_secs(2);
/// Whoever asks has no key and no quota: ClickHouse and the store are asked no oftener than this.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Part {
    pub ready: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Readiness {
    pub ready: bool,
    /// `clickhouse`, `store`, `log`, `keys`; `redis`, where there is one: without it requests are answered all the same.
    pub parts: BTreeMap<&'static str, Part>,
}

/// A problem with the parts beside it (RFC 9457 extension members).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NotReady {
    #[serde(flatten)]
    pub problem: ProblemBody,
    #[serde(flatten)]
    pub readiness: Readiness,
}

/// The process lives.
#[utoipa::path(
    get, path = "/health/live", tag = "health",
    responses((status = 200, description = "it lives"), PublicProblems)
)]
pub async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({"live": true}))
}

async fn part<E: std::fmt::Display>(answer: impl Future<Output = Result<(), E>>) -> Part {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(())) => Part { ready: true, reason: None },
        Ok(Err(error)) => Part { ready: false, reason: Some(error.to_string()) },
        Err(_) => Part { ready: false, reason: Some(format!("no answer within {} s", PATIENCE.as_secs())) },
    }
}

/// Whether requests can be answered, and which part is in the way.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    responses(
        (status = 200, body = Readiness),
        (status = 503, body = NotReady, content_type = "application/problem+json", description = "a part is away"),
        PublicProblems
    )
)]
pub async fn ready(State(state): State<ApiState>) -> Response {
    let parts = look(&state).await;
    let away: Vec<&str> =
        parts.iter().filter(|(name, part)| !part.ready && **name != "redis").map(|(name, _)| *name).collect();
    if away.is_empty() {
        return Json(Readiness { ready: true, parts }).into_response();
    }
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}", away.join(", "))).body();
    let body = NotReady { problem, readiness: Readiness { ready: false, parts } };
    let mut response = (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::RETRY_AFTER, HeaderValue::from(2));
    response
}

type Parts = BTreeMap<&'static str, Part>;
type Look = Shared<BoxFuture<'static, Parts>>;

/// The last look at the parts, which may be under way, and when it was begun.
#[derive(Default)]
pub struct LastLook(Mutex<Option<(Duration, Look)>>);

fn look(state: &ApiState) -> Look {
    let (now, mut last) = (state.elapsed(), state.last_look().0.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some((at, look)) = &*last
        && now.saturating_sub(*at) < BETWEEN_LOOKS
    {
        return look.clone();
    }
    // It goes on without whoever asked.
    let asking = tokio::spawn(ask(state.clone()));
    let failed = |error: tokio::task::JoinError| Part { ready: false, reason: Some(error.to_string()) };
    let look =
        async move { asking.await.unwrap_or_else(|error| Parts::from([("api", failed(error))])) }.boxed().shared();
    *last = Some((now, look.clone()));
    look
}

async fn ask(state: ApiState) -> Parts {
    let log = async { state.hub().failure().map_or(Ok(()), Err) };
    let keys = async { if state.keys().are_read() { Ok(()) } else { Err("keys are still being read") } };
    let (clickhouse, store, log, keys, redis) = futures::join!(
        part(state.olap().ping()),
        part(state.ping_store()),
        part(log),
        part(keys),
        state.answers().ping_shared()
    );
    let mut parts = BTreeMap::from([("clickhouse", clickhouse), ("store", store), ("log", log), ("keys", keys)]);
    if let Some(redis) = redis {
        parts.insert("redis", part(std::future::ready(redis)).await);
    }
    parts
}

/// Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses((status = 200, description = "text format", content_type = "text/plain"), PublicProblems)
)]
pub async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    let text = state.telemetry().text().map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
