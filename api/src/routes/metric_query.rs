//! `POST /v1/metrics/query`.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use super::openapi::QueryProblems;
use crate::auth::{Caller, MetricsRead};
use crate::cache::Computed;
use crate::extract::JsonBody;
use crate::problem::Problem;
use crate::query;
use crate::query::plan::Plan;
use crate::query::request::MetricQuery;
use crate::query::view::Answer;
use crate::state::ApiState;

/// Metrics by window and dimension
///
/// Sums are exact decimals; averages, quantiles and derived metrics are doubles. An answer may be a second old, and a minute
/// where all windows are final: `Age` says how old (RFC 9111). `Cache-Control: no-cache` asks for a new one.
#[utoipa::path(
    post, path = "/v1/metrics/query", tag = "metrics", security(("api_key" = [])),
    request_body = MetricQuery,
    params(("Cache-Control" = Option<String>, Header, description = "`no-cache`: the answer is to be a new one", example = "no-cache")),
    responses(
        (status = 200, body = Answer, headers(("Age" = u64, description = "seconds since it was computed, if for another request"))),
        QueryProblems
    )
)]
pub async fn query_metrics(
    State(state): State<ApiState>,
    caller: Caller<MetricsRead>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<MetricQuery>,
) -> Result<Response, Problem> {
    let catalog = state.definitions().catalog(caller.workspace()).await?;
    let zone = state.config().zone_of(caller.workspace());
    let max_rows = state.config().max_rows;
    let plan = Plan::new(&request, &catalog, &caller.grant, zone, max_rows)?;
    let compute = async {
        let outcome = query::run(state.olap(), &plan, state.now_ms()).await?;
        let body = serde_json::to_vec(&outcome.answer).map_err(|error| Problem::internal(&error))?;
        // Without what the writer had reserved: it may be kept.
        Ok(Computed { body: Bytes::from(body.into_boxed_slice()), is_closed: outcome.is_closed })
    };
    let answered = state.answers().answer(plan.fingerprint(), wants_new(&headers), compute).await?;
    let mut response = ([(header::CONTENT_TYPE, "application/json")], answered.body).into_response();
    if let Some(age) = answered.age {
        response.headers_mut().insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    Ok(response)
}

/// RFC 9111, section 5.2.1.4.
fn wants_new(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|directive| directive.trim().eq_ignore_ascii_case("no-cache"))
}
