//! Pure: no I/O, no clock, no async.
//!
//! Dead letters: what was refused, why, and the original bytes, bounded.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::header;
use crate::record::{Headers, NewRecord};
use crate::time;
use crate::topics::Topic;

/// At most this much of the original is kept.
pub const MAX_ORIGINAL_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Text,
    Base64,
}

/// A record on `events.rejected`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct DeadLetter {
    /// Empty where the sender is unknown.
    pub workspace: String,
    /// Stable code, like `invalid_field`.
    pub reason: String,
    /// The sentence for people.
    pub detail: String,
    /// The field at fault, as a path: `batch[3].timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Where it was refused: `ingest`, `refine`, `metrics.partial`, `landing`…
    pub stage: String,
    /// Deterministic: the request's and event's place, or topic, partition and offset.
    pub place: String,
    #[serde(with = "time::rfc3339")]
    #[schemars(with = "String")]
    pub received_at: i64,
    pub original: String,
    pub encoding: Encoding,
    /// Bytes of the whole original, of which `original` may be the beginning only.
    pub original_size: u64,
}

impl DeadLetter {
    /// Keeps the original's beginning, as text where it is text.
    #[must_use]
    pub fn with_original(mut self, original: &[u8]) -> Self {
        self.original_size = original.len() as u64;
        let mut kept = &original[..original.len().min(MAX_ORIGINAL_BYTES)];
        if kept.len() < original.len() {
            // Do not cut a character in two.
            if let Err(error) = std::str::from_utf8(kept)
                && error.error_len().is_none()
            {
                kept = &kept[..error.valid_up_to()];
            }
        }
        (self.original, self.encoding) = match std::str::from_utf8(kept) {
            Ok(text) => (text.to_owned(), Encoding::Text),
            Err(_) => (BASE64.encode(kept), Encoding::Base64),
        };
        self
    }

    #[must_use]
    pub fn to_record(&self) -> NewRecord {
        NewRecord {
            topic: Topic::EventsRejected,
            partition: None,
            key: Bytes::from(format!("{}|{}", self.workspace, self.place)),
            // A struct of strings and numbers always has a JSON form.
            value: Some(Bytes::from(serde_json::to_vec(self).unwrap_or_default())),
            headers: Headers::new()
                .with(header::SCHEMA, Bytes::from_static(b"1"))
                .with(header::WORKSPACE, Bytes::copy_from_slice(self.workspace.as_bytes()))
                .with(header::REASON, Bytes::copy_from_slice(self.reason.as_bytes())),
            timestamp_ms: self.received_at,
        }
    }
}

impl Default for DeadLetter {
    fn default() -> Self {
        Self {
            workspace: String::new(),
            reason: String::new(),
            detail: String::new(),
            field: None,
            stage: String::new(),
            place: String::new(),
            received_at: 0,
            original: String::new(),
            encoding: Encoding::Text,
            original_size: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_is_kept_bounded_and_whole_characters_only() {
        let letter = DeadLetter::default().with_original(b"{\"a\":");
        assert_eq!((letter.original.as_str(), letter.encoding), ("{\"a\":", Encoding::Text));
        let letter = DeadLetter::default().with_original(&[0xff, 0x00]);
        assert_eq!((letter.original.as_str(), letter.encoding), ("/wA=", Encoding::Base64));
        let long = "ü".repeat(MAX_ORIGINAL_BYTES);
        let letter = DeadLetter::default().with_original(format!("a{long}").as_bytes());
        assert_eq!(letter.encoding, Encoding::Text);
        assert_eq!(letter.original.len(), MAX_ORIGINAL_BYTES - 1);
        assert_eq!(letter.original_size, 2 * MAX_ORIGINAL_BYTES as u64 + 1);
    }
}
