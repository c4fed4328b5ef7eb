//! Pure: no I/O, no clock, no async.
//!
//! Signatures of webhooks: one that is made here holds among any others, and not for another body, id, time or secret. A line
//! each for the id, the time and the other signatures; the rest is the body.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::http::fuzzed::{SignedHead, SigningSecret};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub(super) fn check(bytes: &[u8]) {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let [id, timestamp, others, body] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    check_secret(id);
    let text = |line| std::str::from_utf8(line).unwrap_or_default().trim();
    let (id_text, timestamp_text) = (text(id), text(timestamp));
    let Some(signature) = sign(id_text, timestamp_text, body) else { return };
    let signatures = [others, b" v1,", signature.as_bytes()].concat();
    let Some(headers) = stated(id, timestamp, &signatures) else { return };
    let head = SignedHead::read(&headers);
    let is_text = |line: &[u8]| line.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\t');
    let is_good = [id, timestamp, others].into_iter().all(is_text)
        && !id_text.is_empty()
        && timestamp_text.parse::<i64>().is_ok();
    assert_eq!(head.is_ok(), is_good);
    let (Ok(head), Some(secret)) = (head, SigningSecret::parse(SECRET)) else { return };
    assert_eq!(head.id, id_text);
    assert!(head.is_signed_with(&secret, body), "a good signature does not hold");
    assert!(!head.is_signed_with(&secret, &[body, b" "].concat()), "it holds for another body");
    let other_secret = SigningSecret::parse(OTHER_SECRET);
    assert!(other_secret.is_some_and(|other| !head.is_signed_with(&other, body)), "it holds for another's secret");
    for (more_id, more_time) in [("x", ""), ("", "0")] {
        let other_id = format!("{id_text}{more_id}");
        let other_time = format!("{timestamp_text}{more_time}");
        let Some(headers) = stated(other_id.as_bytes(), other_time.as_bytes(), &signatures) else { continue };
        let holds = SignedHead::read(&headers).is_ok_and(|head| head.is_signed_with(&secret, body));
        assert!(!holds, "it holds for another id or time");
    }
}

/// As the specification says, and not as it is done elsewhere here.
fn sign(id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(&[id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat());
    Some(STANDARD.encode(mac.finalize().into_bytes()))
}

fn stated(id: &[u8], timestamp: &[u8], signatures: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signatures)] {
        headers.insert(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

fn check_secret(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let decoded = text.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    assert_eq!(SigningSecret::parse(text).is_some(), decoded.is_some_and(|key| key.len() >= 24));
}
