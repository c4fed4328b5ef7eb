//! A few senders side by side. Each actor's events stay in one lane, so they go out in their order, one request after
//! the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::outgoing::OutgoingEvent;
use super::poster::{BatchReport, PostError, Poster};

/// How batches are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    pub lanes: usize,
    pub batch_events: usize,
    pub batch_bytes: usize,
    /// A batch that does not fill is sent after this long.
    pub linger: Duration,
}

impl Default for LaneLimits {
    fn default() -> Self {
        // Ingest takes 500 KB a request by default.
        Self { lanes: 4, batch_events: 100, batch_bytes: 400 * 1024, linger: Duration::from_millis(100) }
    }
}

/// Called for every batch, in no order between the lanes.
pub type OnBatch = Arc<dyn Fn(BatchReport) + Send + Sync>;

#[derive(Debug)]
pub struct Lanes {
    senders: Vec<mpsc::Sender<OutgoingEvent>>,
    tasks: JoinSet<Result<(), PostError>>,
}

/// A lane has ended; [`Lanes::finish`] tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneEnded;

impl Lanes {
    #[must_use]
    pub fn start(poster: &Arc<Poster>, limits: LaneLimits, on_batch: &OnBatch) -> Self {
        let mut tasks = JoinSet::new();
        let lane = |_| {
            let (sender, receiver) = mpsc::channel(limits.batch_events.max(1));
            let lane = Lane { poster: poster.clone(), limits, on_batch: on_batch.clone(), pending: BTreeMap::new() };
            tasks.spawn(lane.run(receiver));
            sender
        };
        let senders = (0..limits.lanes.max(1)).map(lane).collect();
        Self { senders, tasks }
    }

    /// Waits while the event's lane is full.
    ///
    /// # Errors
    /// A lane has ended.
    pub async fn send(&self, event: OutgoingEvent) -> Result<(), LaneEnded> {
        // A lane of any index ends for a reason that holds for all: nobody goes past a failure.
        if self.senders.iter().any(mpsc::Sender::is_closed) {
            return Err(LaneEnded);
        }
        let index = usize::try_from(event.actor % self.senders.len() as u64).unwrap_or(0);
        self.senders[index].send(event).await.map_err(|_| LaneEnded)
    }

    /// Sends what is left and waits for the answers.
    ///
    /// # Errors
    /// The first failure of any lane; the others have been stopped.
    pub async fn finish(mut self) -> Result<(), PostError> {
        self.senders.clear();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap_or_else(|error| Err(PostError { detail: error.to_string(), unsent: 0 }))?;
        }
        Ok(())
    }
}

struct Lane {
    poster: Arc<Poster>,
    limits: LaneLimits,
    on_batch: OnBatch,
    /// By route.
    pending: BTreeMap<Arc<str>, Pending>,
}

#[derive(Default)]
struct Pending {
    events: Vec<OutgoingEvent>,
    bytes: usize,
}

impl Lane {
    async fn run(mut self, mut receiver: mpsc::Receiver<OutgoingEvent>) -> Result<(), PostError> {
        let mut flush_at = None;
        loop {
            let next = match flush_at {
                None => Ok(receiver.recv().await),
                Some(at) => timeout_at(at, receiver.recv()).await,
            };
            match next {
                Ok(Some(event)) => {
                    self.take(event).await?;
                    flush_at = match (self.pending.is_empty(), flush_at) {
                        (true, _) => None,
                        (false, None) => Some(Instant::now() + self.limits.linger),
                        (false, at) => at,
                    };
                }
                Ok(None) => return self.flush().await,
                Err(_elapsed) => {
                    self.flush().await?;
                    flush_at = None;
                }
            }
        }
    }

    async fn take(&mut self, event: OutgoingEvent) -> Result<(), PostError> {
        let route = event.route.clone();
        let size = event.json.len() + 1;
        let is_over = self.pending.get(&route).is_some_and(|batch| batch.bytes + size > self.limits.batch_bytes);
        if is_over && let Some(full) = self.pending.remove(&route) {
            self.deliver(full).await?;
        }
        let batch = self.pending.entry(route.clone()).or_default();
        batch.bytes += size;
        batch.events.push(event);
        if batch.events.len() >= self.limits.batch_events
            && let Some(full) = self.pending.remove(&route)
        {
            self.deliver(full).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), PostError> {
        while let Some((_, batch)) = self.pending.pop_first() {
            self.deliver(batch).await?;
        }
        Ok(())
    }

    async fn deliver(&self, batch: Pending) -> Result<(), PostError> {
        (self.on_batch)(self.poster.post(&batch.events).await?);
        Ok(())
    }
}
