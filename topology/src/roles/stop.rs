//! The wish to stop, for tasks and threads alike.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Clones share it. Once said, it stays said.
#[derive(Clone, Debug)]
pub struct Stop {
    sender: std::sync::Arc<watch::Sender<bool>>,
    pair: std::sync::Arc<(std::sync::Mutex<bool>, std::sync::Condvar)>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { sender: std::sync::Arc::new(watch::Sender::new(false)), pair: std::sync::Arc::default() }
    }
}

impl Stop {
    pub fn stop(&self) {
        self.sender.send_replace(true);
        let (flag, wake) = &*self.pair;
        *flag.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = true;
        wake.notify_all();
    }

    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.sender.borrow()
    }

    /// For tasks.
    pub async fn stopped(&self) {
        // An error would mean that the sender is gone, and we hold it.
        drop(self.sender.subscribe().wait_for(|stopped| *stopped).await);
    }

    /// For threads: waits at most so long; true when it is time to stop.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let (flag, wake) = &*self.pair;
        let guard = flag.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (guard, _) = wake
            .wait_timeout_while(guard, timeout, |stopped| !*stopped)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *guard
    }
}

/// Returns at SIGINT or SIGTERM.
///
/// # Errors
/// The system lets nobody listen to signals.
pub async fn asked_to_end() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
