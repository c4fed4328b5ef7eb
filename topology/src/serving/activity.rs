//! What a connection is doing: told by its parts, asked by the task that looks after it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Shared;
use super::unread::Unread;

/// Shared by a connection's socket, its requests and their answers. As long as it lives, the connection counts as open.
pub struct Activity {
    pub server: Arc<Shared>,
    pub peer: IpAddr,
    pub unread: Unread,
    begun: Instant,
    exchanges: AtomicU32,
    /// Since when there is no exchange: microseconds after `begun`.
    quiet_since: AtomicU64,
    is_write_blocked: AtomicBool,
    /// What the handler of the request under way did not read.
    left: Mutex<Option<Incoming>>,
}

impl Activity {
    /// Of a connection that was let in.
    pub fn new(server: Arc<Shared>, peer: IpAddr) -> Arc<Self> {
        server.counters.open.inc();
        Arc::new(Self {
            server,
            peer,
            unread: Unread::default(),
            begun: Instant::now(),
            exchanges: AtomicU32::new(0),
            quiet_since: AtomicU64::new(0),
            is_write_blocked: AtomicBool::new(false),
            left: Mutex::new(None),
        })
    }

    /// Since when there has been no request, nor an answer on its way; `None`: there is one.
    pub fn quiet_since(&self) -> Option<Instant> {
        let is_busy = self.exchanges.load(Ordering::Acquire) > 0 || self.is_write_blocked.load(Ordering::Relaxed);
        (!is_busy).then(|| self.begun + Duration::from_micros(self.quiet_since.load(Ordering::Relaxed)))
    }

    /// It has been quiet from now on.
    pub fn now_quiet(&self) {
        let micros = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.quiet_since.store(micros, Ordering::Relaxed);
    }

    pub fn leave(&self, body: Incoming) {
        *self.left.lock() = Some(body);
    }

    pub fn take_left(&self) -> Option<Incoming> {
        self.left.lock().take()
    }

    pub fn set_write_blocked(&self, is_blocked: bool) {
        self.is_write_blocked.store(is_blocked, Ordering::Relaxed);
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.server.counters.open.dec();
        self.server.room.leave();
        self.server.clients.leave(self.peer);
    }
}

/// A request under way, from its head to the end of its answer. Its parts hold one each.
pub struct Exchange(Arc<Activity>);

impl Exchange {
    pub fn begin(activity: &Arc<Activity>) -> Self {
        activity.exchanges.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }

    pub fn activity(&self) -> &Activity {
        &self.0
    }
}

impl Clone for Exchange {
    fn clone(&self) -> Self {
        Self::begin(&self.0)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // First the time: whoever then sees no exchange must not see the time before it.
        if self.0.exchanges.load(Ordering::Relaxed) == 1 {
            self.0.now_quiet();
        }
        self.0.exchanges.fetch_sub(1, Ordering::Release);
    }
}
