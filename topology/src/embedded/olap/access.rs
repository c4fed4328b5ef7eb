//! Who may ask: the one place where users and passwords are checked.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use subtle::ConstantTimeEq as _;

use super::exception::{AUTHENTICATION_FAILED, Exception};

/// The user that reads, without a password: the front listens on loopback.
pub const READER: &str = "default";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub may_write: bool,
}

/// The users: `default` reads; one more may write.
#[derive(Clone, Default)]
pub struct Access {
    /// Name and password.
    writer: Option<(String, String)>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("writer", &self.writer.as_ref().map(|(name, _)| name)).finish_non_exhaustive()
    }
}

impl Access {
    /// A writer that is called `default` takes the reader's place.
    pub fn with_writer(name: &str, password: &str) -> Self {
        Self { writer: Some((name.to_owned(), password.to_owned())) }
    }

    /// Checks the credentials of a request (headers, then Basic, then parameters) and returns the user.
    pub fn check(&self, headers: &HeaderMap, user: Option<&str>, password: Option<&str>) -> Result<User, Exception> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let (user, password) = match (header("x-clickhouse-user"), header("x-clickhouse-key")) {
            (None, None) => match headers.get(AUTHORIZATION) {
                Some(value) => basic(value.as_bytes()).ok_or_else(|| failed("default"))?,
                None => (user.unwrap_or("default").to_owned(), password.unwrap_or_default().to_owned()),
            },
            (user, key) => (user.unwrap_or("default").to_owned(), key.unwrap_or_default().to_owned()),
        };
        let (expected, may_write) = match &self.writer {
            Some((writer, expected)) if *writer == user => (expected.as_str(), true),
            _ if user == READER => ("", false),
            _ => return Err(failed(&user)),
        };
        if bool::from(expected.as_bytes().ct_eq(password.as_bytes())) {
            Ok(User { name: user, may_write })
        } else {
            Err(failed(&user))
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
        let reader = User { name: "default".to_owned(), may_write: false };
        assert_eq!(access.check(&headers(&[]), None, None).unwrap(), reader);
        assert!(access.check(&headers(&[("authorization", "Basic ZGVmYXVsdDo=")]), None, None).is_ok());
        assert!(
            access.check(&headers(&[("x-clickhouse-user", "default"), ("x-clickhouse-key", "")]), None, None).is_ok()
        );
        for bad in [("authorization", "Basic !"), ("authorization", "Bearer x"), ("x-clickhouse-key", "wrong")] {
            assert_eq!(access.check(&headers(&[bad]), None, None).unwrap_err().code, AUTHENTICATION_FAILED);
        }
        assert!(access.check(&headers(&[]), Some("nobody"), None).is_err());
    }

    #[test]
    fn the_writer_needs_its_password() {
        let access = Access::with_writer("neonhub", "hunter2");
        let ask = |user, password| access.check(&headers(&[]), Some(user), Some(password));
        assert!(ask("neonhub", "hunter2").unwrap().may_write);
        assert!(!ask("default", "").unwrap().may_write);
        for (user, password) in [("neonhub", ""), ("neonhub", "hunter"), ("default", "hunter2"), ("other", "hunter2")] {
            assert_eq!(ask(user, password).unwrap_err().code, AUTHENTICATION_FAILED);
        }
        assert!(!format!("{access:?}").contains("hunter2"));
        let one_for_all = Access::with_writer("default", "hunter2");
        assert!(one_for_all.check(&headers(&[]), None, None).is_err());
        assert!(one_for_all.check(&headers(&[]), None, Some("hunter2")).unwrap().may_write);
    }
}
