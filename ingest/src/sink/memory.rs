//! A sink in memory, whose faults are injected: for tests of whatever stands in front of it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neonhub_schemas::NewRecord;
use tokio::sync::watch;

use super::{EventSink, SinkError, SinkFuture};

/// What the next append does instead of succeeding.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is written.
    Fail(SinkError),
    /// Everything is written, but the confirmation gets lost.
    UnknownOutcome,
}

#[derive(Debug)]
pub struct MemorySink {
    state: Mutex<State>,
    held: watch::Sender<bool>,
    /// Appends that have begun, those held back too.
    begun: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    records: Vec<NewRecord>,
    faults: VecDeque<Fault>,
    not_ready: Option<String>,
    closed: bool,
}

impl Default for MemorySink {
    fn default() -> Self {
        Self { state: Mutex::default(), held: watch::Sender::new(false), begun: watch::Sender::new(0) }
    }
}

impl MemorySink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was appended, in order.
    #[must_use]
    pub fn records(&self) -> Vec<NewRecord> {
        self.state().records.clone()
    }

    /// Faults are used up one an append, in the order they were given.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    pub fn set_ready(&self, readiness: Result<(), String>) {
        self.state().not_ready = readiness.err();
    }

    /// While held, appends wait.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Resolves once `count` appends have begun.
    pub async fn begun(&self, count: usize) {
        let mut begun = self.begun.subscribe();
        // It cannot fail: the sender lives as long as `self`.
        let _reached = begun.wait_for(|begun| *begun >= count).await.is_ok();
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl EventSink for MemorySink {
    fn append(&self, records: Vec<NewRecord>) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            self.begun.send_modify(|begun| *begun += 1);
            let mut held = self.held.subscribe();
            let _released = held.wait_for(|held| !held).await.is_ok();
            let mut state = self.state();
            match state.faults.pop_front() {
                Some(Fault::Fail(error)) => return Err(error),
                Some(Fault::UnknownOutcome) => {
                    state.records.extend(records);
                    return Err(SinkError::unavailable("no confirmation in time"));
                }
                None => state.records.extend(records),
            }
            Ok(())
        })
    }

    fn ready(&self) -> Result<(), String> {
        self.state().not_ready.clone().map_or(Ok(()), Err)
    }

    fn close(&self, _: Duration) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async move {
            self.state().closed = true;
            Ok(())
        })
    }
}
