//! One live subscription: replay from the log, then the hub, then back to the log whenever the client was too slow.
//! Every revision comes once, in each partition's order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::filter::LiveFilter;
use super::hub::Hub;
use super::position::Position;
use super::update::Update;
use super::{Batch, FeedError, FeedLog, FeedReader};

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Latest,
    Earliest,
    At(Position),
}

/// What a client is told; each with the place to come back to.
#[derive(Clone, Debug)]
pub enum Delivery {
    Window(Position, Arc<Update>),
    /// The place asked for is not in the log any more: what lay there was compacted or deleted.
    Reset(Position, String),
    Heartbeat(Position),
}

/// Ends the subscription.
#[derive(Debug)]
enum Ended {
    ClientGone,
    Stopping,
}

const REPLAY_POLL: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(500);
/// Records of a partition that a replay reads at one time, and their updates wait for the client as long as it likes.
const REPLAY_RECORDS: usize = 50;
/// A reader is given back when its client takes nothing for so long.
const READER_PATIENCE: Duration = Duration::from_secs(1);

pub struct Follow {
    pub hub: Arc<Hub>,
    pub filter: LiveFilter,
    pub heartbeat: Duration,
    pub stopping: watch::Receiver<bool>,
    /// Handed back with every delivery: one channel may serve several subscriptions.
    pub tag: Arc<str>,
    pub out: mpsc::Sender<(Arc<str>, Delivery)>,
}

impl Follow {
    /// Runs until the client is gone or the server stops.
    pub async fn run(self, start: Start) {
        let mut stopping = self.stopping.clone();
        let stopped = async move {
            // An error means that the server is gone, which is stopping too.
            let _stopped = stopping.wait_for(|stopping| *stopping).await;
            Ended::Stopping
        };
        let out = self.out.clone();
        let ended = tokio::select! {
            ended = self.follow(start) => ended,
            ended = stopped => ended,
            () = out.closed() => Ended::ClientGone,
        };
        tracing::debug!(?ended, "a live subscription ended");
    }

    async fn follow(&self, start: Start) -> Ended {
        let mut place: Option<Position> = None;
        let mut start = Some(start);
        loop {
            let (mut updates, target) = self.hub.subscribe().await;
            let mut position = match (place.take(), start.take()) {
                (Some(position), _) => position,
                (None, None | Some(Start::Latest)) => target.clone(),
                (None, Some(begin)) => match self.begin(begin).await {
                    Ok(position) => position,
                    Err(ended) => return ended,
                },
            };
            if let Err(ended) = self.replay(&mut position, &target.0).await {
                return ended;
            }
            let mut ticks = tokio::time::interval(self.heartbeat);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let delivery = tokio::select! {
                    update = updates.recv() => match update {
                        Ok(update) => self.delivery(&mut position, update),
                        Err(RecvError::Lagged(_)) => break,
                        Err(RecvError::Closed) => return Ended::Stopping,
                    },
                    _ = ticks.tick() => Some(Delivery::Heartbeat(position.clone())),
                };
                if let Some(delivery) = delivery
                    && let Err(ended) = self.send(delivery).await
                {
                    return ended;
                }
            }
            place = Some(position);
        }
    }

    fn delivery(&self, position: &mut Position, update: Arc<Update>) -> Option<Delivery> {
        let is_new = position.advance(update.partition, update.offset);
        (is_new && self.filter.wants(&update)).then(|| Delivery::Window(position.clone(), update))
    }

    /// The first place, corrected where the log has forgotten it.
    async fn begin(&self, start: Start) -> Result<Position, Ended> {
        let bounds = loop {
            match self.hub.read_log(|log| log.bounds()).await {
                Ok(bounds) => break bounds,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let earliest = Position(bounds.iter().map(|bound| bound.start).collect());
        let Start::At(position) = start else { return Ok(earliest) };
        match position.corrected(&bounds) {
            None => Ok(position),
            Some(corrected) => self.reset(&position, corrected).await,
        }
    }

    async fn reset(&self, from: &Position, to: Position) -> Result<Position, Ended> {
        let detail = format!("{from} is not in the log any more; going on from {to}");
        self.send(Delivery::Reset(to.clone(), detail)).await?;
        Ok(to)
    }

    async fn send(&self, delivery: Delivery) -> Result<(), Ended> {
        self.out.send((self.tag.clone(), delivery)).await.map_err(|_| Ended::ClientGone)
    }

    /// While the client takes nothing, what is read ahead for it is not kept.
    async fn send_with(&self, open: &mut OpenReader<'_>, delivery: Delivery) -> Result<(), Ended> {
        let sending = self.send(delivery);
        tokio::pin!(sending);
        match tokio::time::timeout(READER_PATIENCE, &mut sending).await {
            Ok(sent) => sent,
            Err(_) => {
                open.close();
                sending.await
            }
        }
    }

    /// Reads the log from `position` to where the hub was when it began to buffer for us.
    async fn replay(&self, position: &mut Position, target: &[u64]) -> Result<(), Ended> {
        let mut open = OpenReader { hub: &self.hub, reader: None };
        while !position.has_reached(target) {
            match self.replay_step(open.reader.take(), position.clone()).await {
                Ok((next_reader, step)) => {
                    open.reader = Some(next_reader);
                    for update in step.updates {
                        if position.advance(update.partition, update.offset) {
                            let delivery = Delivery::Window(position.clone(), Arc::new(update));
                            self.send_with(&mut open, delivery).await?;
                        }
                    }
                    position.pass_over(&step.next);
                    for partition in step.at_end {
                        let index = partition as usize;
                        if let (Some(next), Some(target)) = (position.0.get_mut(index), target.get(index)) {
                            *next = (*next).max(*target);
                        }
                    }
                }
                Err(FeedError::OutOfRange { partition, start }) => {
                    let before = position.clone();
                    if let Some(next) = position.0.get_mut(partition as usize) {
                        *next = start;
                    }
                    *position = self.reset(&before, position.clone()).await?;
                }
                Err(FeedError::Away(_)) => tokio::time::sleep(RETRY).await,
            }
        }
        Ok(())
    }

    async fn replay_step(&self, reader: Option<Reader>, position: Position) -> Result<(Reader, Step), FeedError> {
        let (hub, filter) = (self.hub.clone(), self.filter.clone());
        let step = move |log: &dyn FeedLog| {
            let mut reader = match reader {
                Some(reader) => reader,
                None => log.reader(&position.0)?,
            };
            let Batch { records, next, at_end } = reader.poll(REPLAY_POLL, REPLAY_RECORDS)?;
            let updates = records.iter().filter_map(|record| hub.read(record));
            let updates = updates.filter(|update| filter.wants(update)).collect();
            Ok((reader, Step { updates, next, at_end }))
        };
        self.hub.read_log(step).await
    }
}

type Reader = Box<dyn FeedReader>;

/// Closed in the end, however a replay ends.
struct OpenReader<'a> {
    hub: &'a Hub,
    reader: Option<Reader>,
}

impl OpenReader<'_> {
    fn close(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.hub.close(reader);
        }
    }
}

impl Drop for OpenReader<'_> {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a client wants of a [`Batch`]. The records have sketches, which are larger than all else, and go at once.
struct Step {
    updates: Vec<Update>,
    next: Vec<u64>,
    at_end: Vec<u32>,
}
