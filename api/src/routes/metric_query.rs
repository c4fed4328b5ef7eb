//! `POST /v1/metrics/query`.

use axum::Json;
use axum::extract::State;

use super::openapi::QueryProblems;
use crate::auth::{Caller, MetricsRead};
use crate::extract::JsonBody;
use crate::problem::Problem;
use crate::query;
use crate::query::request::MetricQuery;
use crate::query::view::Answer;
use crate::state::ApiState;

/// Metrics by window and dimension
///
/// Sums are exact decimals; averages, quantiles and derived metrics are doubles.
#[utoipa::path(
    post, path = "/v1/metrics/query", tag = "metrics", security(("api_key" = [])),
    request_body = MetricQuery,
    responses((status = 200, body = Answer), QueryProblems)
)]
pub async fn query_metrics(
    State(state): State<ApiState>,
    caller: Caller<MetricsRead>,
    JsonBody(request): JsonBody<MetricQuery>,
) -> Result<Json<Answer>, Problem> {
    let catalog = state.definitions().catalog(caller.workspace()).await?;
    let zone = state.config().zone_of(caller.workspace());
    let max_rows = state.config().max_rows;
    let now_ms = state.now_ms();
    query::run(state.olap(), &catalog, &caller.grant, zone, max_rows, now_ms, &request).await.map(Json)
}
