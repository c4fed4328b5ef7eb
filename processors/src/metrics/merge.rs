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
use neonhub_schemas::trace::TraceContext;
use neonhub_schemas::window::{Calendar, CalendarError, Grain, Partial, WindowUpsert, parse_window_key};

use super::merge_windows::SWEEP_MS;
use super::table::{LiveWindow, Mark, WindowId};
use super::watermark::Watermarks;
use super::windows::Windows;
use crate::engine::{EngineError, LocalState, Marker, Outputs, Restore, Stage};

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
    /// How long after its end, in event time, a window lives.
    pub grace: [Duration; 6],
    /// How long after its last delta, in processing time, a window lives.
    pub residence: Duration,
    /// Bytes of windows and keys that each partition keeps in memory; the others wait on the local disk, where there is one.
    pub memory_per_partition: usize,
    /// About so many windows go out in one commit of a partition at most (as many more as a metric has at one time), come
    /// back from the disk, are forgotten, or are saved in one batch. At least one.
    pub windows_per_commit: usize,
    /// How often the local state is brought up to date.
    pub save_interval: Duration,
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
            memory_per_partition: 128 << 20,
            windows_per_commit: 10_000,
            save_interval: Duration::from_secs(10),
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
    /// The newest delta that any window holds.
    pub(super) newest_applied: Option<u64>,
    pub(super) windows: Windows,
    pub(super) watermarks: Watermarks,
    pub(super) calendars: HashMap<String, Calendar>,
    pub(super) default_calendar: Calendar,
    /// Windows with deltas that no upsert holds, by grain.
    pub(super) dirty: [Vec<WindowId>; 6],
    /// Of dirty windows: the last traced delta. Few are; a replay brings them back.
    pub(super) traces: HashMap<WindowId, TraceContext>,
    pub(super) flushed_at_ms: [i64; 6],
    /// Final, and not said yet.
    pub(super) became_final: Vec<WindowId>,
    /// Due, and too much for the commit before.
    pub(super) left_over: Vec<WindowId>,
    /// Windows may be over and not final yet: in the local state, more than one commit takes, or since the restart.
    pub(super) may_have_finals: bool,
    pub(super) swept_at_ms: i64,
    saved_at_ms: i64,
    /// What was prepared last leaves no window dirty.
    may_save: bool,
    /// Outputs went with the commit of the last save: its marker lies before them.
    marker_is_behind: bool,
}

impl MergeTask {
    pub(super) fn has_applied(&mut self, offset: u64) {
        self.newest_applied = self.newest_applied.max(Some(offset));
    }
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

    /// The first delta that some window has not put out.
    fn replay_from(task: &MergeTask, position: u64) -> u64 {
        let table = &task.windows.table;
        let unflushed =
            task.dirty.iter().flatten().chain(&task.left_over).filter_map(|id| table.get(*id)?.dirty_since.get()).min();
        unflushed.unwrap_or(position).min(position)
    }

    /// Everything is put out for it, whatever the cadence: what is saved has to be what the upserts say.
    fn is_save_due(&self, task: &MergeTask, now_ms: i64) -> bool {
        let interval_ms = i64::try_from(self.config.save_interval.as_millis()).unwrap_or(i64::MAX);
        let has_anything = !task.windows.is_saved() || task.marker_is_behind;
        task.windows.is_over_budget() || has_anything && now_ms.saturating_sub(task.saved_at_ms).abs() >= interval_ms
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

    fn has_local_state(&self) -> bool {
        true
    }

    fn open(
        &self,
        place: TopicPartition,
        committed: Option<&CommittedOffset>,
        local: Option<LocalState>,
    ) -> Result<MergeTask, EngineError> {
        let windows = Windows::new(local, self.config.memory_per_partition, self.config.windows_per_commit);
        let mut watermarks = Watermarks::new(self.config.partitions);
        let meta = windows.meta()?;
        if let Some(meta) = &meta {
            watermarks.restore(&meta.upstreams()?);
        }
        let restored_to = meta.and_then(|meta| meta.newest_applied);
        Ok(MergeTask {
            partition: place.partition,
            committed_offset: committed.map(|committed| committed.offset),
            restored_to,
            newest_applied: restored_to,
            may_have_finals: !windows.is_empty(),
            windows,
            watermarks,
            calendars: self.calendars.clone(),
            default_calendar: self.default_calendar.clone(),
            dirty: Default::default(),
            traces: HashMap::new(),
            flushed_at_ms: [i64::MIN; 6],
            became_final: Vec::new(),
            left_over: Vec::new(),
            swept_at_ms: 0,
            saved_at_ms: i64::MIN,
            may_save: false,
            marker_is_behind: false,
        })
    }

    fn restore_plan(&self, place: TopicPartition, _committed: Option<&CommittedOffset>) -> Vec<Restore> {
        let own = |topic| Restore::Whole(TopicPartition { topic, partition: place.partition });
        vec![own(Topic::MetricsWindows), own(Topic::MetricsChangelog)]
    }

    fn restore(&self, task: &mut MergeTask, record: &Record) -> Result<(), EngineError> {
        if record.topic == Topic::MetricsChangelog {
            let saved =
                record.value.as_ref().and_then(|value| serde_json::from_slice::<UpstreamWatermarks>(value).ok());
            saved.into_iter().for_each(|saved| task.watermarks.restore(&saved));
            return Ok(());
        }
        let Some(value) = &record.value else {
            let Some((key, grain, start_s, epoch)) = parse_window_key(&record.key) else { return Ok(()) };
            let known = task.windows.find(&key, grain, start_s)?;
            let is_it = |window: &LiveWindow| window.epoch == epoch.offset;
            if let Some(id) = known.filter(|id| task.windows.table.get(*id).is_some_and(is_it)) {
                task.windows.remove(id);
            }
            return Ok(());
        };
        let Ok(upsert) = WindowUpsert::decode(value) else { return Ok(()) };
        let Ok(aggregate) = upsert.state.to_aggregate() else { return Ok(()) };
        task.may_have_finals = true;
        task.restored_to = task.restored_to.max(Some(upsert.as_of));
        task.has_applied(upsert.as_of);
        let live = LiveWindow {
            aggregate,
            epoch: upsert.epoch.offset,
            last_applied: upsert.as_of,
            restored_as_of: Mark::at(upsert.as_of),
            touched_at_ms: upsert.updated_at,
            revision: u32::try_from(upsert.revision).unwrap_or(u32::MAX),
            length_s: u32::try_from(upsert.window_end - upsert.window_start).unwrap_or(u32::MAX),
            is_final: upsert.r#final,
            ..LiveWindow::default()
        };
        task.windows.restore(&upsert.key, upsert.source, upsert.grain, upsert.window_start, live)
    }

    fn process(&self, task: &mut MergeTask, record: &Record, now_ms: i64, out: &mut Outputs) {
        let Some(value) = &record.value else { return };
        let partial = match Partial::decode(value) {
            Ok(partial) => partial,
            Err(error) => return out.reject(record, self.name(), "undecodable", error),
        };
        self.apply(task, record, &partial, now_ms, out);
        task.has_applied(record.offset);
        // A watermark in a record with deltas is said again after all deltas of its commit; only that one counts.
        if partial.key.is_none() {
            task.watermarks.observe(record.offset, &partial.upstream);
            self.finalize(task, out);
        }
    }

    fn is_due(&self, task: &MergeTask, now_ms: i64) -> bool {
        // Grains without a cadence, and finals, go with the commit of the records that changed them.
        let waits = |grain: &Grain| !self.config.cadence[*grain as usize].is_zero();
        let is_due = |grain: Grain| {
            let (flushed_at_ms, dirty) = (task.flushed_at_ms[grain as usize], &task.dirty[grain as usize]);
            self.is_flush_due(flushed_at_ms, dirty, grain, now_ms)
        };
        Grain::ALL.into_iter().filter(waits).any(is_due)
            || !task.left_over.is_empty()
            || !task.windows.is_empty() && now_ms.saturating_sub(task.swept_at_ms).abs() >= SWEEP_MS
            || task.may_have_finals
            || self.is_save_due(task, now_ms)
    }

    fn is_full(&self, task: &MergeTask) -> bool {
        // It cannot be saved, and leave memory, before all of it is put out.
        !task.left_over.is_empty() && task.windows.is_over_budget()
    }

    fn prepare_commit(
        &self,
        task: &mut MergeTask,
        next_offset: Option<u64>,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Option<CommittedOffset> {
        task.may_save = false;
        if task.may_have_finals {
            self.finalize(task, out);
        }
        let mut is_save_due = self.is_save_due(task, now_ms);
        self.flush(task, is_save_due, now_ms, out);
        let position = next_offset.or(task.committed_offset)?;
        self.evict(task, Self::replay_from(task, position), now_ms, out);
        // What is to be forgotten takes room, too, until it is saved.
        if !is_save_due && task.windows.is_over_budget() {
            is_save_due = true;
            self.flush(task, true, now_ms, out);
        }
        let replay_from = Self::replay_from(task, position);
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
        task.may_save = is_save_due && task.left_over.is_empty();
        if task.may_save {
            task.marker_is_behind = !out.records.is_empty();
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
        (task.windows.len(), task.windows.heap_size())
    }

    fn may_save(&self, task: &MergeTask) -> bool {
        task.may_save
    }

    fn save(&self, task: &mut MergeTask, marker: &Marker) -> Result<(), EngineError> {
        task.may_save = false;
        task.saved_at_ms = marker.saved_at_ms();
        task.windows.save(&task.watermarks.upstreams(), task.newest_applied, marker)
    }
}
