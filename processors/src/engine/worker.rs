//! The cycle: poll → process → one atomic commit, as soon as the input pauses and at the latest every commit interval.

use std::collections::BTreeMap;
use std::time::Duration;

use neonhub_schemas::record::{CommittedOffset, NewRecord, Record, TopicPartition};
use neonhub_schemas::trace::{OpenSpan, SpanKind, Tracer};

use super::local_state::{LocalState, Marker};
use super::ports::{CommitUnit, Committer, EngineError, LogReader, Ports, Source, SourceEvent, StateStores};
use super::stage::{Restore, Stage};
use super::{Clock, EngineMetrics, Outputs};

/// How often a worker commits.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// The longest that processed records wait for their commit.
    pub commit_interval: Duration,
    /// Commit at the latest after this many records.
    pub commit_records: u64,
    /// Commit at the latest after so many bytes of input; a commit with more output than that leaves further partitions to
    /// another one.
    pub commit_bytes: usize,
    /// How long a poll waits when there is nothing to do.
    pub idle_wait: Duration,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            commit_records: 50_000,
            commit_bytes: 16 << 20,
            idle_wait: Duration::from_millis(50),
        }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub records: usize,
    pub committed: bool,
}

struct OpenTask<T> {
    task: T,
    /// The offset after the last processed record; `None` before the first.
    next_offset: Option<u64>,
    /// Records below it were committed, or processed since: one that comes again is passed over.
    expected_offset: u64,
    /// What is committed for the partition. Outputs never go without it: the group's generation fences a commit only where
    /// there are offsets in it.
    committed: CommittedOffset,
    /// Not committed yet; given up with the task when its partition is revoked.
    outputs: Outputs,
    /// Of traced records; they end with the commit.
    spans: Vec<OpenSpan>,
    dirty: bool,
}

/// One worker of a processor. After an error it is dropped and made anew: its state is rebuilt from what is committed.
pub struct Worker<S: Stage> {
    stage: S,
    source: Box<dyn Source>,
    committer: Box<dyn Committer>,
    reader: Box<dyn LogReader>,
    states: Option<Box<dyn StateStores>>,
    tracer: Tracer,
    clock: Clock,
    config: WorkerConfig,
    metrics: EngineMetrics,
    tasks: BTreeMap<TopicPartition, OpenTask<S::Task>>,
    globals: Vec<(TopicPartition, u64)>,
    uncommitted_records: u64,
    uncommitted_bytes: usize,
    uncommitted_since_ms: Option<i64>,
    observed_at_ms: i64,
    followed_at_ms: i64,
}

/// How often topics that every worker follows are looked at when nothing else comes.
const FOLLOW_MS: i64 = 500;

/// How often gauges are set.
pub const OBSERVE_MS: i64 = 2_000;

impl<S: Stage> Worker<S> {
    /// # Errors
    /// The log is away.
    pub fn new(
        stage: S,
        ports: Ports,
        clock: Clock,
        config: WorkerConfig,
        metrics: EngineMetrics,
    ) -> Result<Self, EngineError> {
        let Ports { source, committer, reader, states, tracer } = ports;
        let globals = stage.globals().into_iter().map(|topic| (TopicPartition { topic, partition: 0 }, 0)).collect();
        let mut worker = Self {
            stage,
            source,
            committer,
            reader,
            states,
            tracer,
            clock,
            config,
            metrics,
            tasks: BTreeMap::new(),
            globals,
            uncommitted_records: 0,
            uncommitted_bytes: 0,
            uncommitted_since_ms: None,
            observed_at_ms: i64::MIN,
            followed_at_ms: i64::MIN,
        };
        worker.follow_globals()?;
        Ok(worker)
    }

    /// One turn of the cycle.
    ///
    /// # Errors
    /// The worker must be dropped and made anew.
    pub fn step(&mut self) -> Result<Progress, EngineError> {
        let wait = if self.uncommitted_records > 0 { Duration::ZERO } else { self.config.idle_wait };
        let is_full = self.tasks.values().any(|open| self.stage.is_full(&open.task));
        let events = if is_full { Vec::new() } else { self.source.poll(wait)? };
        let mut progress = Progress::default();
        let asleep_ms = (self.clock)().saturating_sub(self.followed_at_ms).abs();
        if !events.is_empty() || asleep_ms >= FOLLOW_MS {
            self.follow_globals()?;
        }
        for event in events {
            match event {
                SourceEvent::Assigned(partitions) => self.open(&partitions)?,
                SourceEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.tasks.remove(&partition);
                        self.metrics.forget(self.stage.name(), partition);
                    }
                }
                SourceEvent::Records(records) => {
                    progress.records += records.len();
                    self.process(&records)?;
                }
                SourceEvent::AtEnd(partition) => {
                    let now_ms = (self.clock)();
                    if let Some(open) = self.tasks.get_mut(&partition) {
                        self.stage.at_end(&mut open.task, now_ms);
                    }
                }
            }
        }
        if self.must_commit(progress.records == 0) {
            self.commit()?;
            progress.committed = true;
        }
        self.observe();
        Ok(progress)
    }

    /// Commits what is processed; for a clean end.
    ///
    /// # Errors
    /// The log is away; what was not committed is processed again by the next worker.
    pub fn finish(mut self) -> Result<(), EngineError> {
        self.commit()
    }

    fn must_commit(&self, paused: bool) -> bool {
        let now_ms = (self.clock)();
        if self.uncommitted_records > 0 {
            let interval_ms = i64::try_from(self.config.commit_interval.as_millis()).unwrap_or(i64::MAX);
            let overdue = self.uncommitted_since_ms.is_some_and(|since| now_ms - since >= interval_ms);
            let is_full = self.uncommitted_records >= self.config.commit_records
                || self.uncommitted_bytes >= self.config.commit_bytes;
            if paused || overdue || is_full {
                return true;
            }
        }
        self.tasks.values().any(|open| self.stage.is_due(&open.task, now_ms))
    }

    fn process(&mut self, records: &[Record]) -> Result<(), EngineError> {
        let now_ms = (self.clock)();
        let labels = [self.stage.name()];
        let mut bytes = 0;
        for record in records {
            let place = record.topic_partition();
            let Some(open) = self.tasks.get_mut(&place) else {
                // To pass over it could lose it: the next one would move the committed offset past it.
                return Err(EngineError::Fenced(format!("{place} delivers before its state is restored")));
            };
            if record.offset < open.expected_offset {
                continue;
            }
            let span = self.tracer.follow(record, now_ms.saturating_mul(1_000));
            open.outputs.trace = span.as_ref().map(|span| span.context);
            self.stage.process(&mut open.task, record, now_ms, &mut open.outputs);
            open.outputs.trace = None;
            open.spans.extend(span);
            if let Some(error) = open.outputs.failure.take() {
                return Err(error);
            }
            open.expected_offset = record.offset + 1;
            open.next_offset = Some(record.offset + 1);
            open.dirty = true;
            self.uncommitted_records += 1;
            bytes += record.size();
        }
        self.uncommitted_bytes += bytes;
        self.uncommitted_since_ms.get_or_insert(now_ms);
        self.metrics.records.with_label_values(&labels).inc_by(records.len() as u64);
        self.metrics.bytes.with_label_values(&labels).inc_by(bytes as u64);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), EngineError> {
        while self.commit_some()? {}
        self.uncommitted_records = 0;
        self.uncommitted_bytes = 0;
        self.uncommitted_since_ms = None;
        Ok(())
    }

    /// One unit; says whether partitions are left that it had no room for.
    fn commit_some(&mut self) -> Result<bool, EngineError> {
        let now_ms = (self.clock)();
        let (mut bytes, mut has_more) = (0, false);
        let mut unit = CommitUnit::default();
        let mut counted = Outputs::default();
        let mut markers = Vec::new();
        let mut spans = Vec::new();
        for (partition, open) in &mut self.tasks {
            if !open.dirty && !self.stage.is_due(&open.task, now_ms) {
                continue;
            }
            if bytes >= self.config.commit_bytes {
                has_more = true;
                break;
            }
            let mut outputs = std::mem::take(&mut open.outputs);
            let committed = self.stage.prepare_commit(&mut open.task, open.next_offset, now_ms, &mut outputs);
            if let Some(error) = outputs.failure.take() {
                return Err(error);
            }
            let has_moved = committed.is_some();
            if let Some(committed) = committed {
                open.committed = committed;
            }
            let may_save = self.stage.may_save(&open.task);
            if has_moved || !outputs.records.is_empty() || may_save {
                unit.offsets.push((*partition, open.committed.clone()));
                if may_save {
                    let plan = self.stage.restore_plan(*partition, Some(&open.committed));
                    let committed = open.committed.offset;
                    markers.push((*partition, Marker::before_commit(&mut *self.reader, &plan, committed, now_ms)?));
                }
            }
            open.dirty = false;
            bytes += outputs.records.iter().map(NewRecord::size).sum::<usize>();
            unit.records.append(&mut outputs.records);
            counted.add_counts(&outputs);
            spans.append(&mut open.spans);
        }
        if unit.records.is_empty() && unit.offsets.is_empty() {
            return Ok(has_more);
        }
        debug_assert!(
            unit.records.iter().all(|record| self.stage.outputs().contains(&record.topic)),
            "{} writes to a topic that it does not name",
            self.stage.name()
        );
        let labels = [self.stage.name()];
        let count = unit.records.len() as u64;
        let timer = self.metrics.commit_seconds.with_label_values(&labels).start_timer();
        self.committer.commit(unit)?;
        timer.observe_duration();
        let end_us = (self.clock)().saturating_mul(1_000);
        for span in spans {
            self.tracer.end(span, self.stage.name(), SpanKind::Consumer, end_us, None);
        }
        self.metrics.commits.with_label_values(&labels).inc();
        self.metrics.outputs.with_label_values(&labels).inc_by(count);
        self.metrics.duplicates.with_label_values(&labels).inc_by(counted.duplicates);
        self.metrics.late.with_label_values(&labels).inc_by(counted.late);
        self.metrics.dead_letters.with_label_values(&labels).inc_by(counted.dead_letters);
        self.metrics.capped.with_label_values(&labels).inc_by(counted.capped);
        for (partition, marker) in markers {
            if let Some(open) = self.tasks.get_mut(&partition) {
                self.stage.save(&mut open.task, &marker)?;
            }
        }
        Ok(has_more)
    }

    /// Entries and bytes of state in memory, of all partitions.
    #[must_use]
    pub fn state_size(&self) -> (usize, usize) {
        let sizes = self.tasks.values().map(|open| self.stage.state_size(&open.task));
        sizes.fold((0, 0), |(entries, bytes), (more, more_bytes)| (entries + more, bytes + more_bytes))
    }

    fn observe(&mut self) {
        let now_ms = (self.clock)();
        if now_ms.saturating_sub(self.observed_at_ms).abs() < OBSERVE_MS {
            return;
        }
        self.observed_at_ms = now_ms;
        // Of other partitions a client may still have something to say.
        let lags: Vec<_> = self.source.lag().into_iter().filter(|(place, _)| self.tasks.contains_key(place)).collect();
        self.metrics.observe_lag(self.stage.name(), &lags);
        for (place, open) in &self.tasks {
            let partition = place.partition.to_string();
            let labels = [self.stage.name(), place.topic.name(), partition.as_str()];
            let (entries, bytes) = self.stage.state_size(&open.task);
            self.metrics.state_entries.with_label_values(&labels).set(i64::try_from(entries).unwrap_or(i64::MAX));
            self.metrics.state_bytes.with_label_values(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            if let Some(watermark_ms) = self.stage.watermark_ms(&open.task) {
                let delay = self.metrics.watermark_delay_seconds.with_label_values(&labels);
                delay.set((now_ms - watermark_ms).div_euclid(1_000));
            }
        }
    }

    fn open(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        let committed = self.source.committed(partitions)?;
        for (partition, committed) in partitions.iter().zip(&committed) {
            let timer = self.metrics.restore_seconds.with_label_values(&[self.stage.name()]).start_timer();
            let plan = self.stage.restore_plan(*partition, committed.as_ref());
            let local = self.open_local(*partition, &plan, committed.as_ref())?;
            let parts = plan.into_iter().map(|part| self.restore_bounds(part, local.as_ref()));
            let parts: Vec<(TopicPartition, u64, u64)> = parts.collect::<Result<_, _>>()?;
            let mut task = self.stage.open(*partition, committed.as_ref(), local)?;
            let (mut restored, mut outcome) = (0_u64, Ok(()));
            for (place, from, to) in parts {
                let stage = &self.stage;
                self.reader.read(place, from, to, &mut |record| {
                    if outcome.is_ok() {
                        restored += 1;
                        outcome = stage.restore(&mut task, &record);
                    }
                })?;
            }
            outcome?;
            let seconds = timer.stop_and_record();
            let (start, end) = self.reader.bounds(*partition)?;
            let committed = committed.clone().unwrap_or(CommittedOffset { offset: start, metadata: String::new() });
            if committed.offset > end {
                // Going on would count again what comes again, or pass over what is new.
                let detail = format!("{partition} ends at {end}, before the committed offset {}", committed.offset);
                return Err(EngineError::Fatal(detail));
            }
            let (stage, offset) = (self.stage.name(), committed.offset);
            tracing::info!(stage, %partition, offset, start, end, restored, seconds, "partition opened");
            let open = OpenTask {
                task,
                next_offset: None,
                expected_offset: committed.offset,
                committed,
                outputs: Outputs::default(),
                spans: Vec::new(),
                dirty: false,
            };
            self.tasks.insert(*partition, open);
        }
        self.source.resume(partitions)
    }

    fn open_local(
        &mut self,
        partition: TopicPartition,
        plan: &[Restore],
        committed: Option<&CommittedOffset>,
    ) -> Result<Option<LocalState>, EngineError> {
        let Some(states) = self.states.as_mut().filter(|_| self.stage.has_local_state()) else { return Ok(None) };
        let store = states.open(self.stage.name(), partition)?;
        LocalState::open(store, &mut *self.reader, plan, committed, (self.clock)()).map(Some)
    }

    fn restore_bounds(
        &mut self,
        part: Restore,
        local: Option<&LocalState>,
    ) -> Result<(TopicPartition, u64, u64), EngineError> {
        let place = part.place();
        let (start, end) = self.reader.bounds(place)?;
        let wanted = match part {
            Restore::Whole(_) => start,
            Restore::Since(_, timestamp_ms) => self.reader.offset_for_time(place, timestamp_ms)?,
        };
        let held_to = local.and_then(|local| local.restore_from(place)).unwrap_or(start);
        Ok((place, wanted.max(held_to).max(start), end))
    }

    fn follow_globals(&mut self) -> Result<(), EngineError> {
        self.followed_at_ms = (self.clock)();
        for index in 0..self.globals.len() {
            let (place, position) = self.globals[index];
            let (start, end) = self.reader.bounds(place)?;
            if position >= end {
                continue;
            }
            let stage = &mut self.stage;
            self.reader.read(place, position.max(start), end, &mut |record| stage.observe_global(&record))?;
            self.globals[index].1 = end;
        }
        Ok(())
    }
}

/// Whoever has the partitions next tells of them.
impl<S: Stage> Drop for Worker<S> {
    fn drop(&mut self) {
        for partition in self.tasks.keys() {
            self.metrics.forget(self.stage.name(), *partition);
        }
    }
}
