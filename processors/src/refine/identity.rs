//! Pure: no I/O, no clock, no async.
//!
//! Identity: whose an anonymous id is. `identify` with both ids and `alias` say so; later events that carry the anonymous
//! id only get the user's.

use bytes::Bytes;
use hashbrown::HashMap;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::IdentityLink;
use neonhub_schemas::event::{Envelope, Kind};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;

/// Links by workspace and anonymous id.
#[derive(Debug, Default)]
pub struct Identities {
    users: HashMap<String, String>,
}

impl Identities {
    /// What an event teaches: the link, when it is new.
    pub fn learn(&mut self, event: &Envelope<'_>) -> Option<IdentityLink> {
        let anonymous_id = match event.kind {
            Kind::Alias => event.previous_id.as_deref(),
            _ => event.anonymous_id.as_deref(),
        }?;
        let user_id = event.user_id.as_deref()?;
        if anonymous_id.is_empty() || user_id.is_empty() || anonymous_id == user_id {
            return None;
        }
        let known = self.users.insert(link_key(&event.workspace, anonymous_id), user_id.to_owned());
        (known.as_deref() != Some(user_id)).then(|| IdentityLink {
            workspace: event.workspace.clone().into_owned(),
            anonymous_id: anonymous_id.to_owned(),
            user_id: user_id.to_owned(),
        })
    }

    #[must_use]
    pub fn user_of(&self, workspace: &str, anonymous_id: &str) -> Option<&str> {
        self.users.get(&link_key(workspace, anonymous_id)).map(String::as_str)
    }

    pub fn restore(&mut self, link: IdentityLink) {
        self.users.insert(link_key(&link.workspace, &link.anonymous_id), link.user_id);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }
}

fn link_key(workspace: &str, anonymous_id: &str) -> String {
    format!("{workspace}|{anonymous_id}")
}

/// The changelog's record, in the partition of the task that learned it.
#[must_use]
pub fn link_record(link: &IdentityLink, partition: u32, timestamp_ms: i64) -> NewRecord {
    NewRecord {
        topic: Topic::RefineChangelog,
        partition: Some(partition),
        key: Bytes::from(link_key(&link.workspace, &link.anonymous_id)),
        // A struct of strings always has a JSON form.
        value: Some(Bytes::from(serde_json::to_vec(link).unwrap_or_default())),
        headers: Headers::new().with(header::SCHEMA, Bytes::from_static(b"1")),
        timestamp_ms,
    }
}
