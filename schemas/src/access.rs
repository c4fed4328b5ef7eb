//! Pure: no I/O, no clock, no async.
//!
//! Keys that people make: what stands on `control` about them, how one is recognised, and what it may do. A key is
//! `nhk_`, its id and a secret; only an HMAC-SHA-256 of it is kept (RFC 2104), under a secret of the deployment, so that
//! whoever reads the store or the topic can neither use a key nor try one out.

mod ring;
mod secret;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use ring::{KeyRing, Lookup, SharedKeyRing};
pub use secret::{KeySecret, NewKey, SHORTEST_SECRET, WeakSecret};

use crate::codec::header;
use crate::record::{Headers, NewRecord};
use crate::time;
use crate::topics::Topic;

/// One thing that a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
pub enum Scope {
    /// Send events.
    #[serde(rename = "ingest:write")]
    IngestWrite,
    /// Read metrics and their live windows.
    #[serde(rename = "metrics:read")]
    MetricsRead,
    /// Read raw events.
    #[serde(rename = "events:read")]
    EventsRead,
    /// Change metric definitions.
    #[serde(rename = "definitions:write")]
    DefinitionsWrite,
    /// Make and revoke keys, and read the audit log.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 5] =
        [Self::IngestWrite, Self::MetricsRead, Self::EventsRead, Self::DefinitionsWrite, Self::Admin];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IngestWrite => "ingest:write",
            Self::MetricsRead => "metrics:read",
            Self::EventsRead => "events:read",
            Self::DefinitionsWrite => "definitions:write",
            Self::Admin => "admin",
        }
    }
}

/// What a key is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// It is sent with requests.
    #[default]
    Bearer,
    /// It signs row-scoped tokens (JWT, HS256) and is never sent itself.
    TokenSigning,
}

/// A record on `control`: the newest word on a key. A revoked one stays, so that its id is never given twice.
///
/// No field is called `name`: an older process takes no record with one for a metric definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct KeyRecord {
    pub workspace: String,
    /// 16 hexadecimal digits, unique in the deployment.
    pub id: String,
    /// Rises with every change.
    pub revision: u64,
    /// For people.
    pub label: String,
    #[serde(default)]
    pub purpose: Purpose,
    pub scopes: BTreeSet<Scope>,
    /// HMAC-SHA-256 of the whole key, in hexadecimal; empty for keys that sign.
    pub digest: String,
    /// Quota of an `ingest:write` key; absent: the deployment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u32>,
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub created_at: i64,
    /// Milliseconds since the epoch; from then on the key opens nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
    /// Milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at_ms: Option<i64>,
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub updated_at: i64,
}

impl KeyRecord {
    /// The record key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}|key|{}", self.workspace, self.id)
    }

    #[must_use]
    pub fn is_in_force(&self, now_ms: i64) -> bool {
        self.revoked_at_ms.is_none() && self.expires_at_ms.is_none_or(|end| now_ms < end)
    }

    #[must_use]
    pub fn to_record(&self) -> NewRecord {
        NewRecord {
            topic: Topic::Control,
            partition: None,
            key: Bytes::from(self.key()),
            // A struct of strings and numbers always has a JSON form.
            value: Some(Bytes::from(serde_json::to_vec(self).unwrap_or_default())),
            headers: Headers::new()
                .with(header::SCHEMA, Bytes::from_static(b"1"))
                .with(header::WORKSPACE, Bytes::from(self.workspace.clone())),
            timestamp_ms: self.updated_at,
        }
    }
}
