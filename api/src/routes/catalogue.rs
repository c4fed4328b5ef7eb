//! `GET /v1/metrics`: what can be asked for.

use axum::Json;
use axum::extract::State;
use neonhub_schemas::metric::Definition;
use neonhub_schemas::window::Grain;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::ReadProblems;
use crate::auth::{Caller, MetricsRead};
use crate::catalog::{Catalog, Metric};
use crate::problem::Problem;
use crate::state::ApiState;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CatalogueEntry {
    pub name: String,
    pub built_in: bool,
    /// 0 for built-in ones.
    pub revision: u64,
    /// Absent for derived metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of derived metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    /// Names to group and filter by.
    pub dimensions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub grains: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Catalogue {
    pub metrics: Vec<CatalogueEntry>,
    /// The workspace's zone: hours, days, weeks and months are those of its calendar, unless a query names another.
    pub timezone: String,
}

/// The metrics of the workspace, built in and its own.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "metrics", security(("api_key" = [])),
    responses((status = 200, body = Catalogue), ReadProblems)
)]
pub async fn list_metrics(
    State(state): State<ApiState>,
    caller: Caller<MetricsRead>,
) -> Result<Json<Catalogue>, Problem> {
    let catalog = state.definitions().catalog(caller.workspace()).await?;
    // What every query would refuse is not listed either.
    let is_shown = |metric: &&Metric| {
        let dimensions = catalog.dimensions(&metric.name);
        caller.grant.shows(&metric.name) && caller.grant.rows.keys().all(|name| dimensions.contains(name.as_str()))
    };
    let shown = catalog.iter().filter(is_shown);
    let metrics = shown.map(|metric| entry(&catalog, metric)).collect();
    Ok(Json(Catalogue { metrics, timezone: state.config().zone_of(caller.workspace()).to_owned() }))
}

fn entry(catalog: &Catalog, metric: &Metric) -> CatalogueEntry {
    let (aggregation, source) = match &metric.definition {
        Definition::Events(events) => (Some(events.aggregation.to_string()), Some(events.source.as_str().to_owned())),
        Definition::Derived(_) => (None, None),
    };
    CatalogueEntry {
        name: metric.name.clone(),
        built_in: metric.is_built_in,
        revision: metric.series,
        aggregation,
        source,
        expression: metric.text.expression.clone(),
        dimensions: catalog.dimensions(&metric.name).into_iter().collect(),
        description: metric.text.description.clone(),
        grains: Grain::ALL.into_iter().map(Grain::as_str).chain(["total"]).collect(),
    }
}
