//! `GET /v1/audit`: who did what, when, to which resource.

use axum::Json;
use axum::extract::State;
use neonhub_schemas::time;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::openapi::QueryProblems;
use crate::auth::{Admin, Caller};
use crate::extract::UrlQuery;
use crate::olap::{AuditRow, Param, SqlStatement};
use crate::problem::Problem;
use crate::state::ApiState;

const MOST_ENTRIES: usize = 1_000;
const DEFAULT_ENTRIES: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    from: Option<String>,
    to: Option<String>,
    resource: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// The resource and its revision.
    pub id: String,
    pub at: String,
    /// A key's visible beginning, `bootstrap`, or `reconciliation`: a crash lost who it was.
    pub actor: String,
    /// `definition.put`, `definition.delete`, `key.create`, `key.rotate`, `key.revoke`; `republish` of a reconciliation.
    pub action: String,
    /// `metric/{name}` or `key/{id}`.
    pub resource: String,
    pub revision: u64,
    /// What the resource was from then on.
    #[schema(value_type = Object)]
    pub state: Box<RawValue>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AuditPage {
    /// Newest first.
    pub entries: Vec<AuditEntry>,
    /// Leads to the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Changes to definitions and keys, newest first. A change is here a moment after it was answered.
#[utoipa::path(
    get, path = "/v1/audit", tag = "keys", security(("api_key" = [])),
    params(
        ("from" = Option<String>, Query, description = "RFC 3339; included"),
        ("to" = Option<String>, Query, description = "RFC 3339; excluded"),
        ("resource" = Option<String>, Query, description = "`metric/{name}` or `key/{id}`"),
        ("limit" = Option<u32>, Query, description = "1 to 1000; 100 where absent"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")
    ),
    responses((status = 200, body = AuditPage), QueryProblems)
)]
pub async fn audit_log(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    UrlQuery(query): UrlQuery<AuditQuery>,
) -> Result<Json<AuditPage>, Problem> {
    let limit = query.limit.unwrap_or(DEFAULT_ENTRIES);
    if !(1..=MOST_ENTRIES).contains(&limit) {
        return Err(Problem::field("limit", format!("is 1 to {MOST_ENTRIES}")));
    }
    let statement = statement(caller.workspace(), &query, limit)?;
    let mut rows = state.olap().audit(&statement).await?;
    let next_cursor = (rows.len() > limit).then(|| {
        rows.truncate(limit);
        rows.last().map(|row| format!("{}.{}", row.at_ms, row.id))
    });
    let entries = rows.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(Json(AuditPage { entries, next_cursor: next_cursor.flatten() }))
}

fn entry(row: AuditRow) -> Result<AuditEntry, Problem> {
    Ok(AuditEntry {
        id: row.id,
        at: time::format_ms(row.at_ms),
        actor: row.actor,
        action: row.action,
        resource: row.resource,
        revision: row.revision,
        state: RawValue::from_string(row.state).map_err(|error| Problem::internal(&error))?,
    })
}

fn statement(workspace: &str, query: &AuditQuery, limit: usize) -> Result<SqlStatement, Problem> {
    let mut statement = SqlStatement::default();
    let workspace = statement.bind("String", Param::Text(workspace.to_owned()));
    let mut conditions = vec![format!("a.workspace = {workspace}")];
    for (field, text, comparison) in [("from", &query.from, ">="), ("to", &query.to, "<")] {
        let Some(text) = text else { continue };
        let ms = time::parse_ms(text).map_err(|_| Problem::field(field, format!("`{text}` is not RFC 3339")))?;
        let instant = statement.bind("Int64", Param::Integer(ms));
        conditions.push(format!("a.at {comparison} fromUnixTimestamp64Milli({instant}, 'UTC')"));
    }
    if let Some(resource) = &query.resource {
        let resource = statement.bind("String", Param::Text(resource.clone()));
        conditions.push(format!("a.resource = {resource}"));
    }
    if let Some(cursor) = &query.cursor {
        let place = cursor.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
        let (at_ms, id) = place.ok_or_else(|| Problem::field("cursor", "is none of this API's"))?;
        let at_ms = statement.bind("Int64", Param::Integer(at_ms));
        let id = statement.bind("String", Param::Text(id));
        conditions.push(format!("(toUnixTimestamp64Milli(a.at), a.id) < ({at_ms}, {id})"));
    }
    // A change that was published twice has two rows with one id.
    statement.sql = format!(
        "SELECT a.id AS id, toUnixTimestamp64Milli(a.at) AS at_ms, a.actor AS actor, CAST(a.action AS String) AS action, \
         a.resource AS resource, a.revision AS revision, a.state AS state FROM audit_log AS a WHERE {} \
         ORDER BY a.at DESC, a.id DESC, a.offset LIMIT 1 BY a.id LIMIT {}",
        conditions.join(" AND "),
        limit + 1,
    );
    Ok(statement)
}
