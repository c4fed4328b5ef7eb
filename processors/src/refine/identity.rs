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

#[cfg(test)]
mod tests {
    use super::*;

    const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

    fn learn(identities: &mut Identities, anonymous_id: &str, user_id: &str) -> bool {
        let mut event = Envelope::decode(TRACK.as_bytes()).unwrap();
        event.anonymous_id = Some(anonymous_id.into());
        event.user_id = Some(user_id.into());
        identities.learn(&event).is_some()
    }

    #[test]
    fn a_link_is_told_when_it_is_new_or_another() {
        let mut identities = Identities::default();
        assert!(learn(&mut identities, "anon-1", "user-1"));
        assert!(!learn(&mut identities, "anon-1", "user-1"));
        assert!(learn(&mut identities, "anon-2", "user-1"));
        assert!(learn(&mut identities, "anon-1", "user-2"));
        assert_eq!(identities.len(), 2);
        assert_eq!(identities.user_of("acme", "anon-1"), Some("user-2"));
        assert_eq!(identities.user_of("acme", "anon-2"), Some("user-1"));
        assert_eq!(identities.user_of("other", "anon-1"), None);
    }

    #[test]
    fn an_empty_id_or_one_that_names_itself_teaches_nothing() {
        let mut identities = Identities::default();
        for (anonymous_id, user_id) in [("", "user-1"), ("anon-1", ""), ("same", "same")] {
            assert!(!learn(&mut identities, anonymous_id, user_id), "{anonymous_id:?} {user_id:?}");
        }
        assert_eq!(identities.len(), 0);
    }

    #[test]
    fn links_of_a_changelog_have_keys_of_their_own() {
        let link = |anonymous_id: &str| IdentityLink {
            workspace: "acme".into(),
            anonymous_id: anonymous_id.into(),
            user_id: "user-1".into(),
        };
        let key = |anonymous_id: &str| link_record(&link(anonymous_id), 0, 0).key;
        assert_eq!(key("anon-1"), "acme|anon-1");
        assert_ne!(key("anon-1"), key("anon-2"));
    }
}
