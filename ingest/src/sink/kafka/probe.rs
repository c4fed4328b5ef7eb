//! Whether the brokers can be reached. Deliveries show it while there is traffic; without any, a thread asks for
//! metadata, so that a process that is out of rotation because it was not ready notices that it is ready again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::SettingsError;

const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Reachability {
    reachable: AtomicBool,
    why_not: Mutex<String>,
}

impl Default for Reachability {
    fn default() -> Self {
        Self { reachable: AtomicBool::new(false), why_not: Mutex::new("no broker has answered yet".to_owned()) }
    }
}

impl Reachability {
    pub(super) fn found(&self) {
        if !self.reachable.load(Ordering::Relaxed) {
            self.reachable.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self, why: impl Into<String>) {
        *self.why_not.lock().unwrap_or_else(PoisonError::into_inner) = why.into();
        self.reachable.store(false, Ordering::Relaxed);
    }

    pub(super) fn verdict(&self) -> Result<(), String> {
        if self.reachable.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(self.why_not.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Stops its thread when dropped.
pub(super) struct Probe {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub(super) fn start(
        config: ClientConfig,
        topic: String,
        reachability: Arc<Reachability>,
    ) -> Result<Self, SettingsError> {
        // A client of its own: asking for metadata blocks, and the producer may be replaced.
        let client: BaseProducer = config.create()?;
        let (stop, stopped) = channel::<()>();
        let thread = Builder::new().name("ingest-kafka-probe".to_owned()).spawn(move || {
            loop {
                match client.client().fetch_metadata(Some(&topic), PATIENCE) {
                    Ok(metadata) if metadata.topics().iter().any(|found| !found.partitions().is_empty()) => {
                        reachability.found();
                    }
                    Ok(_) => reachability.lost(format!("there is no topic {topic}")),
                    Err(error) => reachability.lost(error.to_string()),
                }
                client.poll(Duration::ZERO);
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A probe that panicked has said so already.
            let _panicked = thread.join();
        }
    }
}
