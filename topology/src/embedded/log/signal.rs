//! Wakes readers when something was committed, members came or went, or the log was shut down.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

/// Counts changes; threads wait on the condition variable, async readers on the channel.
pub struct Signal {
    changes: Mutex<u64>,
    changed: Condvar,
    sender: watch::Sender<u64>,
}

impl Signal {
    pub fn new() -> Self {
        Self { changes: Mutex::new(0), changed: Condvar::new(), sender: watch::Sender::new(0) }
    }

    pub fn notify(&self) {
        let mut changes = self.changes.lock();
        *changes += 1;
        self.sender.send_replace(*changes);
        self.changed.notify_all();
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }

    /// Waits until `ready`, checked at every change, or the deadline.
    pub fn wait_until(&self, deadline: Duration, mut ready: impl FnMut() -> bool) {
        let mut changes = self.changes.lock();
        self.changed.wait_while_for(&mut changes, |_| !ready(), deadline);
    }
}
