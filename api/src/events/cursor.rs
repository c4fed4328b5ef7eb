//! Pure: no I/O, no clock, no async.
//!
//! Where a page ended: after the event with this time, id and place in the log. Events are told apart by all of them, so
//! that none is skipped or shown twice, whatever arrives meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    #[serde(rename = "t")]
    pub timestamp_ms: i64,
    #[serde(rename = "m")]
    pub message_id: String,
    #[serde(rename = "s")]
    pub source_number: i8,
    #[serde(rename = "p")]
    pub partition: u32,
    #[serde(rename = "o")]
    pub offset: u64,
}

impl Cursor {
    #[must_use]
    pub fn encode(&self) -> String {
        // A struct of text and numbers always has a JSON form.
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_is_none() {
        let cursor = Cursor { timestamp_ms: 1, message_id: "ü'".into(), source_number: 2, partition: 3, offset: 4 };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        for text in ["", "x", "e30", "!!"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
