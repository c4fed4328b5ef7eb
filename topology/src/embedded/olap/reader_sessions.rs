//! Sessions of readers. A connection that only reads can never be told settings again, so a session is not a connection but
//! its database and its settings, and each request is given them on a fresh one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::exception::{Exception, SESSION_NOT_FOUND};
use super::parameters::SessionChoice;
use super::reader::{SessionChange, Settings};

const MOST_SETTINGS: usize = 100;

/// What a session's requests are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionState {
    pub database: Option<String>,
    pub settings: Settings,
}

struct Slot {
    state: SessionState,
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

    /// The session lives on from now; where there are too many, the one that would expire first makes room.
    ///
    /// # Errors
    /// The session must exist and does not.
    pub fn state(&self, user: &str, choice: &SessionChoice, now: Instant) -> Result<SessionState, Exception> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.expires > now);
        let key = (user.to_owned(), choice.id.clone());
        if !slots.contains_key(&key) {
            if choice.must_exist {
                let message = format!("Session {} not found", choice.id);
                return Err(Exception::new(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", message));
            }
            if slots.len() >= self.max_sessions
                && let Some(idlest) = slots.iter().min_by_key(|(_, slot)| slot.expires).map(|(key, _)| key.clone())
            {
                slots.remove(&idlest);
            }
        }
        let slot = slots.entry(key).or_insert_with(|| Slot { state: SessionState::default(), expires: now });
        slot.expires = now + choice.timeout;
        Ok(slot.state.clone())
    }

    /// # Errors
    /// The session has too many settings.
    pub fn change(&self, user: &str, choice: &SessionChoice, change: SessionChange) -> Result<(), Exception> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = slots.get_mut(&(user.to_owned(), choice.id.clone())) else { return Ok(()) };
        match change {
            SessionChange::Database(database) => slot.state.database = Some(database),
            SessionChange::Settings(settings) => {
                slot.state.settings.retain(|(name, _)| settings.iter().all(|(changed, _)| changed != name));
                if slot.state.settings.len() + settings.len() > MOST_SETTINGS {
                    return Err(Exception::bad_arguments(format!("a session has at most {MOST_SETTINGS} settings")));
                }
                slot.state.settings.extend(settings);
            }
        }
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
        let fresh = SessionState::default();
        assert_eq!(sessions.state("default", &choice("a"), now), Ok(fresh.clone()));
        sessions.change("default", &choice("a"), SessionChange::Database("system".to_owned())).unwrap();
        for value in ["1", "2"] {
            let settings = vec![("max_threads".to_owned(), value.to_owned())];
            sessions.change("default", &choice("a"), SessionChange::Settings(settings)).unwrap();
        }
        let changed = SessionState {
            database: Some("system".to_owned()),
            settings: vec![("max_threads".to_owned(), "2".to_owned())],
        };
        assert_eq!(sessions.state("default", &choice("a"), now), Ok(changed.clone()));
        assert_eq!(sessions.state("another", &choice("a"), now), Ok(fresh.clone()), "users never meet");
        // The third takes the place of the one that would expire first.
        let second = now + Duration::from_secs(1);
        assert_eq!(sessions.state("default", &choice("a"), second), Ok(changed.clone()));
        assert_eq!(sessions.state("default", &choice("b"), second), Ok(fresh.clone()));
        assert_eq!(sessions.state("default", &choice("a"), second), Ok(changed));
        let later = now + Duration::from_secs(11);
        assert_eq!(sessions.state("default", &choice("b"), later), Ok(fresh));
        let must_exist = SessionChoice { must_exist: true, ..choice("a") };
        assert_eq!(sessions.state("default", &must_exist, later).unwrap_err().code, SESSION_NOT_FOUND);
    }
}
