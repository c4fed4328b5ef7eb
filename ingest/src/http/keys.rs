//! Write keys: where a request states one, and whose it is.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::quota::KeyQuota;
use super::state::Clock;
use crate::config::WriteKey;

pub(super) struct KnownKey {
    key: String,
    pub(super) workspace: String,
    pub(super) quota: KeyQuota,
}

impl KnownKey {
    pub(super) fn new(key: WriteKey, clock: &Clock) -> Self {
        let quota = KeyQuota::new(key.events_per_second, key.burst, clock);
        Self { key: key.key, workspace: key.workspace, quota }
    }
}

pub(super) struct KeyRing(Vec<KnownKey>);

impl KeyRing {
    pub(super) fn new(keys: Vec<WriteKey>, clock: &Clock) -> Self {
        Self(keys.into_iter().map(|key| KnownKey::new(key, clock)).collect())
    }

    /// Looks at every key, whichever it is, so that the time taken tells nothing.
    pub(super) fn find(&self, stated: &str) -> Option<&KnownKey> {
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.key.as_bytes().ct_eq(stated.as_bytes())) {
                found = Some(known);
            }
        }
        found
    }
}

/// The key in the request's head: the user of Basic authentication, else `writeKey` in the query.
pub(crate) fn stated_in_head(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    basic_user(headers).or_else(|| {
        let mut parameters = form_urlencoded::parse(query?.as_bytes());
        parameters.find(|(name, _)| name == "writeKey").map(|(_, value)| value.into_owned())
    })
}

const LONGEST_CREDENTIALS: usize = 768;

fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    // Longer ones are nobody's: a key has at most 512 characters.
    let mut decoded = [0; LONGEST_CREDENTIALS];
    let length = STANDARD.decode_slice(encoded.trim(), &mut decoded).ok()?;
    let decoded = std::str::from_utf8(&decoded[..length]).ok()?;
    let user = decoded.split_once(':').map_or(decoded, |(user, _)| user);
    (!user.is_empty()).then(|| user.to_owned())
}
