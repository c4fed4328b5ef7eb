//! Between the requests and the producer: what the requests of a moment want to append is handed over together by one
//! thread, which gives out the delivery reports as well. A request wakes nobody but this thread, and that only when it
//! has nothing to do; librdkafka's thread is woken once a bunch, not once a record.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use neonhub_schemas::NewRecord;
use tokio::sync::Notify;

use super::delivery::Delivery;

/// Records of one request, and who waits for them.
pub(super) struct Append {
    pub(super) records: Vec<NewRecord>,
    pub(super) delivery: Arc<Delivery>,
}

/// Records that are neither delivered nor given up.
#[derive(Default)]
pub(crate) struct Outstanding {
    records: AtomicUsize,
    reported: AtomicU64,
    none_left: Notify,
}

impl Outstanding {
    /// Counts records in, if there may be so many.
    pub(super) fn admit(&self, records: usize, max: usize) -> bool {
        let fits = |now: usize| now.checked_add(records).filter(|after| *after <= max);
        self.records.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    /// All that were ever delivered or given up.
    pub(super) fn reported_so_far(&self) -> u64 {
        self.reported.load(Ordering::Acquire)
    }

    pub(super) fn reported(&self, records: usize) {
        self.reported.fetch_add(records as u64, Ordering::AcqRel);
        if self.records.fetch_sub(records, Ordering::AcqRel) == records {
            self.none_left.notify_waiters();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.records.load(Ordering::Acquire)
    }

    /// Resolves when there are none.
    pub(super) async fn none(&self) {
        loop {
            let notified = self.none_left.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

/// What waits to be handed over.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    appends: Vec<Append>,
    is_closed: bool,
    is_awaited: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, append: Append) {
        let mut state = self.lock();
        state.appends.push(append);
        if state.is_awaited {
            self.filled.notify_one();
        }
    }

    /// Nothing more is taken.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// What is there, into `taken`; waits for something at most this long. False when it is closed.
    pub(super) fn take(&self, taken: &mut Vec<Append>, wait: Duration) -> bool {
        let mut state = self.lock();
        if state.appends.is_empty() && !state.is_closed && !wait.is_zero() {
            state.is_awaited = true;
            state = self.filled.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            state.is_awaited = false;
        }
        std::mem::swap(&mut state.appends, taken);
        !state.is_closed
    }
}
