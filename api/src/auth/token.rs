//! Row-scoped tokens: a JWT (RFC 7519, HS256) that a workspace's own server signs for one of its customers. It names its
//! signing key in `kid`, and fixes what may be seen and until when.

use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use neonhub_schemas::access::{KeyRing, Lookup};
use serde::Deserialize;

use super::{Grant, Lease, Recognised, invalid, not_yet};
use crate::problem::Problem;

/// Dimensions that a token may fix, and values of all of them.
const MOST_FILTERS: usize = 16;
const MOST_VALUES: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    /// Seconds since the epoch, as all times of a JWT.
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(default, rename = "iat")]
    _iat: Option<i64>,
    #[serde(default, rename = "iss")]
    _iss: Option<String>,
    #[serde(default, rename = "jti")]
    _jti: Option<String>,
    /// For whom it was made.
    #[serde(default, rename = "sub")]
    _sub: Option<String>,
    /// Where present, it must be the signing key's.
    #[serde(default)]
    workspace: Option<String>,
    /// Absent: every metric that has the dimensions of `filters`.
    #[serde(default)]
    metrics: Option<BTreeSet<String>>,
    /// Dimension to the values that may be seen.
    #[serde(default)]
    filters: BTreeMap<String, OneOrMore>,
    #[serde(default)]
    requests_per_minute: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(BTreeSet<String>),
}

impl OneOrMore {
    fn into_set(self) -> BTreeSet<String> {
        match self {
            Self::One(value) => [value].into(),
            Self::More(values) => values,
        }
    }
}

/// No key has a dot in it.
pub(super) fn looks_like_one(stated: &str) -> bool {
    stated.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The last part: unlike for any other token.
pub(super) fn signature(token: &str) -> &str {
    token.rsplit('.').next().unwrap_or_default()
}

/// # Errors
/// 401: not signed by a key in force, expired, or not of the shape; 503: keys are still being read.
pub(super) fn recognise(ring: &KeyRing, token: &str, now_ms: i64) -> Result<Recognised, Problem> {
    let wrong = || invalid("the token is not signed by a signing key of this deployment that is in force");
    let header = decode_header(token).map_err(|_| invalid("the token is no JWT"))?;
    let id = header.kid.ok_or_else(|| invalid("the token names no signing key in `kid`"))?;
    let (Some(secret), signer) = (ring.secret(), ring.signer(&id, now_ms)) else { return Err(wrong()) };
    let key = match signer {
        Lookup::Found(key) => key,
        Lookup::NotYet => return Err(not_yet()),
        Lookup::Unknown => return Err(wrong()),
    };
    // The algorithm is ours to choose, whatever the token says. Times are compared below, by the clock that was handed in.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let signing_secret = secret.signing_secret(&id);
    let token = decode::<Claims>(token, &DecodingKey::from_secret(signing_secret.as_bytes()), &validation);
    let claims = token
        .map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::Json(cause) => invalid(&format!("the token's claims: {cause}")),
            _ => wrong(),
        })?
        .claims;
    let lease = Lease { key: Some(id), ends_at_ms: Some(claims.exp.saturating_mul(1_000)) };
    grant(claims, &key.workspace, now_ms).map(|(grant, requests_per_minute)| Recognised {
        grant,
        lease,
        actor: key.prefix(),
        scopes: key.scopes.clone(),
        is_token: true,
        requests_per_minute,
    })
}

fn grant(claims: Claims, workspace: &str, now_ms: i64) -> Result<(Grant, Option<u32>), Problem> {
    if claims.exp.saturating_mul(1_000) <= now_ms {
        return Err(invalid("the token has expired"));
    }
    if claims.nbf.is_some_and(|begin| begin.saturating_mul(1_000) > now_ms) {
        return Err(invalid("the token is not valid yet"));
    }
    if claims.workspace.is_some_and(|named| named != workspace) {
        return Err(invalid("the token names another workspace than its signing key's"));
    }
    let rows: BTreeMap<_, _> = claims.filters.into_iter().map(|(name, values)| (name, values.into_set())).collect();
    if rows.len() > MOST_FILTERS || rows.values().map(BTreeSet::len).sum::<usize>() > MOST_VALUES {
        return Err(invalid("the token fixes too many dimensions or values"));
    }
    if rows.values().any(BTreeSet::is_empty) {
        return Err(invalid("a filter of the token allows no value at all"));
    }
    if rows.is_empty() && claims.metrics.is_none() {
        return Err(invalid("the token fixes neither `filters` nor `metrics`: use a key"));
    }
    if claims.requests_per_minute == Some(0) {
        return Err(invalid("the token allows no request a minute"));
    }
    Ok((Grant { workspace: workspace.to_owned(), metrics: claims.metrics, rows }, claims.requests_per_minute))
}
