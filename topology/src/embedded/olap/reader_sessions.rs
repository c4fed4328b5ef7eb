//! Sessions of readers. A connection that only reads can never be told settings again, so a session is not a connection but
//! the `SET` and `USE` statements that it has run, and each request runs them again on a fresh one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::exception::{Exception, SESSION_NOT_FOUND, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::parameters::SessionChoice;

/// Of one session; each costs the next request a fraction of a millisecond.
const MOST_STATEMENTS: usize = 100;

struct Slot {
    statements: Vec<String>,
    expires: Instant,
}

pub struct ReaderSessions {
    /// By user and session id.
    slots: Mutex<HashMap<(String, String), Slot>>,
    max_sessions: usize,
}

impl ReaderSessions {
    pub fn new(max_sessions: usize) -> Self {
        Self { slots: Mutex::default(), max_sessions }
    }

    /// What is to be run before the request's statement. The session lives on from now.
    ///
    /// # Errors
    /// The session must exist and does not, or there are too many.
    pub fn statements(&self, user: &str, choice: &SessionChoice, now: Instant) -> Result<Vec<String>, Exception> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.expires > now);
        let key = (user.to_owned(), choice.id.clone());
        if !slots.contains_key(&key) {
            if choice.must_exist {
                let message = format!("Session {} not found", choice.id);
                return Err(Exception::new(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", message));
            }
            if slots.len() >= self.max_sessions {
                let message = "Too many sessions";
                return Err(Exception::new(TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message));
            }
        }
        let slot = slots.entry(key).or_insert_with(|| Slot { statements: Vec::new(), expires: now });
        slot.expires = now + choice.timeout;
        Ok(slot.statements.clone())
    }

    /// The session has run a statement that changes it.
    ///
    /// # Errors
    /// It has run too many.
    pub fn ran(&self, user: &str, choice: &SessionChoice, statement: String) -> Result<(), Exception> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(&(user.to_owned(), choice.id.clone())) else { return Ok(()) };
        if slot.statements.len() >= MOST_STATEMENTS {
            return Err(Exception::bad_arguments(format!("a session runs at most {MOST_STATEMENTS} SET and USE")));
        }
        slot.statements.push(statement);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_remembers_until_it_expires() {
        let sessions = ReaderSessions::new(2);
        let choice =
            |id: &str| SessionChoice { id: id.to_owned(), timeout: Duration::from_secs(10), must_exist: false };
        let now = Instant::now();
        assert_eq!(sessions.statements("default", &choice("a"), now), Ok(vec![]));
        sessions.ran("default", &choice("a"), "USE system".to_owned()).unwrap();
        assert_eq!(sessions.statements("default", &choice("a"), now), Ok(vec!["USE system".to_owned()]));
        assert_eq!(sessions.statements("another", &choice("a"), now), Ok(vec![]), "users never meet");
        let third = sessions.statements("default", &choice("b"), now);
        assert_eq!(third.unwrap_err().code, TOO_MANY_SIMULTANEOUS_QUERIES);
        let later = now + Duration::from_secs(10);
        assert_eq!(sessions.statements("default", &choice("b"), later), Ok(vec![]));
        let must_exist = SessionChoice { must_exist: true, ..choice("a") };
        assert_eq!(sessions.statements("default", &must_exist, later).unwrap_err().code, SESSION_NOT_FOUND);
    }
}
