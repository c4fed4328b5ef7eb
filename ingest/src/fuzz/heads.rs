//! Pure: no I/O, no clock, no async.
//!
//! What stands in a request's head: keys, signatures, encodings. One header a line; the last line is the query.

use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::fuzzed::{SignedHead, SigningSecret, encodings, stated_in_head};

const NAMES: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    HeaderName::from_static("webhook-id"),
    HeaderName::from_static("webhook-timestamp"),
    HeaderName::from_static("webhook-signature"),
];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

pub(super) fn check(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for (name, value) in NAMES.into_iter().zip(&mut lines) {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }
    let rest = lines.next().unwrap_or_default();
    let key = stated_in_head(&headers, std::str::from_utf8(rest).ok());
    assert!(key.is_none() || headers.contains_key(AUTHORIZATION) || !rest.is_empty(), "a key from nowhere");
    assert!(encodings(&headers).is_ok_and(|found| found.len() <= 3) || headers.contains_key(CONTENT_ENCODING));
    if let Ok(head) = SignedHead::read(&headers)
        && let Some(secret) = SigningSecret::parse(SECRET)
    {
        assert!(!head.id.is_empty());
        assert_eq!(head.check_time(head.sent_at_ms()).is_ok(), is_in_reach(head.sent_at_ms()));
        assert!(!head.is_signed_with(&secret, b"nobody signed this"), "a signature out of thin air");
    }
}

/// Beyond it seconds do not fit as milliseconds.
fn is_in_reach(ms: i64) -> bool {
    ms != i64::MAX && ms != i64::MIN
}
