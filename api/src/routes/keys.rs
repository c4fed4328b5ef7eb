//! `/v1/keys`: create, list, rotate, revoke.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use neonhub_schemas::access::{KeyRecord, Purpose, Scope};
use neonhub_schemas::time;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::openapi::{AdminProblems, ReadProblems};
use crate::auth::{Admin, Caller};
use crate::extract::JsonBody;
use crate::keys::{KeyWish, Made};
use crate::problem::Problem;
use crate::state::ApiState;

/// How long the former key stays good where a rotation does not say.
const OVERLAP_SECONDS: u32 = 24 * 3_600;
const LONGEST_OVERLAP_SECONDS: u32 = 90 * 24 * 3_600;

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// It is sent with requests.
    #[default]
    Bearer,
    /// It signs row-scoped tokens (JWT, HS256, `kid`: the key's id) and is never sent itself.
    TokenSigning,
}

impl From<Purpose> for KeyPurpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Bearer => Self::Bearer,
            Purpose::TokenSigning => Self::TokenSigning,
        }
    }
}

impl From<KeyPurpose> for Purpose {
    fn from(purpose: KeyPurpose) -> Self {
        match purpose {
            KeyPurpose::Bearer => Self::Bearer,
            KeyPurpose::TokenSigning => Self::TokenSigning,
        }
    }
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"label": "shop-web", "scopes": ["ingest:write"], "events_per_second": 500}))]
pub struct NewKeyRequest {
    /// For people; 1 to 100 characters.
    pub label: String,
    #[serde(default)]
    pub purpose: KeyPurpose,
    /// `ingest:write` stands alone: a key that browsers know can do nothing else.
    #[schema(value_type = Vec<String>, example = json!(["metrics:read", "events:read"]))]
    pub scopes: BTreeSet<Scope>,
    /// Of an `ingest:write` key; the deployment's quota where absent.
    #[serde(default)]
    pub events_per_second: Option<u32>,
    /// RFC 3339; absent: it stays good until it is revoked.
    #[serde(default)]
    pub expires_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 86400}))]
pub struct RotationRequest {
    /// How long the former key stays good beside the new one: 0 to 90 days; a day where absent.
    #[serde(default)]
    pub overlap_seconds: Option<u32>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyAnswer {
    pub id: String,
    /// The visible beginning of the key. It opens nothing.
    pub prefix: String,
    pub label: String,
    pub purpose: KeyPurpose,
    #[schema(value_type = Vec<String>)]
    pub scopes: BTreeSet<Scope>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u32>,
    pub created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
    /// Neither revoked nor expired.
    pub in_force: bool,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct NewKeyAnswer {
    /// The key, or what a signing key signs with. It is not kept: nobody can show it again.
    pub secret: String,
    pub key: KeyAnswer,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyList {
    /// Newest first; expired and revoked ones included.
    pub keys: Vec<KeyAnswer>,
}

fn answer(record: &KeyRecord, now_ms: i64) -> KeyAnswer {
    KeyAnswer {
        id: record.id.clone(),
        prefix: record.prefix(),
        label: record.label.clone(),
        purpose: record.purpose.into(),
        scopes: record.scopes.clone(),
        events_per_second: record.events_per_second,
        created_at: time::format_ms(record.created_at),
        expires_at: record.expires_at_ms.map(time::format_ms),
        revoked_at: record.revoked_at_ms.map(time::format_ms),
        in_force: record.is_in_force(now_ms),
    }
}

fn made(made: Made, now_ms: i64) -> (StatusCode, Json<NewKeyAnswer>) {
    let key = answer(&made.record, now_ms);
    (StatusCode::CREATED, Json(NewKeyAnswer { secret: made.secret, key }))
}

/// Makes a key. It is shown in this answer and never again.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", security(("api_key" = [])),
    request_body = NewKeyRequest,
    responses((status = 201, body = NewKeyAnswer), AdminProblems)
)]
pub async fn create_key(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    JsonBody(request): JsonBody<NewKeyRequest>,
) -> Result<(StatusCode, Json<NewKeyAnswer>), Problem> {
    let instant = |text: &String| {
        time::parse_ms(text).map_err(|_| Problem::field("expires_at", format!("`{text}` is not RFC 3339")))
    };
    let wish = KeyWish {
        label: request.label,
        purpose: request.purpose.into(),
        scopes: request.scopes,
        events_per_second: request.events_per_second,
        expires_at_ms: request.expires_at.as_ref().map(instant).transpose()?,
    };
    let change = |state: ApiState| async move { state.keys().create(caller.workspace(), wish, &caller.actor).await };
    let key = state.to_the_end(change).await?;
    Ok(made(key, state.now_ms()))
}

/// The workspace's keys, without what opens anything.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", security(("api_key" = [])),
    responses((status = 200, body = KeyList), ReadProblems)
)]
pub async fn list_keys(State(state): State<ApiState>, caller: Caller<Admin>) -> Result<Json<KeyList>, Problem> {
    let now_ms = state.now_ms();
    let records = state.keys().list(caller.workspace()).await?;
    Ok(Json(KeyList { keys: records.iter().map(|record| answer(record, now_ms)).collect() }))
}

/// Makes another key like this one. Both are good until the overlap ends.
#[utoipa::path(
    post, path = "/v1/keys/{id}/rotate", tag = "keys", security(("api_key" = [])),
    params(("id" = String, Path)),
    request_body = RotationRequest,
    responses((status = 201, body = NewKeyAnswer), AdminProblems)
)]
pub async fn rotate_key(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    Path(id): Path<String>,
    JsonBody(request): JsonBody<RotationRequest>,
) -> Result<(StatusCode, Json<NewKeyAnswer>), Problem> {
    let overlap = request.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
    if overlap > LONGEST_OVERLAP_SECONDS {
        return Err(Problem::field("overlap_seconds", format!("0 to {LONGEST_OVERLAP_SECONDS}")));
    }
    let change = |state: ApiState| async move {
        state.keys().rotate(caller.workspace(), &id, i64::from(overlap) * 1_000, &caller.actor).await
    };
    let key = state.to_the_end(change).await?;
    Ok(made(key, state.now_ms()))
}

/// From now on the key opens nothing; every process knows within two seconds.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", tag = "keys", security(("api_key" = [])),
    params(("id" = String, Path)),
    responses((status = 204, description = "revoked"), AdminProblems)
)]
pub async fn revoke_key(
    State(state): State<ApiState>,
    caller: Caller<Admin>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let change = |state: ApiState| async move { state.keys().revoke(caller.workspace(), &id, &caller.actor).await };
    state.to_the_end(change).await?;
    Ok(StatusCode::NO_CONTENT)
}
