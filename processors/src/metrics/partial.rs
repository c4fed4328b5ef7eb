//! Pure: no I/O, no clock, no async.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use neonhub_schemas::codec::{HEARTBEAT_KEY, header};
use neonhub_schemas::control::{Activation, Heartbeat};
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::metric::{DefinitionText, Program};
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Partial, PartialHeader};

use super::definitions::Definitions;
use super::deltas::Deltas;
use crate::engine::{EngineError, LocalState, Outputs, Restore, Stage};

#[derive(Clone, Copy, Debug)]
pub struct PartialConfig {
    /// How far behind the newest event time an event may come without being late.
    pub out_of_orderness: Duration,
    /// At most one watermark a partition in this time, but for a partition that becomes idle or wakes up.
    pub watermark_interval: Duration,
    /// Partitions of `metrics.partials`: each is told the watermarks.
    pub partials_partitions: u32,
    /// Whether every workspace has the built-in metrics.
    pub has_built_in_metrics: bool,
}

impl Default for PartialConfig {
    fn default() -> Self {
        Self {
            out_of_orderness: Duration::from_secs(30),
            watermark_interval: Duration::from_millis(250),
            partials_partitions: 4,
            has_built_in_metrics: true,
        }
    }
}

/// `events.*` → `metrics.partials`. Nothing but the watermark outlives a commit.
pub struct MetricsPartial {
    config: PartialConfig,
    definitions: Definitions,
}

/// One partition of `events.*`.
pub struct PartialTask {
    place: TopicPartition,
    programs: Vec<(String, Program)>,
    program_of: hashbrown::HashMap<String, usize>,
    definitions_version: u64,
    /// Definitions in force here: by workspace, metric and series.
    active: BTreeMap<(String, String, u64), Activation>,
    deltas: Deltas,
    newest_event_ms: Option<i64>,
    idle: bool,
    said: Option<(Option<i64>, bool)>,
    said_at_ms: i64,
    next_offset: u64,
}

impl MetricsPartial {
    #[must_use]
    pub fn new(config: PartialConfig) -> Self {
        let definitions =
            if config.has_built_in_metrics { Definitions::default() } else { Definitions::without_built_in() };
        Self { config, definitions }
    }

    fn header(&self, task: &PartialTask) -> PartialHeader {
        let behind = i64::try_from(self.config.out_of_orderness.as_millis()).unwrap_or(i64::MAX);
        PartialHeader {
            topic: task.place.topic.name().to_owned(),
            partition: task.place.partition,
            watermark_ms: task.newest_event_ms.map(|newest| newest.saturating_sub(behind)),
            idle: task.idle,
        }
    }

    /// Takes up changed definitions from `offset` on, and says so on `metrics.activations`.
    fn activate(&self, task: &mut PartialTask, offset: u64, now_ms: i64, out: &mut Outputs) {
        if task.definitions_version == self.definitions.version() {
            return;
        }
        // What was combined so far was evaluated by the former programs.
        self.drain(task, now_ms, out);
        task.definitions_version = self.definitions.version();
        task.programs = vec![(String::new(), self.definitions.program(None))];
        task.program_of.clear();
        for workspace in self.definitions.workspaces() {
            task.program_of.insert(workspace.to_owned(), task.programs.len());
            task.programs.push((workspace.to_owned(), self.definitions.program(Some(workspace))));
        }
        let Some(source) = Source::of_topic(task.place.topic) else { return };
        let wanted: BTreeMap<(String, String, u64), &DefinitionText> = self
            .definitions
            .custom()
            .filter(|(.., custom)| custom.metric.source == source)
            .map(|(workspace, name, series, custom)| ((workspace.to_owned(), name.to_owned(), series), &custom.text))
            .collect();
        let ended: Vec<_> = task.active.keys().filter(|known| !wanted.contains_key(*known)).cloned().collect();
        for known in ended {
            if let Some(mut activation) = task.active.remove(&known) {
                activation.until_offset = Some(offset);
                out.records.push(activation_record(&activation, now_ms));
            }
        }
        for ((workspace, metric, series), definition) in wanted {
            let place = (workspace.clone(), metric.clone(), series);
            if task.active.contains_key(&place) {
                continue;
            }
            let partition = task.place.partition;
            let activation = Activation {
                workspace,
                metric,
                series,
                source,
                partition,
                from_offset: offset,
                until_offset: None,
                definition: definition.clone(),
            };
            out.records.push(activation_record(&activation, now_ms));
            task.active.insert(place, activation);
        }
    }

    fn drain(&self, task: &mut PartialTask, now_ms: i64, out: &mut Outputs) {
        let upstream = self.header(task);
        out.records.extend(task.deltas.drain(&task.programs, &upstream, now_ms));
    }

    /// Whether there is something new to say about how far this partition has come.
    fn watermark_is_due(&self, task: &PartialTask, now_ms: i64) -> bool {
        let header = self.header(task);
        match task.said {
            None => true,
            Some((watermark_ms, idle)) => {
                let interval = i64::try_from(self.config.watermark_interval.as_millis()).unwrap_or(i64::MAX);
                idle != header.idle || watermark_ms != header.watermark_ms && now_ms - task.said_at_ms >= interval
            }
        }
    }

    fn say_watermark(&self, task: &mut PartialTask, now_ms: i64, out: &mut Outputs) {
        let upstream = self.header(task);
        task.said = Some((upstream.watermark_ms, upstream.idle));
        task.said_at_ms = now_ms;
        let key = Bytes::from(format!("watermark|{}", task.place));
        let partial = Partial { upstream, key: None, deltas: Vec::new() };
        let value = Bytes::from(partial.encode());
        for partition in 0..self.config.partials_partitions {
            out.records.push(NewRecord {
                topic: Topic::MetricsPartials,
                partition: Some(partition),
                key: key.clone(),
                value: Some(value.clone()),
                headers: Headers::new().with(header::TYPE, Bytes::from_static(b"heartbeat")),
                timestamp_ms: now_ms,
            });
        }
    }
}

fn activation_record(activation: &Activation, now_ms: i64) -> NewRecord {
    NewRecord {
        topic: Topic::MetricsActivations,
        partition: Some(0),
        key: Bytes::from(activation.key()),
        value: Some(Bytes::from(serde_json::to_vec(activation).unwrap_or_default())),
        headers: Headers::new().with(header::SCHEMA, Bytes::from_static(b"1")),
        timestamp_ms: now_ms,
    }
}

impl Stage for MetricsPartial {
    type Task = PartialTask;

    fn name(&self) -> &'static str {
        "metrics.partial"
    }

    fn inputs(&self) -> Vec<Topic> {
        Source::ALL.map(Source::events_topic).to_vec()
    }

    fn outputs(&self) -> Vec<Topic> {
        vec![Topic::MetricsPartials, Topic::MetricsActivations, Topic::EventsRejected]
    }

    fn globals(&self) -> Vec<Topic> {
        vec![Topic::Control]
    }

    fn observe_global(&mut self, record: &Record) {
        self.definitions.observe(record);
    }

    fn open(
        &self,
        place: TopicPartition,
        committed: Option<&CommittedOffset>,
        _local: Option<LocalState>,
    ) -> Result<PartialTask, EngineError> {
        let (idle, newest_event_ms) = committed.and_then(remembered).unwrap_or_default();
        Ok(PartialTask {
            place,
            programs: Vec::new(),
            program_of: hashbrown::HashMap::new(),
            definitions_version: 0,
            active: BTreeMap::new(),
            deltas: Deltas::default(),
            newest_event_ms,
            idle,
            said: None,
            said_at_ms: i64::MIN,
            next_offset: committed.map_or(0, |committed| committed.offset),
        })
    }

    fn restore_plan(&self, _place: TopicPartition, _committed: Option<&CommittedOffset>) -> Vec<Restore> {
        vec![Restore::Whole(TopicPartition { topic: Topic::MetricsActivations, partition: 0 })]
    }

    fn restore(&self, task: &mut PartialTask, record: &Record) -> Result<(), EngineError> {
        let Some(activation) = record.value.as_ref().and_then(|value| serde_json::from_slice::<Activation>(value).ok())
        else {
            return Ok(());
        };
        if activation.partition != task.place.partition || activation.source.events_topic() != task.place.topic {
            return Ok(());
        }
        let place = (activation.workspace.clone(), activation.metric.clone(), activation.series);
        if activation.until_offset.is_some() {
            task.active.remove(&place);
        } else {
            task.active.insert(place, activation);
        }
        Ok(())
    }

    fn process(&self, task: &mut PartialTask, record: &Record, now_ms: i64, out: &mut Outputs) {
        self.activate(task, record.offset, now_ms, out);
        task.next_offset = record.offset + 1;
        let Some(value) = &record.value else { return };
        if record.key == HEARTBEAT_KEY {
            match serde_json::from_slice::<Heartbeat>(value) {
                Ok(heartbeat) => task.idle = heartbeat.idle,
                Err(error) => out.reject(record, self.name(), "undecodable", error),
            }
            return;
        }
        let event = match Envelope::decode(value) {
            Ok(event) => event,
            Err(error) => return out.reject(record, self.name(), "undecodable", error),
        };
        task.idle = false;
        task.newest_event_ms = Some(task.newest_event_ms.unwrap_or(i64::MIN).max(event.timestamp_ms));
        let index = match task.program_of.get(event.workspace.as_ref()) {
            Some(index) => *index,
            None => {
                // A workspace without definitions of its own: the built-in program under its name.
                let index = task.programs.len();
                let program = task.programs[0].1.clone();
                task.programs.push((event.workspace.clone().into_owned(), program));
                task.program_of.insert(event.workspace.clone().into_owned(), index);
                index
            }
        };
        let minute = event.timestamp_ms.div_euclid(60_000) * 60;
        let mut overflow = false;
        let deltas = &mut task.deltas;
        let trace = out.trace;
        task.programs[index].1.evaluate(&event, |hit| overflow |= deltas.add(index, minute, &hit, trace).is_err());
        if overflow {
            out.reject(record, self.name(), "overflow", "the sum of the minute leaves the range of 38 digits");
        }
    }

    fn is_due(&self, task: &PartialTask, now_ms: i64) -> bool {
        task.definitions_version != self.definitions.version() || self.watermark_is_due(task, now_ms)
    }

    fn prepare_commit(
        &self,
        task: &mut PartialTask,
        next_offset: Option<u64>,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset> {
        self.activate(task, task.next_offset, now_ms, out);
        self.drain(task, now_ms, out);
        // After the deltas: whoever reads the watermark has read what came before it.
        if self.watermark_is_due(task, now_ms) {
            self.say_watermark(task, now_ms, out);
        }
        let newest = task.newest_event_ms.map_or_else(String::new, |ms| ms.to_string());
        let metadata = format!("idle={},newest={newest}", u8::from(task.idle));
        next_offset.map(|offset| CommittedOffset { offset, metadata })
    }

    fn watermark_ms(&self, task: &PartialTask) -> Option<i64> {
        self.header(task).watermark_ms
    }

    fn state_size(&self, task: &PartialTask) -> (usize, usize) {
        (task.deltas.len(), task.deltas.len() * 256)
    }
}

/// What the committed metadata remembers: whether the partition was idle, and its newest event time.
fn remembered(committed: &CommittedOffset) -> Option<(bool, Option<i64>)> {
    let (idle, newest) = committed.metadata.strip_prefix("idle=")?.split_once(",newest=")?;
    Some((idle == "1", newest.parse().ok()))
}
