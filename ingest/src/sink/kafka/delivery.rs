//! The delivery reports of one request, counted down by the outbox's thread: one allocation a request, not one a record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use super::outbox::Outstanding;

pub(crate) struct Delivery {
    remaining: AtomicUsize,
    outstanding: Arc<Outstanding>,
    state: Mutex<State>,
}

struct State {
    first_error: Option<KafkaError>,
    report: Option<oneshot::Sender<Option<KafkaError>>>,
}

impl Delivery {
    /// Resolves to the first error, if any, once all `records` are reported.
    pub(super) fn of(
        records: usize,
        outstanding: &Arc<Outstanding>,
    ) -> (Arc<Self>, oneshot::Receiver<Option<KafkaError>>) {
        let (report, outcome) = oneshot::channel();
        let state = Mutex::new(State { first_error: None, report: Some(report) });
        let outstanding = Arc::clone(outstanding);
        (Arc::new(Self { remaining: AtomicUsize::new(records), outstanding, state }), outcome)
    }

    pub(super) fn done(&self, error: Option<KafkaError>) {
        self.count(1, error);
    }

    /// For the records that could not even be enqueued.
    pub(super) fn abandon(&self, records: usize, error: KafkaError) {
        self.count(records, Some(error));
    }

    fn count(&self, records: usize, error: Option<KafkaError>) {
        self.outstanding.reported(records);
        if let Some(error) = error {
            self.state.lock().unwrap_or_else(PoisonError::into_inner).first_error.get_or_insert(error);
        }
        if self.remaining.fetch_sub(records, Ordering::AcqRel) > records {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first_error = state.first_error.take();
        if let Some(report) = state.report.take() {
            // Nobody listens any more when the deadline has passed.
            let _deadline_passed = report.send(first_error);
        }
    }
}
