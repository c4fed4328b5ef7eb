//! Bearer API keys, compared in constant time.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use subtle::ConstantTimeEq;

use crate::config::ApiKey;
use crate::problem::Problem;
use crate::state::ApiState;

/// The workspace that the request's key opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub workspace: String,
}

/// The same, also from `?access_token=`: a browser's `WebSocket` and `EventSource` cannot send headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserCaller {
    pub workspace: String,
}

/// Looks at every key, so that the time taken tells nothing about which one came close.
#[must_use]
pub fn workspace_of(keys: &[ApiKey], token: &str) -> Option<String> {
    let mut found = None;
    for key in keys {
        if bool::from(key.key.as_bytes().ct_eq(token.as_bytes())) {
            found = Some(key.workspace.clone());
        }
    }
    found
}

fn unauthorized(detail: &str, challenge: &'static str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, detail)
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn authenticate(state: &ApiState, token: Option<&str>) -> Result<String, Problem> {
    let token = token
        .ok_or_else(|| unauthorized("send an API key as `Authorization: Bearer …`", r#"Bearer realm="neonhub""#))?;
    workspace_of(&state.config().keys, token)
        .ok_or_else(|| unauthorized("the API key is not known", r#"Bearer realm="neonhub", error="invalid_token""#))
}

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        Ok(Self { workspace: authenticate(state, bearer(parts))? })
    }
}

impl FromRequestParts<ApiState> for BrowserCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let from_query = serde_query_token(parts);
        let token = bearer(parts).map(str::to_owned).or(from_query);
        Ok(Self { workspace: authenticate(state, token.as_deref())? })
    }
}

fn serde_query_token(parts: &Parts) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Token {
        access_token: Option<String>,
    }
    axum::extract::Query::<Token>::try_from_uri(&parts.uri).ok()?.0.access_token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_opens_its_workspace() {
        let key = |workspace: &str, key: &str| ApiKey { workspace: workspace.into(), key: key.into() };
        let keys = [key("acme", "one"), key("other", "two")];
        assert_eq!(workspace_of(&keys, "two").as_deref(), Some("other"));
        for wrong in ["", "tw", "twoo", "ONE"] {
            assert_eq!(workspace_of(&keys, wrong), None);
        }
    }
}
