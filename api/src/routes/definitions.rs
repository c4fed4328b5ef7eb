//! `PUT|GET|DELETE /v1/metrics/definitions/{name}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use neonhub_schemas::metric::{DefinitionText, built_in};
use neonhub_schemas::time;
use serde::Serialize;
use utoipa::ToSchema;

use super::openapi::DefinitionProblems;
use crate::auth::{Caller, DefinitionsRead, DefinitionsWrite};
use crate::definitions::Precondition;
use crate::extract::JsonBody;
use crate::olap::{ActivationRow, Param, SqlStatement};
use crate::problem::Problem;
use crate::state::ApiState;

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DefinitionAnswer {
    pub name: String,
    /// NeonHub's own: it cannot be changed, and counts every event.
    pub built_in: bool,
    /// Rises with every change; the `ETag`. 0 for built-in ones.
    pub revision: u64,
    #[schema(schema_with = definition_reference)]
    pub definition: DefinitionText,
    /// Absent for built-in ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// The events in `[from_offset, until_offset)` of each partition count. Absent where ClickHouse could not be asked, and for built-in ones;
    /// a change shows up once the processors have taken it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<Vec<ActivationRow>>,
}

fn definition_reference() -> utoipa::openapi::Ref {
    utoipa::openapi::Ref::from_schema_name("DefinitionText")
}

type Answer = (StatusCode, [(HeaderName, HeaderValue); 1], Json<DefinitionAnswer>);

fn answer(
    status: StatusCode,
    record: neonhub_schemas::control::DefinitionRecord,
    activations: Option<Vec<ActivationRow>>,
) -> Result<Answer, Problem> {
    let body = DefinitionAnswer {
        name: record.name,
        built_in: false,
        revision: record.revision,
        definition: record.definition.unwrap_or_default(),
        updated_at: Some(time::format_ms(record.updated_at)),
        activations,
    };
    tagged(status, body)
}

fn tagged(status: StatusCode, body: DefinitionAnswer) -> Result<Answer, Problem> {
    let etag = HeaderValue::try_from(format!("\"{}\"", body.revision)).map_err(|error| Problem::internal(&error))?;
    Ok((status, [(header::ETAG, etag)], Json(body)))
}

/// # Errors
/// 400: not an entity tag of ours.
fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Missing),
        (Some(tag), None) => {
            let revision =
                tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|tag| tag.parse().ok());
            // A tag that cannot be ours matches nothing.
            Ok(Precondition::Revision(revision.unwrap_or(u64::MAX)))
        }
        _ => Err(Problem::field("If-None-Match", "takes `*` only, and not together with If-Match")),
    }
}

/// Defines a metric, or changes its definition
///
/// It counts from then on, without a restart; the same text again changes
/// nothing.
#[utoipa::path(
    put, path = "/v1/metrics/definitions/{name}", tag = "metrics", security(("api_key" = [])),
    params(
        ("name" = String, Path, description = "a lower-case letter, then lower-case letters, digits and underscores"),
        ("If-Match" = Option<String>, Header, description = "the ETag of the definition to be replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is none yet")
    ),
    request_body(
        content = ref("#/components/schemas/DefinitionText"), content_type = "application/json",
        example = json!({
            "source": "behavior", "event": "Order Completed", "aggregation": "sum", "value": "properties.revenue",
            "dimensions": ["properties.country"]
        })
    ),
    responses(
        (status = 200, body = DefinitionAnswer, description = "changed, or as it was"),
        (status = 201, body = DefinitionAnswer, description = "new"),
        DefinitionProblems
    )
)]
pub async fn put_definition(
    State(state): State<ApiState>,
    caller: Caller<DefinitionsWrite>,
    Path(name): Path<String>,
    headers: HeaderMap,
    JsonBody(text): JsonBody<DefinitionText>,
) -> Result<Answer, Problem> {
    let precondition = precondition(&headers)?;
    let change = |state: ApiState| async move {
        state.definitions().put(caller.workspace(), &name, text, precondition, &caller.actor).await
    };
    let (record, status) = state.to_the_end(change).await?;
    answer(status, record, None)
}

/// A metric's definition, built in or of the workspace; and from which offsets on it counts.
#[utoipa::path(
    get, path = "/v1/metrics/definitions/{name}", tag = "metrics", security(("api_key" = [])),
    params(("name" = String, Path)),
    responses((status = 200, body = DefinitionAnswer), DefinitionProblems)
)]
pub async fn get_definition(
    State(state): State<ApiState>,
    caller: Caller<DefinitionsRead>,
    Path(name): Path<String>,
) -> Result<Answer, Problem> {
    if let Some((_, definition)) = built_in().into_iter().find(|(known, _)| *known == name) {
        let body =
            DefinitionAnswer { name, built_in: true, revision: 0, definition, updated_at: None, activations: None };
        return tagged(StatusCode::OK, body);
    }
    let record = state.definitions().get(caller.workspace(), &name).await?;
    let statement = activations(caller.workspace(), &name, record.revision);
    // The definition can be told without ClickHouse.
    let found = state.olap().activations(&statement).await;
    let found = found.inspect_err(|error| tracing::warn!(%error, "activations could not be read")).ok();
    answer(StatusCode::OK, record, found)
}

/// Deletes a metric; its windows stay.
#[utoipa::path(
    delete, path = "/v1/metrics/definitions/{name}", tag = "metrics", security(("api_key" = [])),
    params(
        ("name" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the ETag of the definition to be deleted")
    ),
    responses((status = 204, description = "deleted"), DefinitionProblems)
)]
pub async fn delete_definition(
    State(state): State<ApiState>,
    caller: Caller<DefinitionsWrite>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let precondition = precondition(&headers)?;
    let change = |state: ApiState| async move {
        state.definitions().delete(caller.workspace(), &name, precondition, &caller.actor).await
    };
    state.to_the_end(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn activations(workspace: &str, name: &str, series: u64) -> SqlStatement {
    let mut statement = SqlStatement::default();
    let workspace = statement.bind("String", Param::Text(workspace.to_owned()));
    let name = statement.bind("String", Param::Text(name.to_owned()));
    let series = statement.bind("UInt64", Param::Unsigned(series));
    statement.sql = format!(
        "SELECT CAST(a.source AS String) AS source, a.partition AS partition, a.from_offset AS from_offset, \
         a.until_offset AS until_offset FROM metric_activations AS a FINAL \
         WHERE a.workspace = {workspace} AND a.metric = {name} AND a.series = {series} ORDER BY source, partition"
    );
    statement
}
