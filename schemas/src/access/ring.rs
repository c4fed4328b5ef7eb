//! Pure: no I/O, no clock, no async.
//!
//! The keys of all workspaces, as `control` tells them.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::secret::{KeySecret, id_in, visible_prefix};
use super::{KeyRecord, Purpose};
use crate::record::Record;

/// Filled by whoever follows `control`, read by every request.
pub type SharedKeyRing = Arc<RwLock<KeyRing>>;

/// What is known of a key that somebody states.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    Found(&'a KeyRecord),
    /// There is no such key, or no longer.
    Unknown,
    /// It may well be a key: `control` has not been read to its end yet.
    NotYet,
}

#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    /// Without one, no key can be recognised.
    secret: Option<KeySecret>,
    by_id: HashMap<String, KeyRecord>,
    is_complete: bool,
}

impl KeyRing {
    #[must_use]
    pub fn new(secret: Option<KeySecret>) -> Self {
        Self { secret, ..Self::default() }
    }

    #[must_use]
    pub fn secret(&self) -> Option<&KeySecret> {
        self.secret.as_ref()
    }

    /// Takes up a record of `control`. Older revisions, other records and what is no key are passed over.
    pub fn observe(&mut self, record: &Record) {
        let Some(record) = record.value.as_ref().and_then(|value| serde_json::from_slice::<KeyRecord>(value).ok())
        else {
            return;
        };
        self.take(record);
    }

    /// The same, of a record that was just written.
    pub fn take(&mut self, record: KeyRecord) {
        if self.by_id.get(&record.id).is_none_or(|known| known.revision < record.revision) {
            self.by_id.insert(record.id.clone(), record);
        }
    }

    /// `control` has been read to its end once.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whose key this is.
    #[must_use]
    pub fn find(&self, stated: &str, now_ms: i64) -> Lookup<'_> {
        let Some(id) = id_in(stated) else { return Lookup::Unknown };
        // A process that lacks the secret cannot tell, and its sender must not take that for a no.
        let Some(secret) = &self.secret else { return Lookup::NotYet };
        match self.by_id.get(id) {
            Some(key) if key.purpose == Purpose::Bearer && secret.is_digest_of(stated, &key.digest) => {
                if key.is_in_force(now_ms) { Lookup::Found(key) } else { Lookup::Unknown }
            }
            None if !self.is_complete => Lookup::NotYet,
            _ => Lookup::Unknown,
        }
    }

    /// Whether a key that was recognised before still opens anything.
    #[must_use]
    pub fn is_in_force(&self, id: &str, now_ms: i64) -> bool {
        self.by_id.get(id).is_some_and(|key| key.is_in_force(now_ms))
    }

    /// The key that a token names as its signer.
    #[must_use]
    pub fn signer(&self, id: &str, now_ms: i64) -> Lookup<'_> {
        match self.by_id.get(id) {
            Some(key) if key.purpose == Purpose::TokenSigning && key.is_in_force(now_ms) => Lookup::Found(key),
            None if !self.is_complete => Lookup::NotYet,
            _ => Lookup::Unknown,
        }
    }
}

impl KeyRecord {
    /// The visible beginning of the key: it names the key and opens nothing.
    #[must_use]
    pub fn prefix(&self) -> String {
        visible_prefix(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{NewKey, Scope};

    fn ring() -> (KeyRing, NewKey, KeyRecord) {
        let secret = KeySecret::new("0123456789abcdef0123456789abcdef").unwrap();
        let made = NewKey::new(7, [1, 2]);
        let record = KeyRecord {
            workspace: "acme".to_owned(),
            id: made.id.clone(),
            revision: 1,
            label: "shop".to_owned(),
            purpose: Purpose::Bearer,
            scopes: [Scope::IngestWrite].into(),
            digest: secret.digest(&made.key),
            events_per_second: None,
            created_at: 0,
            expires_at_ms: None,
            revoked_at_ms: None,
            updated_at: 0,
        };
        (KeyRing::new(Some(secret)), made, record)
    }

    fn on_control(record: &KeyRecord) -> Record {
        let new = record.to_record();
        Record {
            topic: new.topic,
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: new.key,
            value: new.value,
            headers: new.headers,
        }
    }

    #[test]
    fn a_key_opens_until_it_expires_or_is_revoked() {
        let (mut ring, made, record) = ring();
        assert_eq!(ring.find(&made.key, 0), Lookup::NotYet);
        ring.observe(&on_control(&record));
        assert_eq!(ring.find(&made.key, 0), Lookup::Found(&record));
        ring.complete();
        assert_eq!(ring.find(&NewKey::new(8, [1, 2]).key, 0), Lookup::Unknown);
        assert_eq!(ring.find(&NewKey::new(7, [1, 3]).key, 0), Lookup::Unknown, "the id alone opens nothing");

        ring.observe(&on_control(&KeyRecord { revision: 2, expires_at_ms: Some(10), ..record.clone() }));
        assert!(matches!(ring.find(&made.key, 9), Lookup::Found(_)));
        assert_eq!(ring.find(&made.key, 10), Lookup::Unknown);
        ring.observe(&on_control(&KeyRecord { revision: 3, revoked_at_ms: Some(5), ..record.clone() }));
        assert_eq!(ring.find(&made.key, 5), Lookup::Unknown);
        ring.observe(&on_control(&record));
        assert_eq!(ring.find(&made.key, 5), Lookup::Unknown, "an older revision brings nothing back");
    }

    #[test]
    fn a_signing_key_is_no_bearer_key() {
        let (mut ring, made, record) = ring();
        let signing = KeyRecord { purpose: Purpose::TokenSigning, ..record };
        ring.take(signing.clone());
        ring.complete();
        assert_eq!(ring.find(&made.key, 0), Lookup::Unknown);
        assert_eq!(ring.signer(&made.id, 0), Lookup::Found(&signing));
        assert_eq!(ring.signer("0", 0), Lookup::Unknown);
    }

    #[test]
    fn without_a_secret_no_key_can_be_told() {
        let (_, made, record) = ring();
        let mut ring = KeyRing::new(None);
        ring.take(record);
        ring.complete();
        assert_eq!(ring.find(&made.key, 0), Lookup::NotYet);
        assert_eq!(ring.find("no key", 0), Lookup::Unknown);
    }

    #[test]
    fn definitions_and_keys_are_not_mixed_up() {
        let (mut ring, _, record) = ring();
        let value = record.to_record().value.unwrap();
        assert!(serde_json::from_slice::<crate::control::DefinitionRecord>(&value).is_err());
        let definition = crate::control::DefinitionRecord {
            workspace: "acme".to_owned(),
            name: "orders".to_owned(),
            revision: 1,
            definition: None,
            updated_at: 0,
        };
        let value = serde_json::to_vec(&definition).unwrap();
        ring.observe(&Record { value: Some(value.into()), ..on_control(&record) });
        assert!(ring.by_id.is_empty());
    }
}
