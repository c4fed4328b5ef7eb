//! Pure: no I/O, no clock, no async.
//!
//! Sessions: an actor's events with no gap of more than half an hour (event time) between them.

use hashbrown::HashMap;
use neonhub_schemas::ids;
use xxhash_rust::xxh3::xxh3_64;

#[derive(Clone, Debug)]
struct Session {
    id: String,
    first_ms: i64,
    last_ms: i64,
    /// When its last event was received; decides when the session is forgotten.
    received_at_ms: i64,
}

/// The current session of each actor.
#[derive(Debug)]
pub struct Sessions {
    gap_ms: i64,
    keep_ms: i64,
    by_actor: HashMap<u64, Session>,
    forgotten_at_ms: i64,
}

impl Sessions {
    /// `keep_ms`: how long after its last event was received a session is kept in memory.
    #[must_use]
    pub fn new(gap_ms: i64, keep_ms: i64) -> Self {
        Self { gap_ms, keep_ms: keep_ms.max(gap_ms), by_actor: HashMap::new(), forgotten_at_ms: i64::MIN }
    }

    /// The session an event belongs to. An event from long before the current session gets one of its own and leaves
    /// the current one as it is.
    pub fn assign(&mut self, place: &Place<'_>, event_ms: i64, received_at_ms: i64) -> String {
        self.forget(received_at_ms);
        let actor_hash = xxh3_64(place.key);
        if let Some(current) = self.by_actor.get_mut(&actor_hash) {
            let reach = current.first_ms.saturating_sub(self.gap_ms)..=current.last_ms.saturating_add(self.gap_ms);
            if reach.contains(&event_ms) {
                current.first_ms = current.first_ms.min(event_ms);
                current.last_ms = current.last_ms.max(event_ms);
                current.received_at_ms = received_at_ms;
                return current.id.clone();
            }
            if event_ms < current.first_ms {
                return ids::session_id(place.workspace, place.actor, place.message_id);
            }
        }
        let id = ids::session_id(place.workspace, place.actor, place.message_id);
        let session = Session { id: id.clone(), first_ms: event_ms, last_ms: event_ms, received_at_ms };
        self.by_actor.insert(actor_hash, session);
        id
    }

    /// Takes up what an event of the output says: its session and time.
    pub fn restore(&mut self, key: &[u8], session_id: &str, event_ms: i64, received_at_ms: i64) {
        self.forget(received_at_ms);
        let fresh = || Session { id: session_id.to_owned(), first_ms: event_ms, last_ms: event_ms, received_at_ms };
        let current = self.by_actor.entry(xxh3_64(key)).or_insert_with(fresh);
        if current.id == session_id {
            current.first_ms = current.first_ms.min(event_ms);
            current.last_ms = current.last_ms.max(event_ms);
            current.received_at_ms = received_at_ms;
        } else if event_ms > current.last_ms {
            *current = fresh();
        }
    }

    fn forget(&mut self, now_ms: i64) {
        // Often enough to bound memory, seldom enough to cost nothing.
        if now_ms < self.forgotten_at_ms.saturating_add(self.keep_ms / 4) {
            return;
        }
        self.forgotten_at_ms = now_ms;
        let oldest = now_ms - self.keep_ms;
        self.by_actor.retain(|_, session| session.received_at_ms >= oldest);
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_actor.len()
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
    use super::*;

    const MINUTE: i64 = 60_000;

    fn place<'a>(message_id: &'a str) -> Place<'a> {
        Place { key: b"acme|anon", workspace: "acme", actor: "anon", message_id }
    }

    #[test]
    fn half_an_hour_of_silence_begins_another_session() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE);
        let first = sessions.assign(&place("m-1"), 0, 0);
        assert_eq!(sessions.assign(&place("m-2"), 30 * MINUTE, 0), first);
        assert_eq!(sessions.assign(&place("m-3"), -29 * MINUTE, 0), first);
        let second = sessions.assign(&place("m-4"), 61 * MINUTE, 0);
        assert_ne!(second, first);
        // Long before: a session of its own, and the current one stays.
        let stray = sessions.assign(&place("m-5"), -300 * MINUTE, 0);
        assert!(stray != first && stray != second);
        assert_eq!(sessions.assign(&place("m-6"), 62 * MINUTE, 0), second);
    }

    #[test]
    fn restored_sessions_go_on() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE);
        sessions.restore(b"acme|anon", "s-1", 0, 0);
        sessions.restore(b"acme|anon", "s-1", 10 * MINUTE, 0);
        sessions.restore(b"acme|anon", "stray", -500 * MINUTE, 0);
        assert_eq!(sessions.assign(&place("m-1"), 40 * MINUTE, 0), "s-1");
        sessions.restore(b"acme|anon", "s-2", 100 * MINUTE, 0);
        assert_eq!(sessions.assign(&place("m-2"), 101 * MINUTE, 0), "s-2");
    }

    #[test]
    fn sessions_are_forgotten_by_the_time_of_receipt() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE);
        sessions.assign(&place("m-1"), 0, 10 * MINUTE);
        sessions.assign(&Place { key: b"acme|other", ..place("m-2") }, 0, 200 * MINUTE);
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn a_session_outlives_the_silence_of_others() {
        let mut sessions = Sessions::new(30 * MINUTE, 60 * MINUTE);
        let other = Place { key: b"acme|other", ..place("m-2") };
        let first = sessions.assign(&place("m-1"), 0, 0);
        sessions.assign(&other, 0, 40 * MINUTE);
        assert_eq!(sessions.len(), 2);
        assert_eq!(sessions.assign(&place("m-3"), 20 * MINUTE, 59 * MINUTE), first);
        // Now it is kept from its last event on.
        sessions.assign(&other, 0, 110 * MINUTE);
        assert_eq!(sessions.assign(&place("m-4"), 30 * MINUTE, 111 * MINUTE), first);
    }
}
