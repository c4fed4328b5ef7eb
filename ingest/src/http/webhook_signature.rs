//! Pure: no I/O, no clock, no async.
//!
//! Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over `{id}.{timestamp}.{body}`, in base64, after `v1,`.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::accept::{Reason, Refusal};

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
const SECRET_PREFIX: &str = "whsec_";
const SHORTEST_SECRET: usize = 24;
/// Seconds, to either side, within which a signature holds; later it may be a repeat of somebody who listened.
const TOLERANCE: u64 = 5 * 60;

/// A secret, ready to sign.
pub(crate) struct SigningSecret(Hmac<Sha256>);

impl SigningSecret {
    /// `None`: not `whsec_` and at least 24 bytes in base64.
    pub(crate) fn parse(secret: &str) -> Option<Self> {
        let bytes = STANDARD.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
        if bytes.len() < SHORTEST_SECRET {
            return None;
        }
        Hmac::new_from_slice(&bytes).ok().map(Self)
    }
}

/// What a webhook's headers state.
pub(crate) struct SignedHead<'a> {
    pub(crate) id: &'a str,
    timestamp: &'a str,
    sent_at_s: i64,
    signatures: &'a str,
}

impl<'a> SignedHead<'a> {
    /// # Errors
    /// A header is missing, or cannot be read; the refusal's field is its name.
    pub(crate) fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let id = stated(headers, ID)?;
        let timestamp = stated(headers, TIMESTAMP)?;
        let signatures = stated(headers, SIGNATURE)?;
        let unreadable = |_| Refusal::new(Reason::InvalidHeader, "must be Unix time in whole seconds").at(TIMESTAMP);
        let sent_at_s = timestamp.parse().map_err(unreadable)?;
        Ok(Self { id, timestamp, sent_at_s, signatures })
    }

    pub(crate) fn sent_at_ms(&self) -> i64 {
        self.sent_at_s.saturating_mul(1_000)
    }

    /// # Errors
    /// The signature is too old, or from the future.
    pub(crate) fn check_time(&self, now_ms: i64) -> Result<(), Refusal> {
        if now_ms.div_euclid(1_000).abs_diff(self.sent_at_s) <= TOLERANCE {
            return Ok(());
        }
        let detail = "the webhook was signed more than 5 minutes away from now";
        Err(Refusal::new(Reason::InvalidSignature, detail).at(TIMESTAMP))
    }

    /// Whether one of the signatures is `secret`'s; the time taken does not tell how near the others are.
    pub(crate) fn is_signed_with(&self, secret: &SigningSecret, body: &[u8]) -> bool {
        let mut mac = secret.0.clone();
        for part in [self.id.as_bytes(), b".", self.timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        let expected = mac.finalize().into_bytes();
        // Other versions, like the asymmetric `v1a`, may stand beside.
        let candidates = self.signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok());
        let mut holds = false;
        for candidate in candidates {
            holds |= bool::from(candidate.as_slice().ct_eq(expected.as_slice()));
        }
        holds
    }

    pub(crate) fn unknown_signer() -> Refusal {
        let detail = "no secret that is known for this platform has made the signature";
        Refusal::new(Reason::InvalidSignature, detail).at(SIGNATURE)
    }
}

fn stated<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, Refusal> {
    let missing = || Refusal::new(Reason::MissingHeader, format!("the header `{name}` is required")).at(name);
    let value = headers.get(name).ok_or_else(missing)?;
    let text = value.to_str().map_err(|_| Refusal::new(Reason::InvalidHeader, "must be ASCII").at(name))?.trim();
    if text.is_empty() { Err(missing()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers(signature: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ID, "msg_p5jXN8AQM9LWM0D4loKWxJek".parse().unwrap());
        headers.insert(TIMESTAMP, "1614265330".parse().unwrap());
        headers.insert(SIGNATURE, signature.parse().unwrap());
        headers
    }

    fn holds(signature: &'static str, secret: &str, body: &[u8]) -> bool {
        let headers = headers(signature);
        SignedHead::read(&headers).unwrap().is_signed_with(&SigningSecret::parse(secret).unwrap(), body)
    }

    #[test]
    fn the_specifications_example_holds() {
        assert!(holds(SIGNED, SECRET, BODY));
        assert!(!holds(SIGNED, SECRET, br#"{"test": 2432232315}"#));
        assert!(!holds(SIGNED, "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", BODY));
        assert!(!holds("g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", SECRET, BODY));
        assert!(!holds("v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1, v1,%", SECRET, BODY));
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        assert!(holds("v1,AAAA v1a,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", SECRET, BODY));
    }

    #[test]
    fn five_minutes_either_way() {
        let headers = headers(SIGNED);
        let head = SignedHead::read(&headers).unwrap();
        for (seconds, good) in [(0, true), (300, true), (-300, true), (301, false), (-301, false)] {
            assert_eq!(head.check_time((1_614_265_330 + seconds) * 1_000).is_ok(), good, "{seconds}");
        }
    }

    #[test]
    fn secrets_that_are_none() {
        for secret in ["", "whsec_", "whsec_%%%", "whsec_c2hvcnQ=", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(SigningSecret::parse(secret).is_none(), "{secret}");
        }
    }
}
