//! Pure: no I/O, no clock, no async.
//!
//! An event on its way to ingest, and the id that makes sending it twice harmless.

use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Where an event was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: Arc<str>,
    /// From 1.
    pub line: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingEvent {
    /// Path at ingest: `/v1/batch`.
    pub route: Arc<str>,
    /// Events of one actor go out in their order; see [`actor_hash`].
    pub actor: u64,
    /// The event's JSON, with its `messageId`.
    pub json: String,
    pub origin: Origin,
}

/// Why an event was not taken, or not even sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub origin: Origin,
    pub detail: String,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.origin.file, self.origin.line, self.detail)
    }
}

/// The same for the same file name, line and content, however often it is read: ingest counts it once within the
/// dedup window. `part` tells the events of one line apart.
#[must_use]
pub fn message_id(origin: &Origin, content: &[u8], part: usize) -> String {
    let mut hasher = Xxh3::new();
    hasher.update(origin.file.as_bytes());
    hasher.update(&[0]);
    hasher.update(&origin.line.to_le_bytes());
    hasher.update(&part.to_le_bytes());
    hasher.update(content);
    format!("replay-{:032x}", hasher.digest128())
}

/// Events without any id have no order to keep and are spread by their line.
#[must_use]
pub fn actor_hash(user_id: Option<&str>, anonymous_id: Option<&str>, origin: &Origin) -> u64 {
    match user_id.or(anonymous_id) {
        Some(id) => xxh3_64(id.as_bytes()),
        None => xxh3_64(&origin.line.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_file_line_part_and_content_alone() {
        let origin = |file: &str, line| Origin { file: file.into(), line };
        let id = message_id(&origin("a.csv", 3), b"x", 0);
        assert_eq!(id, message_id(&origin("a.csv", 3), b"x", 0));
        assert_eq!(id.len(), "replay-".len() + 32);
        for other in [
            message_id(&origin("b.csv", 3), b"x", 0),
            message_id(&origin("a.csv", 4), b"x", 0),
            message_id(&origin("a.csv", 3), b"x", 1),
            message_id(&origin("a.csv", 3), b"y", 0),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn an_actor_stays_in_its_lane() {
        let origin = |line| Origin { file: "a".into(), line };
        assert_eq!(actor_hash(Some("u"), None, &origin(1)), actor_hash(Some("u"), Some("v"), &origin(9)));
        assert_ne!(actor_hash(None, None, &origin(1)), actor_hash(None, None, &origin(2)));
    }
}
