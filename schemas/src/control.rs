//! Pure: no I/O, no clock, no async.
//!
//! What goes over `control` and `metrics.activations`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::header;
use crate::event::Source;
use crate::metric::DefinitionText;
use crate::record::{Headers, NewRecord};
use crate::time;
use crate::topics::Topic;

/// A record on `control`: the newest word on a metric definition. A deleted one stays as a record with
/// `definition: null`, so that its revision goes on rising.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DefinitionRecord {
    pub workspace: String,
    pub name: String,
    /// Rises with every change. It is also the number of the series of windows that the definition writes.
    pub revision: u64,
    pub definition: Option<DefinitionText>,
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub updated_at: i64,
}

impl DefinitionRecord {
    /// The record key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}|metric|{}", self.workspace, self.name)
    }

    #[must_use]
    pub fn to_record(&self) -> NewRecord {
        NewRecord {
            topic: Topic::Control,
            partition: None,
            key: Bytes::from(self.key()),
            // What was read as JSON has a JSON form.
            value: Some(Bytes::from(serde_json::to_vec(self).unwrap_or_default())),
            headers: Headers::new()
                .with(header::SCHEMA, Bytes::from_static(b"1"))
                .with(header::WORKSPACE, Bytes::from(self.workspace.clone())),
            timestamp_ms: self.updated_at,
        }
    }
}

/// A record on `metrics.activations`: in this upstream partition, the definition counts the events in
/// `[from_offset, until_offset)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Activation {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub source: Source,
    pub partition: u32,
    pub from_offset: u64,
    /// Absent while the definition is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_offset: Option<u64>,
    /// What it counts, so that anyone can count again.
    pub definition: DefinitionText,
}

impl Activation {
    /// The record key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}|{}|{}|{}|{}", self.workspace, self.metric, self.series, self.source.as_str(), self.partition)
    }
}

/// The state of the merge stage that is not in its windows: how far each upstream partition has come. A record on
/// `metrics.changelog`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct UpstreamWatermarks {
    pub upstreams: Vec<crate::window::PartialHeader>,
    /// Offset on `metrics.partials` of the last word that is in them. What is read again up to there says nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<u64>,
}

/// A record on `refine.changelog`: whose anonymous id this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct IdentityLink {
    pub workspace: String,
    pub anonymous_id: String,
    pub user_id: String,
}

/// A heartbeat on `events.*` (header `type: heartbeat`): the raw partition has been read to its end. It carries no
/// event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Heartbeat {
    pub idle: bool,
}
