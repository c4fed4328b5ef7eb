//! Pure: no I/O, no clock, no async.
//!
//! The audit log: who did what, when, to which resource.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::header;
use crate::record::{Headers, NewRecord};
use crate::time;
use crate::topics::Topic;

/// A record on `audit.log`. A change that is published twice after a crash has two records with one id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct AuditRecord {
    /// Deterministic: the resource and its revision.
    pub id: String,
    pub workspace: String,
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub at: i64,
    /// The key that did it, by its visible beginning; `bootstrap`; or `reconciliation`, where a crash lost who it was.
    pub actor: String,
    /// `definition.put`, `definition.delete`, `key.create`, `key.rotate`, `key.revoke`.
    pub action: String,
    /// `metric/orders`, `key/00a1…`.
    pub resource: String,
    pub revision: u64,
    /// What the resource is from now on, as JSON text; no secret and no digest of one.
    pub state: String,
}

impl AuditRecord {
    #[must_use]
    pub fn to_record(&self) -> NewRecord {
        NewRecord {
            topic: Topic::AuditLog,
            partition: None,
            key: Bytes::from(format!("{}|{}", self.workspace, self.id)),
            // A struct of strings and numbers always has a JSON form.
            value: Some(Bytes::from(serde_json::to_vec(self).unwrap_or_default())),
            headers: Headers::new()
                .with(header::SCHEMA, Bytes::from_static(b"1"))
                .with(header::WORKSPACE, Bytes::from(self.workspace.clone())),
            timestamp_ms: self.at,
        }
    }
}
