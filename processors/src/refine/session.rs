//! Pure but for the local state: no clock, no async.
//!
//! Sessions: an actor's events with no gap of more than half an hour (event time) between them.

use neonhub_schemas::ids;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::kept::{Kept, Key, Value};
use super::stored;
use crate::engine::{Change, EngineError, LocalState};

/// Sessions in the local state that are looked over in one save, at most.
const PORTION: usize = 50_000;

#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    id: String,
    first_ms: i64,
    last_ms: i64,
    /// When its last event was received; decides when the session is forgotten.
    received_at_ms: i64,
}

impl Value for Session {
    /// A hash of the actor.
    type Key = u64;
    const TABLE: u8 = stored::SESSIONS;

    fn heap_size(&self) -> usize {
        self.id.capacity()
    }

    fn touched_at_ms(&self) -> i64 {
        self.received_at_ms
    }
}

impl Key for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }

    fn heap_size(&self) -> usize {
        0
    }
}

/// The current session of each actor.
#[derive(Debug)]
pub struct Sessions {
    gap_ms: i64,
    keep_ms: i64,
    pub by_actor: Kept<Session>,
    forgotten_at_ms: i64,
    /// Where the local state is looked over next, if it is.
    sweep_from: Option<Vec<u8>>,
}

impl Sessions {
    /// `keep_ms`: how long after its last event was received a session is kept. `is_kept`: whether it will be saved.
    #[must_use]
    pub fn new(gap_ms: i64, keep_ms: i64, is_kept: bool) -> Self {
        Self {
            gap_ms,
            keep_ms: keep_ms.max(gap_ms),
            by_actor: Kept::new(is_kept),
            forgotten_at_ms: i64::MIN,
            sweep_from: None,
        }
    }

    /// The session an event belongs to. An event from long before the current session gets one of its own and leaves
    /// the current one as it is.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn assign(
        &mut self,
        place: &Place<'_>,
        event_ms: i64,
        received_at_ms: i64,
        local: Option<&LocalState>,
    ) -> Result<String, EngineError> {
        self.forget(received_at_ms);
        let (actor_hash, oldest) = (xxh3_64(place.key), received_at_ms.saturating_sub(self.keep_ms));
        let current = self.by_actor.get_mut(&actor_hash, local)?;
        if let Some(current) = current.filter(|current| current.received_at_ms >= oldest) {
            let reach = current.first_ms.saturating_sub(self.gap_ms)..=current.last_ms.saturating_add(self.gap_ms);
            if reach.contains(&event_ms) {
                current.go_on(event_ms, received_at_ms);
                return Ok(current.id.clone());
            }
            if event_ms < current.first_ms {
                return Ok(ids::session_id(place.workspace, place.actor, place.message_id));
            }
        }
        let id = ids::session_id(place.workspace, place.actor, place.message_id);
        self.by_actor.put(actor_hash, Session::begin(id.clone(), event_ms, received_at_ms));
        Ok(id)
    }

    /// Takes up what an event of the output says: its session and time. What it knows already does no harm.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn restore(
        &mut self,
        key: &[u8],
        session_id: &str,
        event_ms: i64,
        received_at_ms: i64,
        local: Option<&LocalState>,
    ) -> Result<(), EngineError> {
        self.forget(received_at_ms);
        let (actor_hash, oldest) = (xxh3_64(key), received_at_ms.saturating_sub(self.keep_ms));
        match self.by_actor.get_mut(&actor_hash, local)? {
            Some(current) if current.id == session_id => current.go_on(event_ms, received_at_ms),
            // A stray one, of a session of its own.
            Some(current) if current.received_at_ms >= oldest && event_ms <= current.last_ms => {}
            _ => self.by_actor.put(actor_hash, Session::begin(session_id.to_owned(), event_ms, received_at_ms)),
        }
        Ok(())
    }

    fn forget(&mut self, now_ms: i64) {
        // Often enough to bound memory, seldom enough to cost nothing.
        if now_ms < self.forgotten_at_ms.saturating_add(self.keep_ms / 4) {
            return;
        }
        self.forgotten_at_ms = now_ms;
        let oldest = now_ms - self.keep_ms;
        self.by_actor.retain(|session| session.received_at_ms >= oldest);
        self.sweep_from.get_or_insert_default();
    }

    /// Removes a portion of what is over from the local state; before anything leaves memory.
    ///
    /// # Errors
    /// The local state cannot be read.
    pub fn sweep(&mut self, local: &LocalState, changes: &mut Vec<Change>) -> Result<(), EngineError> {
        if let Some(from) = self.sweep_from.take() {
            let oldest = self.forgotten_at_ms - self.keep_ms;
            let stays = |session: &Session| session.received_at_ms >= oldest;
            self.sweep_from = self.by_actor.sweep(&from, PORTION, stays, local, changes)?;
        }
        Ok(())
    }
}

impl Session {
    fn begin(id: String, event_ms: i64, received_at_ms: i64) -> Self {
        Self { id, first_ms: event_ms, last_ms: event_ms, received_at_ms }
    }

    fn go_on(&mut self, event_ms: i64, received_at_ms: i64) {
        self.first_ms = self.first_ms.min(event_ms);
        self.last_ms = self.last_ms.max(event_ms);
        self.received_at_ms = received_at_ms;
    }
}

/// Who an event is from, and its message id, which names a session it begins.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub key: &'a [u8],
    pub workspace: &'a str,
    pub actor: &'a str,
    pub message_id: &'a str,
}

#[cfg(test)]
mod tests {
    use neonhub_schemas::record::TopicPartition;
    use neonhub_schemas::topics::Topic;

    use super::*;
    use crate::engine::{MemoryStates, StateStores as _};

    const MINUTE: i64 = 60_000;

    fn place<'a>(message_id: &'a str) -> Place<'a> {
        Place { key: b"acme|anon", workspace: "acme", actor: "anon", message_id }
    }

    fn assign(sessions: &mut Sessions, place: &Place<'_>, event_ms: i64, received_at_ms: i64) -> String {
        sessions.assign(place, event_ms, received_at_ms, None).unwrap()
    }

    #[test]
    fn half_an_hour_of_silence_begins_another_session() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        let first = assign(&mut sessions, &place("m-1"), 0, 0);
        assert_eq!(assign(&mut sessions, &place("m-2"), 30 * MINUTE, 0), first);
        assert_eq!(assign(&mut sessions, &place("m-3"), -29 * MINUTE, 0), first);
        let second = assign(&mut sessions, &place("m-4"), 61 * MINUTE, 0);
        assert_ne!(second, first);
        // Long before: a session of its own, and the current one stays.
        let stray = assign(&mut sessions, &place("m-5"), -300 * MINUTE, 0);
        assert!(stray != first && stray != second);
        assert_eq!(assign(&mut sessions, &place("m-6"), 62 * MINUTE, 0), second);
    }

    #[test]
    fn restored_sessions_go_on() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        sessions.restore(b"acme|anon", "s-1", 0, 0, None).unwrap();
        sessions.restore(b"acme|anon", "s-1", 10 * MINUTE, 0, None).unwrap();
        sessions.restore(b"acme|anon", "stray", -500 * MINUTE, 0, None).unwrap();
        assert_eq!(assign(&mut sessions, &place("m-1"), 40 * MINUTE, 0), "s-1");
        assert_eq!(assign(&mut sessions, &place("m-0"), -25 * MINUTE, 0), "s-1", "its beginning is known");
        sessions.restore(b"acme|anon", "s-2", 100 * MINUTE, 0, None).unwrap();
        assert_eq!(assign(&mut sessions, &place("m-2"), 101 * MINUTE, 0), "s-2");
    }

    #[test]
    fn sessions_are_forgotten_by_the_time_of_receipt() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        assign(&mut sessions, &place("m-1"), 0, 10 * MINUTE);
        assign(&mut sessions, &Place { key: b"acme|other", ..place("m-2") }, 0, 200 * MINUTE);
        assert_eq!(sessions.by_actor.len(), 1);
    }

    #[test]
    fn a_session_outlives_the_silence_of_others() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        let other = Place { key: b"acme|other", ..place("m-2") };
        let first = assign(&mut sessions, &place("m-1"), 0, 0);
        assign(&mut sessions, &other, 0, 40 * MINUTE);
        assert_eq!(sessions.by_actor.len(), 2);
        assert_eq!(assign(&mut sessions, &place("m-3"), 20 * MINUTE, 59 * MINUTE), first);
        // Now it is kept from its last event on.
        assign(&mut sessions, &other, 0, 110 * MINUTE);
        assert_eq!(assign(&mut sessions, &place("m-4"), 30 * MINUTE, 111 * MINUTE), first);
    }

    #[test]
    fn sessions_that_are_over_leave_the_local_state_too() {
        let partition = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
        let local = LocalState::empty(MemoryStates::default().open("refine", partition).unwrap()).unwrap();
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, true);
        let others: [(&[u8], i64); 3] = [(b"acme|over", 19), (b"acme|just kept", 20), (b"acme|kept", 50)];
        for (key, minute) in others {
            assign(&mut sessions, &Place { key, ..place("m-1") }, 0, minute * MINUTE);
        }
        let swept = |sessions: &mut Sessions| {
            let mut changes = Vec::new();
            sessions.by_actor.changes(&mut changes);
            local.write(std::mem::take(&mut changes)).unwrap();
            sessions.by_actor.spill(0);
            sessions.sweep(&local, &mut changes).unwrap();
            changes.into_iter().map(|(key, value)| (key[1..].to_vec(), value)).collect::<Vec<_>>()
        };
        assert_eq!(swept(&mut sessions), []);
        assign(&mut sessions, &place("m-2"), 0, 80 * MINUTE);
        assert_eq!(swept(&mut sessions), [(xxh3_64(b"acme|over").to_bytes(), None)]);
        assert_eq!(swept(&mut sessions), [], "it was looked over");
    }

    #[test]
    fn a_session_weighs_what_its_id_does_and_is_as_old_as_its_last_receipt() {
        let session = Session::begin("s".repeat(100), 5, 7);
        assert_eq!((session.heap_size(), session.touched_at_ms()), (100, 7));
        assert_eq!(Key::heap_size(&7_u64), 0);
        let in_order: Vec<Vec<u8>> = [1, 256, 65_536, u64::MAX].map(|hash: u64| hash.to_bytes()).into();
        assert!(in_order.is_sorted());
        assert_eq!(u64::from_bytes(&in_order[1]), Some(256));
        assert_eq!(u64::from_bytes(b"short"), None);
    }

    #[test]
    fn a_session_that_is_over_is_not_gone_on_with_whether_it_was_looked_over_or_not() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        let other = Place { key: b"acme|other", ..place("m-9") };
        assign(&mut sessions, &other, 0, 0);
        let first = assign(&mut sessions, &place("m-1"), 0, 10 * MINUTE);
        assert_eq!(assign(&mut sessions, &place("m-2"), 0, 70 * MINUTE), first);
        // Looked over now, and not again when the session is over.
        assign(&mut sessions, &other, 0, 125 * MINUTE);
        let second = assign(&mut sessions, &place("m-3"), 0, 131 * MINUTE);
        assert_ne!(second, first);
        // The same from what they put out.
        let mut restored = Sessions::new(30 * MINUTE, 60 * MINUTE, false);
        for (id, received_at_ms) in [(&first, 70 * MINUTE), (&second, 131 * MINUTE)] {
            restored.restore(b"acme|anon", id, 0, received_at_ms, None).unwrap();
        }
        assert_eq!(assign(&mut restored, &place("m-4"), 1, 132 * MINUTE), second);
    }
}
