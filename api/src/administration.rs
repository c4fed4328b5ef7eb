//! How something that is administered changes: the store decides (compare and set on the revision), the audit log and
//! `control` are told, and a change is answered when all have it. A crash in between is healed by
//! [`Administration::reconcile`].

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::StatusCode;
use bytes::Bytes;
use neonhub_schemas::audit::AuditRecord;
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};

use crate::control::{ControlError, ControlLog};
use crate::problem::Problem;
use crate::state::Clock;
use crate::store::rows::{Administered, read};
use crate::store::{Store, StoreError};
use crate::telemetry::Telemetry;

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Away(detail) => {
                tracing::warn!(%detail, "the store is away");
                Self::unavailable("the store does not answer", 2)
            }
            StoreError::Damaged(detail) => Self::internal(&detail),
        }
    }
}

impl From<ControlError> for Problem {
    fn from(error: ControlError) -> Self {
        tracing::warn!(%error, "`control` is away");
        Self::unavailable("the log does not answer; the same request may be repeated", 2)
    }
}

/// For the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The key that does it, by its visible beginning, or `bootstrap`.
    pub actor: &'a str,
    /// `definition.put`, `key.revoke`…
    pub action: &'a str,
}

/// Of what a crash kept from being told; who did it is not known any more.
const RECONCILED: Change<'_> = Change { actor: "reconciliation", action: "republish" };

pub struct Administration {
    store: Arc<dyn Store>,
    control: Arc<dyn ControlLog>,
    clock: Clock,
    telemetry: Arc<Telemetry>,
    /// Holds while a change goes to the store and then to `control`, so that the two agree on the order.
    changing: Mutex<()>,
}

impl Administration {
    #[must_use]
    pub fn new(store: Arc<dyn Store>, control: Arc<dyn ControlLog>, clock: Clock, telemetry: Arc<Telemetry>) -> Self {
        Self { store, control, clock, telemetry, changing: Mutex::new(()) }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.clock)()
    }

    /// # Errors
    /// The store does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }

    /// To be held from reading what is there to having changed it.
    pub async fn begin_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn get<R: Administered>(&self, workspace: &str, name: &str) -> Result<Option<R>, StoreError> {
        self.store.get(R::TABLE, workspace, name).await?.map(read).transpose()
    }

    /// # Errors
    /// The store does not answer.
    pub async fn list<R: Administered>(&self, workspace: &str) -> Result<Vec<R>, StoreError> {
        self.store.list(R::TABLE, workspace).await?.into_iter().map(read).collect()
    }

    /// # Errors
    /// The store does not answer.
    pub async fn list_all<R: Administered>(&self) -> Result<Vec<R>, StoreError> {
        self.store.list_all(R::TABLE).await?.into_iter().map(read).collect()
    }

    /// Writes the next revision, and tells of it.
    ///
    /// # Errors
    /// 409: somebody else changed it at the same time. 503: repeat the request.
    pub async fn write<R: Administered>(&self, record: &R, change: Change<'_>) -> Result<(), Problem> {
        self.store(record).await?;
        self.tell(record, change).await
    }

    /// Writes the next revision.
    ///
    /// # Errors
    /// 409: somebody else changed it at the same time. 503: read before repeating.
    pub async fn store<R: Administered>(&self, record: &R) -> Result<(), Problem> {
        let expected = record.revision().checked_sub(1).filter(|former| *former > 0);
        let row = record.to_row().map_err(|error| Problem::internal(&error))?;
        if !self.store.put_if(R::TABLE, &row, expected).await? {
            let detail = format!("`{}` was changed by somebody else at the same time: read it again", row.name);
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        Ok(())
    }

    /// Tells of a revision that the store has. The audit log comes first: what `control` has stands there too.
    ///
    /// # Errors
    /// The log does not answer.
    pub async fn tell<R: Administered>(&self, record: &R, change: Change<'_>) -> Result<(), Problem> {
        let of_control = record.to_control();
        let audit = AuditRecord {
            id: format!("{}|{}", String::from_utf8_lossy(&of_control.key), record.revision()),
            workspace: record.workspace().to_owned(),
            at: record.updated_at(),
            actor: change.actor.to_owned(),
            action: change.action.to_owned(),
            resource: record.resource(),
            revision: record.revision(),
            state: record.to_audit().map_err(|error| Problem::internal(&error))?,
        };
        self.control.append(audit.to_record()).await?;
        Ok(self.control.append(of_control).await?)
    }

    /// Tells what the store has and `control` lacks; returns how many.
    ///
    /// # Errors
    /// The store or the log does not answer.
    pub async fn reconcile<R: Administered>(&self) -> Result<usize, Problem> {
        let _changing = self.begin_change().await;
        // `control` first: whatever another process changes meanwhile is then seen in the store, and at worst published
        // twice, never set back.
        let published = self.published().await?;
        let mut count = 0;
        for record in self.list_all::<R>().await? {
            // The last word on `control` counts, whatever stood there before: that is what compaction keeps.
            if published.get(&record.to_control().key) != Some(&record.revision()) {
                // Another process may have changed it since the list was read, and told of it: that must stay the last word.
                let row = record.to_row().map_err(|error| Problem::internal(&error))?;
                let newest = self.store.get(R::TABLE, &row.workspace, &row.name).await?;
                if newest.is_none_or(|newest| newest.revision != record.revision()) {
                    continue;
                }
                self.tell(&record, RECONCILED).await?;
                self.telemetry.republished.inc();
                count += 1;
            }
        }
        Ok(count)
    }

    async fn published(&self) -> Result<HashMap<Bytes, u64>, ControlError> {
        #[derive(Deserialize)]
        struct Revision {
            revision: u64,
        }
        let records = self.control.read_all().await?;
        let revision = |value: &[u8]| serde_json::from_slice::<Revision>(value).ok();
        Ok(records.into_iter().filter_map(|(key, value)| Some((key, revision(&value)?.revision))).collect())
    }
}
