//! Write keys: where a request states one, and whose it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use neonhub_schemas::access::{KeyRecord, Lookup, Scope};
use subtle::ConstantTimeEq;

use super::quota::KeyQuota;
use super::state::{Clock, Elapsed};
use crate::config::{ManagedKeys, WriteKey};

/// Whose events they are, and how many may come.
pub(super) struct KnownKey {
    pub(super) workspace: String,
    pub(super) quota: KeyQuota,
}

impl KnownKey {
    pub(super) fn new(key: WriteKey, elapsed: &Elapsed) -> Self {
        let quota = KeyQuota::new(key.events_per_second, key.burst, elapsed);
        Self { workspace: key.workspace, quota }
    }
}

/// Keys that people made are still being read: whether this is one cannot be told yet.
pub(super) struct NotYet;

/// The keys of the settings, and those that people made.
pub(super) struct WriteKeys {
    fixed: Vec<(String, Arc<KnownKey>)>,
    managed: ManagedKeys,
    /// Of managed keys that were used, by id: the revision, and the quota as it stands.
    used: Mutex<HashMap<String, (u64, Arc<KnownKey>)>>,
    clock: Clock,
    elapsed: Elapsed,
}

impl WriteKeys {
    pub(super) fn new(fixed: Vec<WriteKey>, managed: ManagedKeys, clock: &Clock, elapsed: &Elapsed) -> Self {
        let fixed = fixed.into_iter().map(|key| (key.key.clone(), Arc::new(KnownKey::new(key, elapsed)))).collect();
        Self { fixed, managed, used: Mutex::default(), clock: clock.clone(), elapsed: elapsed.clone() }
    }

    /// Looks at every key of the settings, whichever it is, so that the time taken tells nothing.
    pub(super) fn find(&self, stated: &str) -> Result<Option<Arc<KnownKey>>, NotYet> {
        let mut found = None;
        for (key, known) in &self.fixed {
            if bool::from(key.as_bytes().ct_eq(stated.as_bytes())) {
                found = Some(Arc::clone(known));
            }
        }
        if found.is_some() {
            return Ok(found);
        }
        let ring = self.managed.ring.read().unwrap_or_else(PoisonError::into_inner);
        match ring.find(stated, (self.clock)()) {
            Lookup::Found(key) if key.scopes.contains(&Scope::IngestWrite) => Ok(Some(self.of_managed(key))),
            Lookup::Found(_) | Lookup::Unknown => Ok(None),
            Lookup::NotYet => Err(NotYet),
        }
    }

    /// Whether those that people made are known.
    pub(super) fn are_read(&self) -> bool {
        self.managed.ring.read().unwrap_or_else(PoisonError::into_inner).is_complete()
    }

    fn of_managed(&self, key: &KeyRecord) -> Arc<KnownKey> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((revision, known)) = used.get(&key.id)
            && *revision == key.revision
        {
            return Arc::clone(known);
        }
        let events_per_second = key.events_per_second.unwrap_or(self.managed.events_per_second);
        let burst = match key.events_per_second {
            Some(own) => own.saturating_mul(2).max(LEAST_BURST),
            None => self.managed.burst,
        };
        let quota = KeyQuota::new(events_per_second, burst, &self.elapsed);
        let known = Arc::new(KnownKey { workspace: key.workspace.clone(), quota });
        used.insert(key.id.clone(), (key.revision, Arc::clone(&known)));
        known
    }
}

/// The key in the request's head: the user of Basic authentication, else `writeKey` in the query.
pub(crate) fn stated_in_head(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    basic_user(headers).or_else(|| {
        let mut parameters = form_urlencoded::parse(query?.as_bytes());
        parameters.find(|(name, _)| name == "writeKey").map(|(_, value)| value.into_owned())
    })
}

/// Events that a key with a quota of its own may send at once, at least: one batch of an SDK.
const LEAST_BURST: u32 = 100;

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
