//! The landing's cycle. It is stepped like a worker; an insert that fails is repeated with the same token while the other
//! partitions go on.

use std::collections::BTreeMap;
use std::time::Duration;

use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};

use super::buffer::PartitionBuffer;
use super::rows::{DeadLetterRow, Rows, rows_of};
use super::{InsertError, Tables};
use crate::engine::{
    Clock, CommitUnit, Committer, EngineError, EngineMetrics, LogReader, OBSERVE_MS, Ports, Source, SourceEvent,
};

#[derive(Clone, Debug)]
pub struct LandingConfig {
    /// How long the first record of a batch waits for others.
    pub linger: Duration,
    pub max_rows: usize,
    pub max_bytes: usize,
    /// Bytes waiting in one partition at which it is paused.
    pub pause_bytes: usize,
    pub idle_wait: Duration,
    /// In front of each token: deployments that share a ClickHouse must not share tokens.
    pub token_prefix: String,
}

impl Default for LandingConfig {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(400),
            max_rows: 100_000,
            max_bytes: 64 * 1024 * 1024,
            pause_bytes: 96 * 1024 * 1024,
            idle_wait: Duration::from_millis(50),
            token_prefix: String::new(),
        }
    }
}

/// How often rows are inserted anew that a server has lost together with its memory of their token.
const MISSING_ATTEMPTS: u32 = 16;

pub struct Landing {
    source: Box<dyn Source>,
    committer: Box<dyn Committer>,
    reader: Box<dyn LogReader>,
    tables: Box<dyn Tables>,
    clock: Clock,
    config: LandingConfig,
    metrics: EngineMetrics,
    partitions: BTreeMap<TopicPartition, PartitionBuffer>,
    observed_at_ms: i64,
}

impl Landing {
    #[must_use]
    pub fn new(
        ports: Ports,
        tables: Box<dyn Tables>,
        clock: Clock,
        config: LandingConfig,
        metrics: EngineMetrics,
    ) -> Self {
        let Ports { source, committer, reader, states: _ } = ports;
        Self {
            source,
            committer,
            reader,
            tables,
            clock,
            config,
            metrics,
            partitions: BTreeMap::new(),
            observed_at_ms: i64::MIN / 2,
        }
    }

    /// One turn: take what came, land what is due. Returns the number of rows landed.
    ///
    /// # Errors
    /// The log is away or we are fenced: begin again from what is committed.
    pub fn step(&mut self) -> Result<usize, EngineError> {
        for event in self.source.poll(self.config.idle_wait)? {
            match event {
                SourceEvent::Assigned(partitions) => self.open(&partitions)?,
                SourceEvent::Revoked(partitions) => {
                    for partition in partitions {
                        self.partitions.remove(&partition);
                    }
                }
                SourceEvent::Records(records) => self.take(records)?,
                SourceEvent::AtEnd(_) => {}
            }
        }
        self.observe();
        self.land_due()
    }

    fn observe(&mut self) {
        let now_ms = (self.clock)();
        if now_ms.saturating_sub(self.observed_at_ms).abs() >= OBSERVE_MS {
            self.observed_at_ms = now_ms;
            self.metrics.observe_lag("landing", &self.source.lag());
        }
    }

    fn open(&mut self, partitions: &[TopicPartition]) -> Result<(), EngineError> {
        let committed = self.source.committed(partitions)?;
        for (partition, committed) in partitions.iter().zip(&committed) {
            let (_, end) = self.reader.bounds(*partition)?;
            let buffer = PartitionBuffer::open(committed.as_ref());
            if buffer.from > end {
                let detail = format!("{partition} ends at {end}, before the committed offset {}", buffer.from);
                return Err(EngineError::Fatal(detail));
            }
            self.partitions.insert(*partition, buffer);
        }
        self.source.resume(partitions)
    }

    fn take(&mut self, records: Vec<Record>) -> Result<(), EngineError> {
        let now_ms = (self.clock)();
        for record in records {
            let place = record.topic_partition();
            let Some(buffer) = self.partitions.get_mut(&place) else {
                return Err(EngineError::Fenced(format!("{place} delivers before it is opened")));
            };
            buffer.push(record, now_ms);
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

    fn land_due(&mut self) -> Result<usize, EngineError> {
        let now_ms = (self.clock)();
        let linger_ms = i64::try_from(self.config.linger.as_millis()).unwrap_or(i64::MAX);
        let mut plans = CommitUnit::default();
        let mut due = Vec::new();
        for (partition, buffer) in &mut self.partitions {
            if !buffer.is_due(now_ms, linger_ms, self.config.max_rows) {
                continue;
            }
            let already_written = buffer.planned_to.is_some();
            let Some(to) = buffer.plan(self.config.max_rows, self.config.max_bytes) else { continue };
            if !already_written {
                let plan = CommittedOffset { offset: buffer.from, metadata: format!("to={to}") };
                plans.offsets.push((*partition, plan));
            }
            due.push(*partition);
        }
        if !plans.offsets.is_empty() {
            self.committer.commit(plans)?;
        }
        let mut landed = CommitUnit::default();
        let mut rows = 0;
        for partition in due {
            // One that fails would hold up the others for as long as a timeout takes: they have their turn in the next step.
            let Some((to, count)) = self.land(partition) else { break };
            rows += count;
            landed.offsets.push((partition, CommittedOffset { offset: to, metadata: String::new() }));
        }
        if !landed.offsets.is_empty() {
            self.committer.commit(landed)?;
        }
        self.resume_drained()?;
        Ok(rows)
    }

    /// Inserts the planned batch of a partition: the offset after it and its rows, or nothing when it has to be repeated.
    fn land(&mut self, partition: TopicPartition) -> Option<(u64, usize)> {
        let buffer = self.partitions.get(&partition)?;
        let to = buffer.planned_to?;
        let (rows, unlandable) = rows_of(partition.topic, buffer.batch());
        let token = format!(
            "{}{}:{}:{}-{}",
            self.config.token_prefix,
            partition.topic.name(),
            partition.partition,
            buffer.from,
            to
        );
        let count = rows.len();
        let is_repeated = buffer.is_repeated();
        let outcome = self.insert(rows, unlandable, is_repeated, &token);
        let now_ms = (self.clock)();
        let buffer = self.partitions.get_mut(&partition)?;
        match outcome {
            Ok(()) => {
                buffer.landed(now_ms);
                Some((to, count))
            }
            Err(error) => {
                buffer.failures += 1;
                let backoff_ms = 100_i64 << buffer.failures.min(6);
                buffer.retry_at_ms = now_ms + backoff_ms.min(5_000);
                self.metrics.landing_failures.inc();
                tracing::warn!(%partition, %error, failures = buffer.failures, backoff_ms, "insert failed, will be repeated");
                None
            }
        }
    }

    /// After a repeated insert: a token that was remembered without its rows (the server was killed between the two) must
    /// not lose them. Upserts are simply written again; of the others the missing rows are.
    fn complete(&mut self, rows: Rows, token: &str) -> Result<(), InsertError> {
        match rows {
            Rows::Windows(_) | Rows::Activations(_) => self.insert_block(&rows, &format!("{token}:again")),
            Rows::Events(_) | Rows::DeadLetters(_) => {
                // The tokens are the same each time, so that an insert whose answer was lost is still told apart.
                for attempt in 0..MISSING_ATTEMPTS {
                    let Some(landed) = self.tables.landed_offsets(&rows)? else { return Ok(()) };
                    let missing = rows.clone().without(&landed);
                    if missing.is_empty() {
                        return Ok(());
                    }
                    tracing::warn!(
                        rows = missing.len(),
                        token,
                        attempt,
                        "the token was known but not its rows: inserted anew"
                    );
                    self.insert_block(&missing, &format!("{token}:missing-{attempt}"))?;
                }
                Err(InsertError::Transient("rows do not stay in the table".to_owned()))
            }
        }
    }

    fn insert(
        &mut self,
        rows: Rows,
        mut dead: Vec<DeadLetterRow>,
        is_repeated: bool,
        token: &str,
    ) -> Result<(), InsertError> {
        self.insert_or_halve(rows, &mut dead, is_repeated, token)?;
        if !dead.is_empty() {
            tracing::error!(rows = dead.len(), token, "rows that ClickHouse refuses go to dead_letters");
            self.insert_block(&Rows::DeadLetters(dead), &format!("{token}:dead"))?;
        }
        Ok(())
    }

    /// A batch with a row that ClickHouse refuses is cut in halves, always in the same way, until the row stands alone.
    fn insert_or_halve(
        &mut self,
        rows: Rows,
        dead: &mut Vec<DeadLetterRow>,
        is_repeated: bool,
        token: &str,
    ) -> Result<(), InsertError> {
        match self.insert_block(&rows, token) {
            Err(InsertError::Data(detail)) if rows.len() == 1 => {
                dead.push(refused(&rows, &detail));
                Ok(())
            }
            Err(InsertError::Data(_)) => {
                let (first, second) = rows.halves();
                self.insert_or_halve(first, dead, is_repeated, &format!("{token}/0"))?;
                self.insert_or_halve(second, dead, is_repeated, &format!("{token}/1"))
            }
            Ok(()) if is_repeated => self.complete(rows, token),
            other => other,
        }
    }

    fn insert_block(&mut self, rows: &Rows, token: &str) -> Result<(), InsertError> {
        if rows.is_empty() {
            return Ok(());
        }
        let timer = self.metrics.landing_seconds.start_timer();
        self.tables.insert(rows, token)?;
        timer.observe_duration();
        self.metrics.landed_rows.with_label_values(&[rows.table().name()]).inc_by(rows.len() as u64);
        Ok(())
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

/// The dead letter of a single row that ClickHouse refuses.
fn refused(rows: &Rows, detail: &str) -> DeadLetterRow {
    let mut letter = DeadLetterRow {
        workspace: String::new(),
        reason: "refused_by_clickhouse".to_owned(),
        detail: detail.to_owned(),
        field: String::new(),
        stage: "landing".to_owned(),
        place: String::new(),
        received_at: 0,
        original: format!("{rows:?}"),
        encoding: "text",
        original_size: 0,
        partition: 0,
        offset: 0,
    };
    match rows {
        Rows::Events(rows) => rows.iter().for_each(|row| {
            letter.workspace.clone_from(&row.workspace);
            letter.place.clone_from(&row.message_id);
            letter.original.clone_from(&row.properties);
            (letter.partition, letter.offset, letter.received_at) = (row.partition, row.offset, row.received_at);
        }),
        Rows::Windows(rows) => rows.iter().for_each(|row| {
            letter.workspace.clone_from(&row.workspace);
            letter.place = format!("{}|{}", row.metric, row.key);
            letter.received_at = row.updated_at;
        }),
        Rows::Activations(rows) => rows.iter().for_each(|row| {
            letter.workspace.clone_from(&row.workspace);
            letter.place.clone_from(&row.metric);
            (letter.partition, letter.offset) = (row.partition, row.position);
        }),
        Rows::DeadLetters(rows) => rows.iter().for_each(|row| {
            letter.workspace.clone_from(&row.workspace);
            letter.place.clone_from(&row.place);
            (letter.partition, letter.offset, letter.received_at) = (row.partition, row.offset, row.received_at);
        }),
    }
    letter.original_size = letter.original.len() as u64;
    letter
}
