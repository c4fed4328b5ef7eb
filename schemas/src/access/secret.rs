//! Pure: no I/O, no clock, no async.
//!
//! The deployment's secret, and keys made with it.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Characters that a deployment's secret has at least.
pub const SHORTEST_SECRET: usize = 32;

const PREFIX: &str = "nhk_";
const ID_DIGITS: usize = 16;

/// The setting is too short to be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key secret has at least {SHORTEST_SECRET} characters")]
pub struct WeakSecret;

/// Keys' digests are made under it; with another one no key is known any more. Never printed.
#[derive(Clone)]
pub struct KeySecret(Hmac<Sha256>);

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(***)")
    }
}

/// A key that was just made: shown once.
pub struct NewKey {
    pub id: String,
    /// The whole key.
    pub key: String,
}

impl KeySecret {
    /// # Errors
    /// It is too short.
    pub fn new(text: &str) -> Result<Self, WeakSecret> {
        if text.len() < SHORTEST_SECRET {
            return Err(WeakSecret);
        }
        Hmac::new_from_slice(text.as_bytes()).map(Self).map_err(|_| WeakSecret)
    }

    fn mac(&self, purpose: &[u8], text: &str) -> [u8; 32] {
        let mut mac = self.0.clone();
        mac.update(purpose);
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    /// What is kept of a key, in hexadecimal.
    #[must_use]
    pub fn digest(&self, key: &str) -> String {
        hexadecimal(&self.mac(b"key|", key))
    }

    /// A name for what deployments with other secrets must not take for their own.
    #[must_use]
    pub fn namespace(&self, of: &str) -> String {
        hexadecimal(&self.mac(b"namespace|", of))
    }

    /// In constant time.
    pub(super) fn is_digest_of(&self, key: &str, digest: &str) -> bool {
        self.digest(key).as_bytes().ct_eq(digest.as_bytes()).into()
    }

    /// What a signing key signs with: made again from its id whenever it is needed, so it is kept nowhere.
    #[must_use]
    pub fn signing_secret(&self, id: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(b"token-signing|", id))
    }
}

impl NewKey {
    /// 64 random bits for the id, 256 for the secret.
    #[must_use]
    pub fn new(id_bits: u64, secret_bits: [u128; 2]) -> Self {
        let id = format!("{id_bits:016x}");
        let bytes: Vec<u8> = secret_bits.iter().flat_map(|bits| bits.to_be_bytes()).collect();
        let key = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(bytes));
        Self { id, key }
    }
}

/// The visible beginning of a key: it names the key and opens nothing.
#[must_use]
pub(super) fn visible_prefix(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// The id in a key; `None`: it has not the shape of one.
pub(super) fn id_in(key: &str) -> Option<&str> {
    let rest = key.strip_prefix(PREFIX)?;
    let (id, secret) = rest.split_at_checked(ID_DIGITS)?;
    let is_id = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && secret.starts_with('_')).then_some(id)
}

fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing into a string cannot fail.
        let _infallible = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    /// Against `printf 'key|nhk_…' | openssl dgst -sha256 -hmac SECRET`.
    #[test]
    fn the_digest_is_hmac_sha256() {
        let secret = KeySecret::new(SECRET).unwrap();
        let key = NewKey::new(0x1234, [1, 2]);
        assert_eq!(key.key, "nhk_0000000000001234_AAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAAAAAAAAAAI");
        assert_eq!(secret.digest(&key.key), DIGEST);
        assert!(secret.is_digest_of(&key.key, DIGEST));
        assert!(!secret.is_digest_of("nhk_0000000000001234_B", DIGEST));
    }

    const DIGEST: &str = "950be1052f90fced96e917030d8a84e70a5976fdbaa25ee3b6998a5db5ec6d22";

    #[test]
    fn secrets_are_long_and_never_printed() {
        assert_eq!(KeySecret::new("short").err(), Some(WeakSecret));
        assert_eq!(format!("{:?}", KeySecret::new(SECRET).unwrap()), "KeySecret(***)");
    }

    #[test]
    fn only_a_key_has_an_id() {
        assert_eq!(id_in(&NewKey::new(0xab, [0, 0]).key), Some("00000000000000ab"));
        for text in [
            "",
            "nhk_",
            "nhk_00000000000000ab",
            "nhk_00000000000000abX",
            "nhk_0000000000000éab_x",
            "00000000000000ab_x",
        ] {
            assert_eq!(id_in(text), None, "{text}");
        }
    }
}
