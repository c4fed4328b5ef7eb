//! Sessions: a connection of their own, so that `SET`, `USE` and temporary tables last from one request to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::exception::{Exception, SESSION_IS_LOCKED, SESSION_NOT_FOUND, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::library::Connection;
use super::parameters::SessionChoice;

/// User and session id: sessions of different users never meet.
type Key = (String, String);

struct Slot {
    /// `None` while a request uses it.
    connection: Option<Connection>,
    expires: Instant,
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    closed: bool,
}

pub struct Sessions {
    table: Mutex<Table>,
    max_sessions: usize,
}

impl Sessions {
    pub fn new(max_sessions: usize) -> Self {
        Self { table: Mutex::default(), max_sessions }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the session's connection, or opens the session.
    pub fn lease(
        self: &Arc<Self>,
        user: &str,
        choice: &SessionChoice,
        engine: &Engine,
    ) -> Result<SessionLease, Exception> {
        let key = (user.to_owned(), choice.id.clone());
        let mut table = self.table();
        remove_expired(&mut table, Instant::now());
        let connection = match table.slots.get_mut(&key) {
            Some(slot) => slot.connection.take().ok_or_else(|| {
                let message = format!("Session {} is locked by a concurrent client", choice.id);
                Exception::new(SESSION_IS_LOCKED, "SESSION_IS_LOCKED", message)
            })?,
            None if choice.must_exist => {
                let message = format!("Session {} not found", choice.id);
                return Err(Exception::new(SESSION_NOT_FOUND, "SESSION_NOT_FOUND", message));
            }
            None => {
                if table.slots.len() >= self.max_sessions {
                    close_the_idlest(&mut table)?;
                }
                let connection = engine.connect()?;
                table.slots.insert(key.clone(), Slot { connection: None, expires: Instant::now() + choice.timeout });
                connection
            }
        };
        Ok(SessionLease { sessions: Arc::clone(self), key, timeout: choice.timeout, connection: Some(connection) })
    }

    pub fn close_expired(&self) {
        remove_expired(&mut self.table(), Instant::now());
    }

    /// Closes all that are idle now; those in use close when they come back.
    pub fn close_all(&self) {
        let mut table = self.table();
        table.closed = true;
        table.slots.clear();
    }
}

fn remove_expired(table: &mut Table, now: Instant) {
    table.slots.retain(|_, slot| slot.connection.is_none() || slot.expires > now);
}

fn close_the_idlest(table: &mut Table) -> Result<(), Exception> {
    let idle = table.slots.iter().filter(|(_, slot)| slot.connection.is_some());
    let Some(key) = idle.min_by_key(|(_, slot)| slot.expires).map(|(key, _)| key.clone()) else {
        let message = "All sessions are in use";
        return Err(Exception::new(TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message));
    };
    table.slots.remove(&key);
    Ok(())
}

/// A session in use; given back on drop.
pub struct SessionLease {
    sessions: Arc<Sessions>,
    key: Key,
    timeout: Duration,
    connection: Option<Connection>,
}

impl SessionLease {
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        let mut table = self.sessions.table();
        if table.closed {
            return;
        }
        if let Some(slot) = table.slots.get_mut(&self.key) {
            slot.connection = self.connection.take();
            slot.expires = Instant::now() + self.timeout;
        }
    }
}
