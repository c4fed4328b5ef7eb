//! Pure: no I/O, no clock, no async.
//!
//! Ids that are made here. Those that must be the same after a replay are hashes of what they stand for.

use xxhash_rust::xxh3::xxh3_128;

/// A message id for an event that came without one: UUIDv7 (RFC 9562) from the time and random bits that the caller
/// hands in.
#[must_use]
pub fn message_id(received_at_ms: i64, random: u128) -> String {
    let bytes = random.to_be_bytes();
    let mut counter_random = [0; 10];
    counter_random.copy_from_slice(&bytes[..10]);
    let millis = u64::try_from(received_at_ms).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &counter_random).into_uuid().to_string()
}

/// A session's id: the same for the same actor and first event.
#[must_use]
pub fn session_id(workspace: &str, actor: &str, first_message_id: &str) -> String {
    let name = format!("{workspace}\u{0}{actor}\u{0}{first_message_id}");
    uuid::Builder::from_custom_bytes(xxh3_128(name.as_bytes()).to_be_bytes()).into_uuid().to_string()
}

/// Workspace names go into keys and file names: lower-case letters, digits, `-` and `_`, 1 to 64 of them.
#[must_use]
pub fn is_workspace_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(fits)
}

/// Whether a client's `X-Request-Id` may go into answers and logs: printable ASCII, 1 to 128 bytes.
#[must_use]
pub fn is_request_id(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 128 && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_sort_by_time_and_are_version_7() {
        let early = message_id(1_000, u128::MAX);
        let late = message_id(2_000, 0);
        assert!(early < late);
        assert_eq!(&early[14..15], "7");
        assert_ne!(message_id(1_000, 1 << 70), message_id(1_000, 1 << 71));
    }

    #[test]
    fn session_ids_are_deterministic() {
        assert_eq!(session_id("w", "a", "m"), session_id("w", "a", "m"));
        assert_ne!(session_id("w", "a", "m"), session_id("w", "am", ""));
    }
}
