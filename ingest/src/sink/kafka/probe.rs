//! Whether the brokers can be reached. Deliveries show it while there is traffic; without any, a thread asks for
//! metadata, so that a process that is out of rotation because it was not ready notices that it is ready again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};

use super::SettingsError;

const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(2);
/// In a row: the client may have lost all brokers for good (librdkafka#5301).
const FAILURES: u32 = 3;

pub(crate) struct Reachability {
    reachable: AtomicBool,
    why_not: Mutex<String>,
    /// Since when the probe has been answered each time.
    answers_since: Mutex<Option<Instant>>,
}

impl Default for Reachability {
    fn default() -> Self {
        let why_not = Mutex::new("no broker has answered yet".to_owned());
        Self { reachable: AtomicBool::new(false), why_not, answers_since: Mutex::default() }
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

    fn probed(&self, outcome: Result<(), String>) {
        let mut answers_since = self.answers_since.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => {
                answers_since.get_or_insert_with(Instant::now);
                self.found();
            }
            Err(why) => {
                *answers_since = None;
                self.lost(why);
            }
        }
    }

    /// For how long the probe has been answered each time.
    pub(super) fn answers_for(&self) -> Duration {
        let answers_since = *self.answers_since.lock().unwrap_or_else(PoisonError::into_inner);
        answers_since.map_or(Duration::ZERO, |since| since.elapsed())
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
        let mut client: BaseProducer = config.create()?;
        let (stop, stopped) = channel::<()>();
        let thread = Builder::new().name("ingest-kafka-probe".to_owned()).spawn(move || {
            let mut failures = 0;
            loop {
                let answer = client.client().fetch_metadata(Some(&topic), PATIENCE);
                failures = if answer.is_ok() { 0 } else { failures + 1 };
                reachability.probed(match answer {
                    Ok(metadata) if metadata.topics().iter().any(|found| !found.partitions().is_empty()) => Ok(()),
                    Ok(_) => Err(format!("there is no topic {topic}")),
                    Err(error) => Err(error.to_string()),
                });
                if failures >= FAILURES {
                    client = config.create().unwrap_or(client);
                    failures = 0;
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
