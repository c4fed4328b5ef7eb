//! The landing's cycle. It is stepped like a worker. While the batch of one partition is being inserted, records of all are
//! read and written as rows; an insert that fails is repeated with the same token while the other partitions go on.

use std::collections::BTreeMap;
use std::time::Duration;

use neonhub_schemas::codec::header;
use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::{OpenSpan, SpanKind, Tracer};

use super::buffer::{BatchLimits, PartitionBuffer};
use super::inserters::{Ended, Inserters};
use super::insertion::Insertion;
use super::rows::Table;
use crate::engine::{
    Clock, CommitUnit, Committer, EngineError, EngineMetrics, LogReader, OBSERVE_MS, Ports, Source, SourceEvent,
};

#[derive(Clone, Debug)]
pub struct LandingConfig {
    /// How long the first record of a batch waits for others.
    pub linger: Duration,
    pub limits: BatchLimits,
    /// Bytes waiting in one partition at which it is paused.
    pub pause_bytes: usize,
    /// How long a step waits for records when nothing is being inserted.
    pub idle_wait: Duration,
    /// How long it waits for an insert to end when there are no records.
    pub insert_wait: Duration,
    /// In front of each token: deployments that share a ClickHouse must not share tokens.
    pub token_prefix: String,
}

impl Default for LandingConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(400),
            limits: BatchLimits { max_rows: 100_000, max_bytes: 64 * 1024 * 1024 },
            pause_bytes: 96 * 1024 * 1024,
            idle_wait: Duration::from_millis(50),
            insert_wait: Duration::from_millis(5),
            token_prefix: String::new(),
        }
    }
}

pub struct Landing {
    source: Box<dyn Source>,
    committer: Box<dyn Committer>,
    reader: Box<dyn LogReader>,
    inserters: Box<dyn Inserters>,
    tracer: Tracer,
    clock: Clock,
    config: LandingConfig,
    metrics: EngineMetrics,
    partitions: BTreeMap<TopicPartition, PartitionBuffer>,
    /// Partitions of which a batch is being inserted, also ones that are no longer ours: when one comes back meanwhile, its
    /// batch is not repeated before that has ended.
    in_flight: Vec<TopicPartition>,
    /// Traced records on their way, by their places.
    traced: BTreeMap<(TopicPartition, u64), OpenSpan>,
    observed_at_ms: i64,
}

/// Beyond it records are landed without being told of: the exporter drops what is more at one time anyway.
const MOST_TRACED: usize = 16_384;

type Commits = BTreeMap<TopicPartition, CommittedOffset>;

impl Landing {
    #[must_use]
    pub fn new(
        ports: Ports,
        inserters: Box<dyn Inserters>,
        clock: Clock,
        config: LandingConfig,
        metrics: EngineMetrics,
    ) -> Self {
        let Ports { source, committer, reader, states: _, tracer } = ports;
        Self {
            source,
            committer,
            reader,
            inserters,
            tracer,
            clock,
            config,
            metrics,
            partitions: BTreeMap::new(),
            in_flight: Vec::new(),
            traced: BTreeMap::new(),
            observed_at_ms: i64::MIN,
        }
    }

    /// One turn: take what came, commit what has landed together with the plans of what is due, begin to insert that.
    /// Returns the number of rows landed.
    ///
    /// # Errors
    /// The log is away or we are fenced: begin again from what is committed.
    pub fn step(&mut self) -> Result<usize, EngineError> {
        let wait = if self.in_flight.is_empty() { self.config.idle_wait } else { Duration::ZERO };
        let events = self.source.poll(wait)?;
        let is_quiet = events.is_empty();
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => self.open(&partitions)?,
                SourceEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.partitions.remove(&partition);
                        self.metrics.forget("landing", partition);
                        self.traced.retain(|(place, _), _| *place != partition);
                    }
                }
                SourceEvent::Records(records) => self.take(&records)?,
                SourceEvent::AtEnd(_) => {}
            }
        }
        self.observe();
        let mut commits = Commits::new();
        let rows = self.take_ended(if is_quiet { self.config.insert_wait } else { Duration::ZERO }, &mut commits);
        let planned = self.plan_due(&mut commits);
        self.commit(commits)?;
        for partition in planned {
            self.begin(partition);
        }
        self.resume_drained()?;
        Ok(rows)
    }

    /// Whether the group gave us partitions.
    #[must_use]
    pub fn has_partitions(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// Waits for what is being inserted and commits it; for a clean end. What waits to be inserted is read again.
    ///
    /// # Errors
    /// The log is away; what is not committed is repeated by the next one.
    pub fn finish(mut self) -> Result<(), EngineError> {
        let mut commits = Commits::new();
        while !self.in_flight.is_empty() {
            self.take_ended(Duration::from_secs(1), &mut commits);
        }
        self.commit(commits)
    }

    fn observe(&mut self) {
        let now_ms = (self.clock)();
        if now_ms.saturating_sub(self.observed_at_ms).abs() >= OBSERVE_MS {
            self.observed_at_ms = now_ms;
            // Of other partitions a client may still have something to say.
            let is_ours = |(place, _): &(TopicPartition, u64)| self.partitions.contains_key(place);
            let lags: Vec<_> = self.source.lag().into_iter().filter(is_ours).collect();
            self.metrics.observe_lag("landing", &lags);
        }
    }

    fn open(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        let committed = self.source.committed(partitions)?;
        for (partition, committed) in partitions.iter().zip(&committed) {
            let (_, end) = self.reader.bounds(*partition)?;
            let from = committed.as_ref().map_or(0, |committed| committed.offset);
            if from > end {
                let detail = format!("{partition} ends at {end}, before the committed offset {from}");
                return Err(EngineError::Fatal(detail));
            }
            let buffer = PartitionBuffer::open(*partition, committed.as_ref(), self.config.limits);
            self.partitions.insert(*partition, buffer);
        }
        self.source.resume(partitions)
    }

    fn take(&mut self, records: &[Record]) -> Result<(), EngineError> {
        let now_ms = (self.clock)();
        for run in records.chunk_by(|one, next| one.topic_partition() == next.topic_partition()) {
            let place = run[0].topic_partition();
            let Some(buffer) = self.partitions.get_mut(&place) else {
                return Err(EngineError::Fenced(format!("{place} delivers before it is opened")));
            };
            for record in run {
                if buffer.push(record, now_ms) && self.traced.len() < MOST_TRACED {
                    self.traced.extend(follow(&self.tracer, record, now_ms).map(|span| ((place, record.offset), span)));
                }
            }
        }
        let mut full = Vec::new();
        for (partition, buffer) in &mut self.partitions {
            if !buffer.paused && buffer.bytes() >= self.config.pause_bytes {
                buffer.paused = true;
                full.push(*partition);
            }
        }
        if full.is_empty() { Ok(()) } else { self.source.pause(&full) }
    }

    /// Notes what has ended. Returns the number of rows landed.
    fn take_ended(&mut self, wait: Duration, commits: &mut Commits) -> usize {
        let mut rows = 0;
        for Ended { place, outcome } in self.inserters.ended(wait) {
            self.in_flight.retain(|in_flight| *in_flight != place);
            let now_ms = (self.clock)();
            // Not ours any more, or ours again since: nothing may be concluded from it.
            let Some(buffer) = self.partitions.get_mut(&place) else { continue };
            match outcome {
                Ok(()) => {
                    let Some(batch) = buffer.landed() else { continue };
                    self.metrics.observe_retries(place, 0);
                    rows += batch.rows.len();
                    commits.insert(place, CommittedOffset { offset: batch.to, metadata: String::new() });
                    let landed = self.traced.extract_if((place, 0)..(place, batch.to), |_, _| true);
                    for (_, span) in landed {
                        self.tracer.end(span, "landing", SpanKind::Consumer, now_ms.saturating_mul(1_000), None);
                    }
                }
                Err(error) => {
                    let Some(backoff_ms) = buffer.failed(now_ms) else { continue };
                    self.metrics.landing_failures.inc();
                    let failures = buffer.failures;
                    self.metrics.observe_retries(place, failures);
                    tracing::warn!(%place, %error, failures, backoff_ms, "insert failed, will be repeated");
                }
            }
        }
        rows
    }

    /// Fixes the batches that are to begin now, those that wait longest first. A plan goes into the commit of the batch
    /// before it, if that has just landed.
    fn plan_due(&mut self, commits: &mut Commits) -> Vec<TopicPartition> {
        let now_ms = (self.clock)();
        let linger_ms = i64::try_from(self.config.linger.as_millis()).unwrap_or(i64::MAX);
        let mut due: Vec<(i64, TopicPartition)> = self
            .partitions
            .iter()
            .filter(|(partition, _)| !self.in_flight.contains(partition))
            .filter_map(|(partition, buffer)| Some((buffer.due_since_ms(now_ms, linger_ms)?, *partition)))
            .collect();
        due.sort_unstable();
        due.truncate(self.inserters.free());
        let partitions: Vec<TopicPartition> = due.into_iter().map(|(_, partition)| partition).collect();
        for partition in &partitions {
            if let Some(plan) = self.partitions.get_mut(partition).and_then(|buffer| buffer.plan(now_ms)) {
                commits.insert(*partition, plan);
            }
        }
        partitions
    }

    fn commit(&mut self, commits: Commits) -> Result<(), EngineError> {
        if commits.is_empty() {
            return Ok(());
        }
        self.committer.commit(CommitUnit { records: Vec::new(), offsets: commits.into_iter().collect() })
    }

    /// Its plan is written down: the batch may be inserted.
    fn begin(&mut self, place: TopicPartition) {
        let Some(buffer) = self.partitions.get_mut(&place) else { return };
        let is_repeated = buffer.is_repeated();
        let Some(batch) = buffer.begin() else { return };
        let prefix = &self.config.token_prefix;
        let token = format!("{prefix}{}:{}:{}-{}", place.topic.name(), place.partition, batch.from, batch.to);
        self.in_flight.push(place);
        self.inserters.begin(Insertion { place, batch, token, is_repeated, metrics: self.metrics.clone() });
    }

    fn resume_drained(&mut self) -> Result<(), EngineError> {
        let mut drained = Vec::new();
        for (partition, buffer) in &mut self.partitions {
            if buffer.paused && buffer.bytes() < self.config.pause_bytes / 2 {
                buffer.paused = false;
                drained.push(*partition);
            }
        }
        if drained.is_empty() { Ok(()) } else { self.source.resume(&drained) }
    }
}

/// Whoever has the partitions next tells of them.
impl Drop for Landing {
    fn drop(&mut self) {
        for partition in self.partitions.keys() {
            self.metrics.forget("landing", *partition);
        }
    }
}

/// The way of a record into its table, with what finds its row there. `None`: the record is not traced.
fn follow(tracer: &Tracer, record: &Record, now_ms: i64) -> Option<OpenSpan> {
    let mut span = tracer.follow(record, now_ms.saturating_mul(1_000))?;
    let attributes = &mut span.attributes;
    attributes.push(("db.system.name", "clickhouse".into()));
    attributes.push(("db.collection.name", Table::of(record.topic).name().into()));
    // The key of an event names its user; its row is found by its place.
    if record.topic == Topic::MetricsWindows {
        attributes.push(("messaging.kafka.message.key", String::from_utf8_lossy(&record.key).into_owned().into()));
    }
    if let Some(message_id) = record.headers.get(header::MESSAGE_ID) {
        attributes.push(("neonhub.message_id", String::from_utf8_lossy(message_id).into_owned().into()));
    }
    Some(span)
}
