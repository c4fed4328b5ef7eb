//! Pure: no I/O, no clock, no async.
//!
//! Envelopes: the quick reader agrees with serde, and what is read is written and read again as the same.

use crate::event::{Envelope, canonical};

pub(super) fn check(bytes: &[u8]) {
    let quick = canonical::decode(bytes);
    let thorough = Envelope::decode_any(bytes).ok();
    if quick.is_some() {
        assert_eq!(quick, thorough, "the quick reader sees another event than serde");
    }
    let Ok(envelope) = Envelope::decode(bytes) else {
        assert!(thorough.is_none(), "serde reads what decode refuses");
        return;
    };
    assert!(!envelope.key().is_empty());
    let encoded = envelope.encode();
    let again = Envelope::decode(&encoded).ok();
    assert_eq!(again.as_ref(), Some(&envelope), "an event is not what it was after a round trip");
    assert_eq!(again.map(|again| again.encode()).as_ref(), Some(&encoded), "encoding is not stable");
    assert_eq!(
        envelope.headers(&encoded.into()).get(crate::codec::header::MESSAGE_ID).map(|id| &id[..]),
        Some(envelope.message_id.as_bytes())
    );
}
