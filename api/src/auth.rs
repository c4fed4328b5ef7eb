//! Who asks, and what for: the deployment's bootstrap keys, keys that people made, and row-scoped tokens. A route states the
//! scope that it needs in its argument, `Caller<MetricsRead>`; what may be seen with a token goes on to the one place where
//! queries are built, as a [`Grant`].

mod limits;
mod token;

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::PoisonError;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use neonhub_schemas::access::{Lookup, Scope};
use subtle::ConstantTimeEq;

pub use limits::{Left, RateLimits};
pub(crate) use limits::{LeftOfQuota, over_limit};

use crate::config::ApiKey;
use crate::problem::Problem;
use crate::state::ApiState;

/// What may be read: a workspace, and of it what a row-scoped token leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub workspace: String,
    /// `None`: every metric.
    pub metrics: Option<BTreeSet<String>>,
    /// By dimension: the values that may be seen. All must hold.
    pub rows: BTreeMap<String, BTreeSet<String>>,
}

impl Grant {
    #[must_use]
    pub fn whole(workspace: &str) -> Self {
        Self { workspace: workspace.to_owned(), ..Self::default() }
    }

    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.metrics.is_none() && self.rows.is_empty()
    }

    #[must_use]
    pub fn shows(&self, metric: &str) -> bool {
        self.metrics.as_ref().is_none_or(|metrics| metrics.contains(metric))
    }
}

/// A scope as a type.
pub trait Needs {
    const SCOPE: Scope;
    /// Whether the route serves row-scoped tokens, too.
    const TAKES_TOKENS: bool = false;
}

macro_rules! scopes {
    ($($(#[$about:meta])* $name:ident = $scope:ident $(, $takes_tokens:literal)?;)*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug)]
            pub struct $name;

            impl Needs for $name {
                const SCOPE: Scope = Scope::$scope;
                $(const TAKES_TOKENS: bool = $takes_tokens;)?
            }
        )*
    };
}

scopes! {
    MetricsRead = MetricsRead, true;
    /// Of what a row-scoped token does not see.
    DefinitionsRead = MetricsRead;
    EventsRead = EventsRead;
    DefinitionsWrite = DefinitionsWrite;
    Admin = Admin;
}

/// For how long a caller may go on: what a live stream looks at again and again.
#[derive(Clone, Debug, Default)]
pub struct Lease {
    /// The id of the key, or of the one that signed the token; none of a bootstrap key.
    key: Option<String>,
    /// Milliseconds since the epoch; of a token.
    ends_at_ms: Option<i64>,
}

impl Lease {
    #[must_use]
    pub fn is_in_force(&self, state: &ApiState) -> bool {
        let now_ms = state.now_ms();
        let ring = state.keys().ring().read().unwrap_or_else(PoisonError::into_inner);
        self.key.as_ref().is_none_or(|id| ring.is_in_force(id, now_ms))
            && self.ends_at_ms.is_none_or(|end| now_ms < end)
    }

    /// Waits until it is over.
    pub async fn ended(&self, state: &ApiState) {
        const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
        while self.is_in_force(state) {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

/// Whose quota of requests counts, and how large it is a minute.
#[derive(Clone, Debug)]
pub struct Allowance {
    whose: String,
    per_minute: u32,
}

impl Allowance {
    /// # Errors
    /// 429: it is used up.
    pub fn take(&self, state: &ApiState) -> Result<Option<Left>, Problem> {
        state.rate_limits().take(&self.whose, self.per_minute)
    }
}

/// Whoever asks may do what `S` says.
#[derive(Clone, Debug)]
pub struct Caller<S> {
    pub grant: Grant,
    pub lease: Lease,
    /// One of it has been taken.
    pub allowance: Allowance,
    /// For the audit log: a key's visible beginning, or `bootstrap`.
    pub actor: String,
    scope: PhantomData<S>,
}

impl<S> Caller<S> {
    #[must_use]
    pub fn workspace(&self) -> &str {
        &self.grant.workspace
    }
}

/// The same, also from `?access_token=`: a browser's `WebSocket` and `EventSource` cannot send headers.
#[derive(Clone, Debug)]
pub struct BrowserCaller<S>(pub Caller<S>);

/// A key or token that was recognised.
struct Recognised {
    grant: Grant,
    lease: Lease,
    actor: String,
    scopes: BTreeSet<Scope>,
    is_token: bool,
    /// Of a token.
    requests_per_minute: Option<u32>,
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

fn invalid(detail: &str) -> Problem {
    unauthorized(detail, r#"Bearer realm="neonhub", error="invalid_token""#)
}

fn not_yet() -> Problem {
    Problem::unavailable("keys are still being read, or this process has no NEONHUB_KEY_SECRET; try again soon", 1)
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn recognise(state: &ApiState, stated: &str) -> Result<Recognised, Problem> {
    if let Some(workspace) = workspace_of(&state.config().keys, stated) {
        return Ok(Recognised {
            grant: Grant::whole(&workspace),
            lease: Lease::default(),
            actor: "bootstrap".to_owned(),
            // It reads and administers; what writes events is the write key.
            scopes: Scope::ALL.into_iter().filter(|scope| *scope != Scope::IngestWrite).collect(),
            is_token: false,
            requests_per_minute: None,
        });
    }
    let now_ms = state.now_ms();
    let ring = state.keys().ring().read().unwrap_or_else(PoisonError::into_inner);
    if token::looks_like_one(stated) {
        return token::recognise(&ring, stated, now_ms);
    }
    match ring.find(stated, now_ms) {
        Lookup::Found(key) => Ok(Recognised {
            grant: Grant::whole(&key.workspace),
            lease: Lease { key: Some(key.id.clone()), ends_at_ms: key.expires_at_ms },
            actor: key.prefix(),
            scopes: key.scopes.clone(),
            is_token: false,
            requests_per_minute: None,
        }),
        Lookup::Unknown => Err(invalid("the API key is not known, or no longer")),
        Lookup::NotYet => Err(not_yet()),
    }
}

fn authenticate<S: Needs>(state: &ApiState, parts: &Parts, stated: Option<&str>) -> Result<Caller<S>, Problem> {
    let stated = stated
        .ok_or_else(|| unauthorized("send an API key as `Authorization: Bearer …`", r#"Bearer realm="neonhub""#))?;
    let found = recognise(state, stated)?;
    // Of a token its own quota counts, of everything else that of the key.
    let per_minute = found.requests_per_minute.unwrap_or(state.config().requests_per_minute);
    let whose = if found.is_token { token::signature(stated) } else { &found.actor };
    let allowance = Allowance { whose: whose.to_owned(), per_minute };
    if let (Some(left), Some(told)) = (allowance.take(state)?, parts.extensions.get::<LeftOfQuota>()) {
        told.tell(left);
    }
    if !found.scopes.contains(&S::SCOPE) {
        let detail = format!("this key lacks the scope `{}`", S::SCOPE.as_str());
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    if found.is_token && !S::TAKES_TOKENS {
        return Err(Problem::new(StatusCode::FORBIDDEN, "a row-scoped token reads metrics and nothing else"));
    }
    Ok(Caller { grant: found.grant, lease: found.lease, allowance, actor: found.actor, scope: PhantomData })
}

impl<S: Needs> FromRequestParts<ApiState> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        authenticate(state, parts, bearer(parts))
    }
}

impl<S: Needs> FromRequestParts<ApiState> for BrowserCaller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        let from_query = token_in_query(parts);
        let stated = bearer(parts).map(str::to_owned).or(from_query);
        authenticate(state, parts, stated.as_deref()).map(Self)
    }
}

fn token_in_query(parts: &Parts) -> Option<String> {
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
