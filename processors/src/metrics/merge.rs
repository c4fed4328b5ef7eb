//! Pure: no I/O, no clock, no async.
//!
//! The merge stage: owns every window of its keys, in every grain.
//!
//! Minutes go out at each commit, longer grains at a slower cadence. So the committed offset is that of the first delta
//! that some window has not put out yet, and every upsert says up to which offset it counts (`as_of`): after a restart
//! the deltas since the committed offset are read again, and a window passes over those that it holds already.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::control::UpstreamWatermarks;
use neonhub_schemas::event::Source;
use neonhub_schemas::record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Calendar, CalendarError, Epoch, Grain, Partial, WindowUpsert};

use super::merge_windows::SWEEP_MS;
use super::table::{LiveWindow, WindowId, WindowTable};
use super::watermark::Watermarks;
use crate::engine::{Outputs, Restore, Stage};

#[derive(Clone, Debug)]
pub struct MergeConfig {
    /// Partitions of `events.*` and of `metrics.partials`.
    pub partitions: u32,
    /// Zone of hours and longer windows, for workspaces that have none of their own.
    pub default_zone: String,
    pub zones: BTreeMap<String, String>,
    /// Keys of a metric in one window; the rest is counted under `__other__`.
    pub max_keys: u32,
    /// How often windows of a grain go out at most; finals go at once.
    pub cadence: [Duration; 6],
    /// How long after its end, in event time, a window stays in memory.
    pub grace: [Duration; 6],
    /// How long after its last delta, in processing time, a window stays in memory.
    pub residence: Duration,
}

impl Default for MergeConfig {
    fn default() -> Self {
        let seconds = |list: [u64; 6]| list.map(Duration::from_secs);
        Self {
            partitions: 4,
            default_zone: "UTC".to_owned(),
            zones: BTreeMap::new(),
            max_keys: 10_000,
            cadence: seconds([0, 1, 1, 5, 5, 5]),
            grace: seconds([600, 1_800, 7_200, 21_600, 86_400, 86_400]),
            residence: Duration::from_secs(60),
        }
    }
}

/// `metrics.partials` → `metrics.windows`, the same partition.
pub struct MetricsMerge {
    pub(super) config: MergeConfig,
    pub(super) calendars: HashMap<String, Calendar>,
    pub(super) default_calendar: Calendar,
}

/// One partition of `metrics.partials`.
pub struct MergeTask {
    pub(super) partition: u32,
    pub(super) committed_offset: Option<u64>,
    /// The newest delta that any restored window holds: what comes up to here may be a replay.
    pub(super) restored_to: Option<u64>,
    pub(super) table: WindowTable,
    pub(super) watermarks: Watermarks,
    pub(super) calendars: HashMap<String, Calendar>,
    pub(super) default_calendar: Calendar,
    /// Windows that wait for the watermark, by source and end.
    pub(super) waiting: BTreeMap<(Source, i64, WindowId), ()>,
    /// Windows with deltas that no upsert holds, by grain.
    pub(super) dirty: [Vec<WindowId>; 6],
    pub(super) flushed_at_ms: [i64; 6],
    /// Final, and not said yet.
    pub(super) became_final: Vec<WindowId>,
    pub(super) swept_at_ms: i64,
    pub(super) by_record_key: HashMap<Bytes, (WindowId, Epoch)>,
}

impl MetricsMerge {
    /// # Errors
    /// A zone is unknown.
    pub fn new(config: MergeConfig) -> Result<Self, CalendarError> {
        let default_calendar = Calendar::new(&config.default_zone)?;
        let calendars = config
            .zones
            .iter()
            .map(|(workspace, zone)| Ok((workspace.clone(), Calendar::new(zone)?)))
            .collect::<Result<_, CalendarError>>()?;
        Ok(Self { config, calendars, default_calendar })
    }
}

impl Stage for MetricsMerge {
    type Task = MergeTask;

    fn name(&self) -> &'static str {
        "metrics.merge"
    }

    fn inputs(&self) -> Vec<Topic> {
        vec![Topic::MetricsPartials]
    }

    fn outputs(&self) -> Vec<Topic> {
        vec![Topic::MetricsWindows, Topic::MetricsChangelog, Topic::EventsRejected]
    }

    fn open(&self, place: TopicPartition, committed: Option<&CommittedOffset>) -> MergeTask {
        MergeTask {
            partition: place.partition,
            committed_offset: committed.map(|committed| committed.offset),
            restored_to: None,
            table: WindowTable::default(),
            watermarks: Watermarks::new(self.config.partitions),
            calendars: self.calendars.clone(),
            default_calendar: self.default_calendar.clone(),
            waiting: BTreeMap::new(),
            dirty: Default::default(),
            flushed_at_ms: [i64::MIN / 2; 6],
            became_final: Vec::new(),
            swept_at_ms: 0,
            by_record_key: HashMap::new(),
        }
    }

    fn restore_plan(&self, place: TopicPartition, _committed: Option<&CommittedOffset>) -> Vec<Restore> {
        let own = |topic| Restore::Whole(TopicPartition { topic, partition: place.partition });
        vec![own(Topic::MetricsWindows), own(Topic::MetricsChangelog)]
    }

    fn restore(&self, task: &mut MergeTask, record: &Record) {
        if record.topic == Topic::MetricsChangelog {
            let saved =
                record.value.as_ref().and_then(|value| serde_json::from_slice::<UpstreamWatermarks>(value).ok());
            saved.into_iter().for_each(|saved| task.watermarks.restore(&saved));
            return;
        }
        let Some(value) = &record.value else {
            if let Some((id, epoch)) = task.by_record_key.remove(&record.key)
                && task.table.get_mut(id).is_some_and(|live| live.epoch == epoch)
                && let Some(live) = task.table.remove(id)
            {
                for source in Source::ALL {
                    task.waiting.remove(&(source, live.end_s, id));
                }
            }
            return;
        };
        let Ok(upsert) = serde_json::from_slice::<WindowUpsert>(value) else { return };
        let Ok(aggregate) = upsert.state.to_aggregate() else { return };
        let source = upsert.source;
        let id =
            WindowId { key: task.table.intern(&upsert.key, source), grain: upsert.grain, start_s: upsert.window_start };
        task.by_record_key.insert(Bytes::copy_from_slice(&record.key), (id, upsert.epoch));
        task.restored_to = task.restored_to.max(Some(upsert.as_of));
        let live = LiveWindow {
            aggregate,
            end_s: upsert.window_end,
            epoch: upsert.epoch,
            revision: upsert.revision,
            is_final: upsert.r#final,
            last_applied: upsert.as_of,
            restored_as_of: Some(upsert.as_of),
            dirty_since: None,
            touched_at_ms: upsert.updated_at,
        };
        if live.is_final {
            task.waiting.remove(&(source, live.end_s, id));
        } else {
            task.waiting.insert((source, live.end_s, id), ());
        }
        task.table.insert(id, live);
    }

    fn process(&self, task: &mut MergeTask, record: &Record, now_ms: i64, out: &mut Outputs) {
        task.by_record_key = HashMap::new();
        let Some(value) = &record.value else { return };
        let partial = match serde_json::from_slice::<Partial>(value) {
            Ok(partial) => partial,
            Err(error) => return out.reject(record, self.name(), "undecodable", error),
        };
        self.apply(task, record, &partial, now_ms, out);
        // A watermark in a record with deltas is said again after all deltas of its commit; only that one counts.
        if partial.key.is_none() {
            task.watermarks.observe(&partial.upstream);
            Self::finalize(task);
        }
    }

    fn is_due(&self, task: &MergeTask, now_ms: i64) -> bool {
        // Grains without a cadence, and finals, go with the commit of the records that changed them.
        let waits = |grain: &Grain| !self.config.cadence[*grain as usize].is_zero();
        Grain::ALL.into_iter().filter(waits).any(|grain| self.is_flush_due(task, grain, now_ms))
            || !task.table.is_empty() && now_ms.saturating_sub(task.swept_at_ms).abs() >= SWEEP_MS
    }

    fn prepare_commit(
        &self,
        task: &mut MergeTask,
        next_offset: Option<u64>,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset> {
        self.flush(task, now_ms, out);
        let position = next_offset.or(task.committed_offset)?;
        let table = &mut task.table;
        let unflushed = task.dirty.iter().flatten().filter_map(|id| table.get_mut(*id)?.dirty_since).min();
        let replay_from = unflushed.unwrap_or(position).min(position);
        self.evict(task, replay_from, now_ms, out);
        if let Some(saved) = task.watermarks.take_changed() {
            out.records.push(NewRecord {
                topic: Topic::MetricsChangelog,
                partition: Some(task.partition),
                key: Bytes::from_static(b"watermarks"),
                value: Some(Bytes::from(serde_json::to_vec(&saved).unwrap_or_default())),
                headers: Headers::new().with(header::SCHEMA, Bytes::from_static(b"1")),
                timestamp_ms: now_ms,
            });
        }
        if task.committed_offset == Some(replay_from) {
            return None;
        }
        task.committed_offset = Some(replay_from);
        Some(CommittedOffset { offset: replay_from, metadata: format!("position={position}") })
    }

    fn watermark_ms(&self, task: &MergeTask) -> Option<i64> {
        Source::ALL.into_iter().filter_map(|source| task.watermarks.current_ms(source)).min()
    }

    fn state_size(&self, task: &MergeTask) -> (usize, usize) {
        (task.table.len(), task.table.heap_size())
    }
}
