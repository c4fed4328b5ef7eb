//! Keys that people make: created, listed, rotated, revoked. A key is shown once; what is kept opens nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use axum::http::StatusCode;
use neonhub_schemas::access::{KeyRecord, KeySecret, NewKey, Purpose, Scope, SharedKeyRing};

use crate::administration::{Administration, Change};
use crate::problem::Problem;

/// 128 random bits; `None`: there are none, and no key can be made.
pub type Random = Arc<dyn Fn() -> Option<u128> + Send + Sync>;

/// Keys of one workspace that are in force at one time.
const MOST_KEYS: usize = 1_000;

pub struct Keys {
    administration: Arc<Administration>,
    ring: SharedKeyRing,
    random: Random,
}

/// What a key is to be.
#[derive(Clone, Debug)]
pub struct KeyWish {
    pub label: String,
    pub purpose: Purpose,
    pub scopes: BTreeSet<Scope>,
    pub events_per_second: Option<u32>,
    pub expires_at_ms: Option<i64>,
}

/// A key that was just made.
pub struct Made {
    pub record: KeyRecord,
    /// The key, or what a signing key signs with: nobody can show it again.
    pub secret: String,
}

impl Keys {
    #[must_use]
    pub fn new(administration: Arc<Administration>, ring: SharedKeyRing, random: Random) -> Self {
        Self { administration, ring, random }
    }

    /// Filled from `control`.
    #[must_use]
    pub fn ring(&self) -> &SharedKeyRing {
        &self.ring
    }

    /// Whether `control` has been read to its end.
    #[must_use]
    pub fn are_read(&self) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).is_complete()
    }

    fn secret(&self) -> Result<KeySecret, Problem> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.secret().cloned().ok_or_else(|| {
            let detail = "this deployment has no NEONHUB_KEY_SECRET, so it has only its bootstrap keys";
            Problem::new(StatusCode::CONFLICT, detail)
        })
    }

    /// The workspace's, revoked ones included, newest first.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self, workspace: &str) -> Result<Vec<KeyRecord>, Problem> {
        let mut records: Vec<KeyRecord> = self.administration.list(workspace).await?;
        records.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(records)
    }

    /// # Errors
    /// 400 names the field; 409 without a deployment secret, or with too many keys; 503.
    pub async fn create(&self, workspace: &str, wish: KeyWish, actor: &str) -> Result<Made, Problem> {
        let secret = self.secret()?;
        let _changing = self.administration.begin_change().await;
        let now_ms = self.administration.now_ms();
        check(&wish, now_ms)?;
        self.check_count(workspace, now_ms).await?;
        self.make(&secret, workspace, wish, Change { actor, action: "key.create" }).await
    }

    async fn check_count(&self, workspace: &str, now_ms: i64) -> Result<(), Problem> {
        let known = self.list(workspace).await?;
        if known.iter().filter(|key| key.is_in_force(now_ms)).count() >= MOST_KEYS {
            let detail = format!("the workspace has {MOST_KEYS} keys in force: revoke some first");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Ok(())
    }

    async fn make(
        &self,
        secret: &KeySecret,
        workspace: &str,
        wish: KeyWish,
        change: Change<'_>,
    ) -> Result<Made, Problem> {
        let bits = || (self.random)().ok_or_else(|| Problem::internal(&"the operating system gives no random bits"));
        let [id_bits, first, second] = [bits()?, bits()?, bits()?];
        #[expect(clippy::cast_possible_truncation, reason = "64 of 128 random bits")]
        let made = NewKey::new(id_bits as u64, [first, second]);
        let now_ms = self.administration.now_ms();
        let (shown, digest) = match wish.purpose {
            Purpose::Bearer => (made.key.clone(), secret.digest(&made.key)),
            Purpose::TokenSigning => (secret.signing_secret(&made.id), String::new()),
        };
        let record = KeyRecord {
            workspace: workspace.to_owned(),
            id: made.id,
            revision: 1,
            label: wish.label,
            purpose: wish.purpose,
            scopes: wish.scopes,
            digest,
            events_per_second: wish.events_per_second,
            created_at: now_ms,
            expires_at_ms: wish.expires_at_ms,
            revoked_at_ms: None,
            updated_at: now_ms,
        };
        self.write(&record, change).await?;
        Ok(Made { record, secret: shown })
    }

    /// Makes a key like this one; this one stays good for `overlap_ms`, or as long as it was to stay anyway.
    ///
    /// # Errors
    /// 404; 409 without a deployment secret, or for a key that is not in force; 503.
    pub async fn rotate(&self, workspace: &str, id: &str, overlap_ms: i64, actor: &str) -> Result<Made, Problem> {
        let secret = self.secret()?;
        let _changing = self.administration.begin_change().await;
        let former = self.find(workspace, id).await?;
        let now_ms = self.administration.now_ms();
        if !former.is_in_force(now_ms) {
            return Err(Problem::new(StatusCode::CONFLICT, "the key is expired or revoked: create another"));
        }
        self.check_count(workspace, now_ms).await?;
        let wish = KeyWish {
            label: former.label.clone(),
            purpose: former.purpose,
            scopes: former.scopes.clone(),
            events_per_second: former.events_per_second,
            // What was to end at a day still ends then.
            expires_at_ms: former.expires_at_ms,
        };
        let change = Change { actor, action: "key.rotate" };
        let made = self.make(&secret, workspace, wish, change).await?;
        let end = now_ms.saturating_add(overlap_ms);
        let expires_at_ms = Some(former.expires_at_ms.map_or(end, |sooner| sooner.min(end)));
        let expiring = KeyRecord { revision: former.revision + 1, expires_at_ms, updated_at: now_ms, ..former };
        self.write(&expiring, change).await?;
        Ok(made)
    }

    /// From now on the key opens nothing. A revoked key may be revoked again.
    ///
    /// # Errors
    /// 404, 503.
    pub async fn revoke(&self, workspace: &str, id: &str, actor: &str) -> Result<(), Problem> {
        let _changing = self.administration.begin_change().await;
        let record = self.find(workspace, id).await?;
        let change = Change { actor, action: "key.revoke" };
        if record.revoked_at_ms.is_some() {
            // An earlier answer may have been lost between the store and `control`.
            self.ring.write().unwrap_or_else(PoisonError::into_inner).take(record.clone());
            return self.administration.tell(&record, change).await;
        }
        let now_ms = self.administration.now_ms();
        let revoked =
            KeyRecord { revision: record.revision + 1, revoked_at_ms: Some(now_ms), updated_at: now_ms, ..record };
        self.write(&revoked, change).await
    }

    async fn find(&self, workspace: &str, id: &str) -> Result<KeyRecord, Problem> {
        let record = self.administration.get(workspace, id).await?;
        record.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("`{id}` is no key of this workspace")))
    }

    async fn write(&self, record: &KeyRecord, change: Change<'_>) -> Result<(), Problem> {
        self.administration.store(record).await?;
        // Here it counts at once, whether or not the log answers; elsewhere when `control` has been read.
        self.ring.write().unwrap_or_else(PoisonError::into_inner).take(record.clone());
        self.administration.tell(record, change).await
    }

    /// Tells what the store has and `control` lacks; returns how many.
    ///
    /// # Errors
    /// The store or the log does not answer.
    pub async fn reconcile(&self) -> Result<usize, Problem> {
        self.administration.reconcile::<KeyRecord>().await
    }
}

fn check(wish: &KeyWish, now_ms: i64) -> Result<(), Problem> {
    let label = wish.label.trim();
    if label.is_empty() || wish.label.chars().count() > 100 || wish.label.chars().any(char::is_control) {
        return Err(Problem::field("label", "1 to 100 characters that can be printed"));
    }
    if wish.scopes.is_empty() {
        return Err(Problem::field("scopes", "a key without a scope opens nothing"));
    }
    let reads_metrics = BTreeSet::from([Scope::MetricsRead]);
    if wish.purpose == Purpose::TokenSigning && wish.scopes != reads_metrics {
        return Err(Problem::field("scopes", "tokens read metrics: a signing key has `metrics:read` and nothing else"));
    }
    // A write key is known to every browser of a site.
    if wish.scopes.contains(&Scope::IngestWrite) && wish.scopes.len() > 1 {
        return Err(Problem::field("scopes", "a key that may write events can do nothing else"));
    }
    if wish.events_per_second.is_some() && !wish.scopes.contains(&Scope::IngestWrite) {
        return Err(Problem::field("events_per_second", "only an `ingest:write` key has a quota of events"));
    }
    if wish.events_per_second == Some(0) {
        return Err(Problem::field("events_per_second", "at least one event a second"));
    }
    if wish.expires_at_ms.is_some_and(|end| end <= now_ms) {
        return Err(Problem::field("expires_at", "lies in the past"));
    }
    Ok(())
}
