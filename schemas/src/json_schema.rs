//! Pure: no I/O, no clock, no async.
//!
//! JSON Schemas of what goes over the wire, made from the types; the files in `json/` are the published copy.

use schemars::{Schema, schema_for};

use crate::access::KeyRecord;
use crate::audit::AuditRecord;
use crate::control::{Activation, DefinitionRecord, Heartbeat, IdentityLink, UpstreamWatermarks};
use crate::dead_letter::DeadLetter;
use crate::event::{Kind, Source};
use crate::metric::DefinitionText;
use crate::micros::Micros;
use crate::window::{Partial, WindowUpsert};

/// The event as it stands on `raw.*` and `events.*`. The codec is written by hand; this states its shape.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct EventRecord {
    schema: u32,
    workspace: String,
    message_id: String,
    source: Source,
    kind: Kind,
    name: String,
    user_id: Option<String>,
    anonymous_id: Option<String>,
    group_id: Option<String>,
    previous_id: Option<String>,
    session_id: Option<String>,
    campaign: Option<String>,
    platform: Option<String>,
    value: Option<Micros>,
    /// RFC 3339, UTC, milliseconds.
    timestamp: String,
    /// RFC 3339, UTC, milliseconds.
    received_at: String,
    properties: serde_json::Map<String, serde_json::Value>,
    context: serde_json::Map<String, serde_json::Value>,
}

/// Name and schema of each.
#[must_use]
pub fn all() -> Vec<(&'static str, Schema)> {
    vec![
        ("event", schema_for!(EventRecord)),
        ("dead-letter", schema_for!(DeadLetter)),
        ("partial", schema_for!(Partial)),
        ("window", schema_for!(WindowUpsert)),
        ("definition", schema_for!(DefinitionText)),
        ("definition-record", schema_for!(DefinitionRecord)),
        ("key-record", schema_for!(KeyRecord)),
        ("audit-record", schema_for!(AuditRecord)),
        ("activation", schema_for!(Activation)),
        ("upstream-watermarks", schema_for!(UpstreamWatermarks)),
        ("identity-link", schema_for!(IdentityLink)),
        ("heartbeat", schema_for!(Heartbeat)),
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// `UPDATE_SCHEMAS=1 cargo test -p neonhub-schemas` rewrites the files.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch for people who change the contract")]
    fn the_published_files_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("json");
        let update = std::env::var_os("UPDATE_SCHEMAS").is_some();
        for (name, schema) in super::all() {
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            let file = folder.join(format!("{name}.schema.json"));
            if update {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&file, &text).unwrap();
            }
            let published = std::fs::read_to_string(&file).unwrap_or_default();
            assert_eq!(
                published, text,
                "{name}: run UPDATE_SCHEMAS=1 cargo test -p neonhub-schemas and review the change"
            );
        }
    }
}
