//! Pure but for the local state: no clock, no async.
//!
//! Identity: whose an anonymous id is. `identify` with both ids and `alias` say so; later events that carry the anonymous
//! id only get the user's.

use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::IdentityLink;
use neonhub_schemas::event::{Envelope, Kind};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use serde::{Deserialize, Serialize};

use super::kept::{Kept, Key, Value};
use super::stored;
use crate::engine::{EngineError, LocalState};

/// Whose an anonymous id is.
#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    id: String,
}

impl Value for User {
    /// Workspace and anonymous id.
    type Key = String;
    const TABLE: u8 = stored::LINKS;

    fn heap_size(&self) -> usize {
        self.id.capacity()
    }

    /// Links are never over; any of them may leave memory.
    fn touched_at_ms(&self) -> i64 {
        0
    }
}

impl Key for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().map(str::to_owned)
    }

    fn heap_size(&self) -> usize {
        self.len()
    }
}

/// Links by workspace and anonymous id.
#[derive(Debug)]
pub struct Identities {
    pub users: Kept<User>,
}

impl Identities {
    /// `is_kept`: whether it will be saved.
    #[must_use]
    pub fn new(is_kept: bool) -> Self {
        Self { users: Kept::new(is_kept) }
    }

    /// What an event teaches: the link, when it is new.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn learn(
        &mut self,
        event: &Envelope<'_>,
        local: Option<&LocalState>,
    ) -> Result<Option<IdentityLink>, EngineError> {
        let anonymous_id = match event.kind {
            Kind::Alias => event.previous_id.as_deref(),
            _ => event.anonymous_id.as_deref(),
        };
        let (Some(anonymous_id), Some(user_id)) = (anonymous_id, event.user_id.as_deref()) else { return Ok(None) };
        if anonymous_id.is_empty() || user_id.is_empty() || anonymous_id == user_id {
            return Ok(None);
        }
        let key = link_key(&event.workspace, anonymous_id);
        if self.users.get(&key, local)?.is_some_and(|known| known.id == user_id) {
            return Ok(None);
        }
        self.users.put(key, User { id: user_id.to_owned() });
        Ok(Some(IdentityLink {
            workspace: event.workspace.clone().into_owned(),
            anonymous_id: anonymous_id.to_owned(),
            user_id: user_id.to_owned(),
        }))
    }

    /// # Errors
    /// The local state cannot be read.
    pub fn user_of(
        &mut self,
        workspace: &str,
        anonymous_id: &str,
        local: Option<&LocalState>,
    ) -> Result<Option<&str>, EngineError> {
        let user = self.users.get(&link_key(workspace, anonymous_id), local)?;
        Ok(user.map(|user| user.id.as_str()))
    }

    pub fn restore(&mut self, link: IdentityLink) {
        self.users.put(link_key(&link.workspace, &link.anonymous_id), User { id: link.user_id });
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
        identities.learn(&event, None).unwrap().is_some()
    }

    #[test]
    fn a_link_is_told_when_it_is_new_or_another() {
        let mut identities = Identities::new(false);
        assert!(learn(&mut identities, "anon-1", "user-1"));
        assert!(!learn(&mut identities, "anon-1", "user-1"));
        assert!(learn(&mut identities, "anon-2", "user-1"));
        assert!(learn(&mut identities, "anon-1", "user-2"));
        assert_eq!(identities.users.len(), 2);
        assert_eq!(identities.user_of("acme", "anon-1", None).unwrap(), Some("user-2"));
        assert_eq!(identities.user_of("acme", "anon-2", None).unwrap(), Some("user-1"));
        assert_eq!(identities.user_of("other", "anon-1", None).unwrap(), None);
    }

    #[test]
    fn an_empty_id_or_one_that_names_itself_teaches_nothing() {
        let mut identities = Identities::new(false);
        for (anonymous_id, user_id) in [("", "user-1"), ("anon-1", ""), ("same", "same")] {
            assert!(!learn(&mut identities, anonymous_id, user_id), "{anonymous_id:?} {user_id:?}");
        }
        assert_eq!(identities.users.len(), 0);
    }

    #[test]
    fn what_links_take_is_what_their_ids_take() {
        let size_with = |anonymous_id: &str, user_id: &str| {
            let mut identities = Identities::new(false);
            learn(&mut identities, anonymous_id, user_id);
            identities.users.heap_size()
        };
        let (small, thousand) = (size_with("a", "u"), "i".repeat(1_000));
        assert_eq!(size_with(&thousand, "u"), small + 999);
        assert_eq!(size_with("a", &thousand), small + 999);
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
