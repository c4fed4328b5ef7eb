//! One thread tails `metrics.windows` for every live client of this process; a few more read for those that catch up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use neonhub_schemas::metric::{Aggregation, MetricKey};
use neonhub_schemas::record::Record;
use neonhub_schemas::trace::{SpanKind, Tracer};
use tokio::runtime::Runtime;
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::position::Position;
use super::update::{Update, read_update};
use super::{FeedError, FeedLog, FeedReader};
use crate::state::Clock;
use crate::telemetry::Telemetry;

/// How long a poll waits; also how long shutting down may take.
const POLL: Duration = Duration::from_millis(250);
const RETRY: Duration = Duration::from_millis(500);
/// Of a partition, at one time.
const MAX_RECORDS: usize = 2_000;
/// Threads that read the log for all followers. Each keeps megabytes, of what it read, for its allocator.
const READERS: usize = 8;

/// Knows the aggregation of a metric's series.
pub type Aggregations = Arc<dyn Fn(&MetricKey) -> Option<Aggregation> + Send + Sync>;

/// Told of traced windows that were handed to subscribers.
pub struct Pushes {
    pub tracer: Tracer,
    pub clock: Clock,
}

impl Pushes {
    fn tell(&self, record: &Record, subscribers: usize) {
        // Since it was put out by the merge stage.
        if let Some(mut span) = self.tracer.follow(record, record.timestamp_ms.saturating_mul(1_000)) {
            span.attributes.push(("neonhub.live.subscribers", (subscribers as u64).into()));
            let end_us = (self.clock)().saturating_mul(1_000);
            self.tracer.end(span, "live push", SpanKind::Producer, end_us, None);
        }
    }
}

struct Inner {
    log: Arc<dyn FeedLog>,
    aggregations: Aggregations,
    updates: broadcast::Sender<Arc<Update>>,
    /// By partition: after the last record that was handed to `updates`. `None` until the log has answered once.
    next: Mutex<Option<Vec<u64>>>,
    started: tokio::sync::watch::Sender<bool>,
    /// Why the log cannot be read; `None`: it can.
    failure: Mutex<Option<String>>,
    is_stopping: AtomicBool,
    wake: (Mutex<()>, Condvar),
    telemetry: Arc<Telemetry>,
    pushes: Pushes,
}

pub struct Hub {
    inner: Arc<Inner>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Only for its pool of threads. `None` while it is dropped.
    readers: Option<Runtime>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Starts the thread, at the log's end.
    ///
    /// # Errors
    /// The system has no thread for us.
    pub fn start(
        log: Arc<dyn FeedLog>,
        aggregations: Aggregations,
        buffer: usize,
        telemetry: Arc<Telemetry>,
        pushes: Pushes,
    ) -> std::io::Result<Arc<Self>> {
        let inner = Arc::new(Inner {
            log,
            aggregations,
            updates: broadcast::Sender::new(buffer.max(1)),
            next: Mutex::new(None),
            started: tokio::sync::watch::Sender::new(false),
            failure: Mutex::new(Some("the log has not been read yet".to_owned())),
            is_stopping: AtomicBool::new(false),
            wake: (Mutex::new(()), Condvar::new()),
            telemetry,
            pushes,
        });
        let tailing = inner.clone();
        let thread = std::thread::Builder::new().name("live-hub".to_owned()).spawn(move || tailing.run())?;
        let readers = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(READERS)
            .thread_name("live-reader")
            .build()?;
        Ok(Arc::new(Self { inner, thread: Mutex::new(Some(thread)), readers: Some(readers) }))
    }

    /// Ends the thread; clients see the end of their stream.
    pub fn stop(&self) {
        self.inner.is_stopping.store(true, Ordering::SeqCst);
        self.inner.wake.1.notify_all();
        if let Some(thread) = lock(&self.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the live hub ended with a panic");
        }
    }

    /// Updates from now on, and the place after the last one before. Every update from that place on will come.
    pub async fn subscribe(&self) -> (broadcast::Receiver<Arc<Update>>, Position) {
        let mut started = self.inner.started.subscribe();
        // The sender lives as long as we do.
        let _started = started.wait_for(|started| *started).await;
        let receiver = self.inner.updates.subscribe();
        // Read after subscribing: the thread moves on before it sends, so nothing falls between.
        let next = lock(&self.inner.next).clone().unwrap_or_default();
        (receiver, Position(next))
    }

    /// Reads the log for a follower, as soon as a reader is free; nothing is read for one who has gone by then.
    ///
    /// # Errors
    /// See [`FeedError`].
    pub async fn read_log<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn FeedLog) -> Result<T, FeedError> + Send + 'static,
    ) -> Result<T, FeedError> {
        let (log, stopping) = (self.inner.log.clone(), || FeedError::Away("the server is stopping".to_owned()));
        // Unlike the handle of a task, it takes back what has not begun when it is dropped.
        let mut reading = JoinSet::new();
        reading.spawn_blocking_on(move || read(&*log), self.readers.as_ref().ok_or_else(stopping)?.handle());
        let read = reading.join_next().await.ok_or_else(stopping)?;
        read.map_err(|error| FeedError::Away(error.to_string()))?
    }

    /// Closes a reader where that may block.
    pub fn close(&self, reader: Box<dyn FeedReader>) {
        if let Some(readers) = &self.readers {
            // Nobody waits for it.
            drop(readers.spawn_blocking(move || drop(reader)));
        }
    }

    /// Reads a record as the hub does, for a replay.
    #[must_use]
    pub fn read(&self, record: &Record) -> Option<Update> {
        read_update(record, &|key| (self.inner.aggregations)(key))
    }

    /// Why the log cannot be read.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.inner.failure).clone()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.stop();
        if let Some(readers) = self.readers.take() {
            // Waits for nobody: this may be an async thread.
            readers.shutdown_background();
        }
    }
}

impl Inner {
    fn run(&self) {
        let mut reader: Option<Box<dyn FeedReader>> = None;
        while !self.is_stopping.load(Ordering::SeqCst) {
            match self.step(&mut reader) {
                Ok(()) => *lock(&self.failure) = None,
                Err(error) => {
                    reader = None;
                    self.recover(&error);
                }
            }
        }
    }

    fn step(&self, reader: &mut Option<Box<dyn FeedReader>>) -> Result<(), FeedError> {
        let reader = match reader {
            Some(reader) => reader,
            None => reader.insert(self.open()?),
        };
        let batch = reader.poll(POLL, MAX_RECORDS)?;
        for record in &batch.records {
            self.hand_on(record);
        }
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn FeedReader>, FeedError> {
        let known = lock(&self.next).clone();
        let from = match known {
            Some(next) => next,
            None => self.log.bounds()?.iter().map(|bound| bound.end).collect(),
        };
        let reader = self.log.reader(&from)?;
        *lock(&self.next) = Some(from);
        self.started.send_replace(true);
        Ok(reader)
    }

    fn hand_on(&self, record: &Record) {
        if let Some(next) = lock(&self.next).as_mut().and_then(|next| next.get_mut(record.partition as usize)) {
            *next = record.offset + 1;
        }
        if self.updates.receiver_count() == 0 {
            return;
        }
        if let Some(update) = read_update(record, &|key| (self.aggregations)(key)) {
            self.telemetry.live_updates.inc();
            // Nobody may be listening any more: nothing is lost, the log has it.
            if let Ok(subscribers) = self.updates.send(Arc::new(update)) {
                self.pushes.tell(record, subscribers);
            }
        }
    }

    fn recover(&self, error: &FeedError) {
        let is_new = lock(&self.failure).replace(error.to_string()).as_deref() != Some(error.to_string().as_str());
        if is_new {
            tracing::warn!(%error, "the live hub cannot read the log; it will go on trying");
        }
        if let FeedError::OutOfRange { partition, start } = error
            && let Some(next) = lock(&self.next).as_mut().and_then(|next| next.get_mut(*partition as usize))
        {
            *next = *start;
            return;
        }
        let guard = lock(&self.wake.0);
        let stopping = |_: &mut ()| !self.is_stopping.load(Ordering::SeqCst);
        let _woken = self.wake.1.wait_timeout_while(guard, RETRY, stopping);
    }
}
