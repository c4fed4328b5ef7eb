//! Who may ask: the one place where users and passwords are checked.

use std::collections::HashMap;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;

use super::exception::{AUTHENTICATION_FAILED, Exception};

/// The users and their passwords; `default` with an empty password unless told otherwise.
#[derive(Debug, Clone)]
pub struct Access {
    passwords: HashMap<String, String>,
}

impl Default for Access {
    fn default() -> Self {
        Self { passwords: HashMap::from([("default".to_owned(), String::new())]) }
    }
}

impl Access {
    pub fn new(passwords: HashMap<String, String>) -> Self {
        Self { passwords }
    }

    /// Checks the credentials of a request (headers, then Basic, then parameters) and returns the user.
    pub fn check(&self, headers: &HeaderMap, user: Option<&str>, password: Option<&str>) -> Result<String, Exception> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (user, password) = match (header("x-clickhouse-user"), header("x-clickhouse-key")) {
            (None, None) => match headers.get(AUTHORIZATION) {
                Some(value) => basic(value.as_bytes()).ok_or_else(|| failed("default"))?,
                None => (user.unwrap_or("default").to_owned(), password.unwrap_or_default().to_owned()),
            },
            (user, key) => (user.unwrap_or("default").to_owned(), key.unwrap_or_default().to_owned()),
        };
        match self.passwords.get(&user) {
            Some(expected) if same_bytes(expected.as_bytes(), password.as_bytes()) => Ok(user),
            _ => Err(failed(&user)),
        }
    }
}

fn basic(value: &[u8]) -> Option<(String, String)> {
    let encoded = std::str::from_utf8(value).ok()?.strip_prefix("Basic ")?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Takes as long for a wrong password as for a right one of the same length.
fn same_bytes(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn failed(user: &str) -> Exception {
    let reason = "Authentication failed: password is incorrect, or there is no user with such name";
    Exception::new(AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", format!("{user}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn every_way_to_name_a_user() {
        let access = Access::default();
        assert_eq!(access.check(&headers(&[]), None, None).unwrap(), "default");
        assert!(access.check(&headers(&[("authorization", "Basic ZGVmYXVsdDo=")]), None, None).is_ok());
        assert!(
            access.check(&headers(&[("x-clickhouse-user", "default"), ("x-clickhouse-key", "")]), None, None).is_ok()
        );
        for bad in [("authorization", "Basic !"), ("authorization", "Bearer x"), ("x-clickhouse-key", "wrong")] {
            assert_eq!(access.check(&headers(&[bad]), None, None).unwrap_err().code, AUTHENTICATION_FAILED);
        }
        assert!(access.check(&headers(&[]), Some("nobody"), None).is_err());
    }
}
