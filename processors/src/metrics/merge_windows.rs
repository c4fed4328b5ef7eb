//! Pure: no I/O, no clock, no async.
//!
//! What the merge stage does with its windows: adds deltas, makes them final, puts them out, forgets them.

use std::collections::BTreeSet;

use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::record::{Headers, NewRecord, Record};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::TraceContext;
use neonhub_schemas::window::{
    Aggregate, Epoch, Grain, Overflow, Partial, Window, WindowState, WindowUpsert, window_key,
};

use super::merge::{MergeTask, MetricsMerge};
use super::stored::StoredWindow;
use super::table::{Group, LiveWindow, Mark, WindowId, WindowTable};
use super::watermark::Watermarks;
use crate::engine::{EngineError, Outputs};

/// How often windows are looked over for eviction.
pub(super) const SWEEP_MS: i64 = 10_000;

impl MetricsMerge {
    fn keys_per_partition(&self) -> u32 {
        self.config.max_keys.div_ceil(self.config.partitions.max(1))
    }

    pub(super) fn is_flush_due(&self, flushed_at_ms: i64, dirty: &[WindowId], grain: Grain, now_ms: i64) -> bool {
        let cadence_ms = i64::try_from(self.config.cadence[grain as usize].as_millis()).unwrap_or(i64::MAX);
        let since_flush_ms = now_ms.saturating_sub(flushed_at_ms);
        // A clock that went back must not hold anything up.
        !dirty.is_empty() && (since_flush_ms >= cadence_ms || since_flush_ms < 0)
    }

    pub(super) fn apply(
        &self,
        task: &mut MergeTask,
        record: &Record,
        partial: &Partial,
        now_ms: i64,
        out: &mut Outputs,
    ) {
        let (Some(key), Some(source)) = (&partial.key, Watermarks::source_of(&partial.upstream)) else { return };
        for delta in &partial.deltas {
            let gained = match delta.state.to_aggregate() {
                Ok(gained) => gained,
                Err(error) => return out.reject(record, "metrics.merge", "undecodable", error),
            };
            let watermark_ms = task.watermarks.current_ms(source);
            for grain in Grain::ALL {
                let calendar = task.calendars.get_mut(&key.workspace).unwrap_or(&mut task.default_calendar);
                let window = calendar.window(grain, delta.minute);
                let is_late = watermark_ms.is_some_and(|watermark_ms| watermark_ms >= window.end_s * 1_000);
                if grain == Grain::Minute && is_late {
                    out.late += gained.count;
                }
                let (offset, trace) = (record.offset, out.trace);
                let place = Place { grain, window, source, is_late, offset, now_ms, trace };
                let capped = self.apply_to_window(task, key, &gained, &place);
                match capped {
                    Ok(capped) => out.capped += u64::from(capped),
                    Err(Trouble::Overflow(error)) => return out.reject(record, "metrics.merge", "overflow", error),
                    Err(Trouble::Local(error)) => return out.fail(error),
                }
            }
        }
    }

    /// Whether the delta went to `__other__`.
    fn apply_to_window(
        &self,
        task: &mut MergeTask,
        key: &MetricKey,
        gained: &Aggregate,
        place: &Place,
    ) -> Result<bool, Trouble> {
        let Place { grain, window, .. } = *place;
        let windows = &mut task.windows;
        let own = windows.find(key, grain, window.start_s)?;
        let may_be_capped = own.is_none() && !key.dimensions.is_empty() && !key.is_other();
        if may_be_capped && task.restored_to.is_some_and(|restored_to| place.offset <= restored_to) {
            // A replay: the windows that filled the cap may be gone by now, but what `__other__` holds it holds.
            let other = windows.find(&key.other(), grain, window.start_s)?;
            let held_to = other.and_then(|id| windows.table.get(id)?.restored_as_of.get());
            if held_to.is_some_and(|as_of| place.offset <= as_of) {
                return Ok(false);
            }
        }
        let capped = may_be_capped && windows.keys_in_window(key, grain, window.start_s)? >= self.keys_per_partition();
        let id = match own {
            Some(id) => id,
            None => {
                let other = key.other();
                let key = if capped { &other } else { key };
                let known = if capped { windows.find(key, grain, window.start_s)? } else { None };
                known.unwrap_or_else(|| windows.put(key, place.source, grain, window.start_s, place.opened_window()))
            }
        };
        let Some(live) = windows.table.get_mut(id) else { return Ok(capped) };
        if live.restored_as_of.get().is_some_and(|as_of| place.offset <= as_of) {
            return Ok(false);
        }
        windows.table.merge(id, gained)?;
        let Some(live) = windows.table.get_mut(id) else { return Ok(capped) };
        live.last_applied = place.offset;
        live.touched_at_ms = place.now_ms;
        if let Some(trace) = place.trace {
            task.traces.insert(id, trace);
        }
        if live.dirty_since.get().is_none() {
            live.dirty_since = Mark::at(place.offset);
            task.dirty[grain as usize].push(id);
        }
        Ok(capped)
    }

    /// Windows whose end the watermark has passed become final. Those on the disk wait there while enough others wait to be
    /// put out: until then they could not be saved, and leave memory again.
    pub(super) fn finalize(&self, task: &mut MergeTask, out: &mut Outputs) {
        task.may_have_finals = false;
        for source in Source::ALL {
            let Some(watermark_ms) = task.watermarks.current_ms(source) else { continue };
            let waiting = task.became_final.len() + task.left_over.len();
            let room = self.config.windows_per_commit.saturating_sub(waiting);
            match task.windows.finalize(source, watermark_ms.div_euclid(1_000), room) {
                Ok((finals, has_more)) => {
                    task.became_final.extend(finals);
                    task.may_have_finals |= has_more;
                }
                Err(error) => return out.fail(error),
            }
        }
    }

    /// Puts out what is due, or everything; at most about so many windows in one commit as the settings say.
    pub(super) fn flush(&self, task: &mut MergeTask, everything: bool, now_ms: i64, out: &mut Outputs) {
        let mut due = std::mem::take(&mut task.left_over);
        due.append(&mut task.became_final);
        // The windows of a metric at one time go out together: a replay relies on it where keys are capped.
        let groups: BTreeSet<Group> = due.iter().filter_map(|id| task.windows.table.group(*id)).collect();
        let beside_them = |id: &WindowId| task.windows.table.group(*id).is_some_and(|group| groups.contains(&group));
        for grain in Grain::ALL {
            let dirty = &mut task.dirty[grain as usize];
            if everything || self.is_flush_due(task.flushed_at_ms[grain as usize], dirty, grain, now_ms) {
                task.flushed_at_ms[grain as usize] = now_ms;
                due.append(dirty);
            } else if !groups.is_empty() {
                due.extend(dirty.extract_if(.., |id| beside_them(id)));
            }
        }
        due.sort_unstable_by_key(|id| (id.grain, id.start_s, id.key));
        due.dedup();
        task.left_over = self.beyond_one_commit(&task.windows.table, &mut due);
        for id in due {
            let Some((key, source)) = task.windows.table.key(id.key) else { continue };
            let zone = self.zone_of(&key, id.grain);
            let Some(live) = task.windows.table.get_mut(id) else { continue };
            live.revision = live.revision.saturating_add(1);
            live.dirty_since = Mark::NONE;
            let upsert = upsert_of(key, source, zone, task.partition, id, live, now_ms);
            // Nearly always there is none at all.
            let trace = if task.traces.is_empty() { None } else { task.traces.remove(&id) };
            out.records.push(upsert_record(task.partition, upsert, trace));
            task.windows.changed(id);
        }
    }

    /// Cuts off what is too much for one commit, between two groups.
    fn beyond_one_commit(&self, table: &WindowTable, due: &mut Vec<WindowId>) -> Vec<WindowId> {
        let at_most = self.config.windows_per_commit.max(1);
        if due.len() <= at_most {
            return Vec::new();
        }
        due.sort_by_cached_key(|id| table.group(*id));
        let last = table.group(due[at_most - 1]);
        let cut = due.partition_point(|id| table.group(*id) <= last);
        due.split_off(cut)
    }

    fn zone_of(&self, key: &MetricKey, grain: Grain) -> &str {
        if grain.is_zoned() {
            self.calendars.get(&key.workspace).unwrap_or(&self.default_calendar).name()
        } else {
            "UTC"
        }
    }

    /// Forgets windows that are final, put out, past their grace, and no longer touched. Their deltas lie below
    /// `replay_from`, so that no replay can open them again.
    pub(super) fn evict(&self, task: &mut MergeTask, replay_from: u64, now_ms: i64, out: &mut Outputs) {
        // What became final and was not said so yet stays.
        if now_ms.saturating_sub(task.swept_at_ms).abs() < SWEEP_MS || !task.left_over.is_empty() {
            return;
        }
        task.swept_at_ms = now_ms;
        let residence_ms = i64::try_from(self.config.residence.as_millis()).unwrap_or(i64::MAX);
        let is_untouched = |touched_at_ms: i64| now_ms.saturating_sub(touched_at_ms) >= residence_ms;
        let mut over: Vec<WindowId> = Vec::new();
        for (id, live) in task.windows.table.iter() {
            let source = task.windows.table.source(id.key).unwrap_or(Source::Behavior);
            let end_s = id.start_s + i64::from(live.length_s);
            let past = self.evicted_until(&task.watermarks, source, id.grain).is_some_and(|until_s| end_s <= until_s);
            let is_clean = live.dirty_since.get().is_none() && live.last_applied < replay_from;
            if past && is_untouched(live.touched_at_ms) && live.is_final && is_clean {
                over.push(id);
            }
        }
        over.sort_unstable();
        let at_most = self.config.windows_per_commit;
        let mut has_more = over.len() > at_most;
        over.truncate(at_most);
        for id in over {
            let Some((key, _)) = task.windows.table.key(id.key) else { continue };
            if let Some(live) = task.windows.remove(id) {
                out.records.push(self.tombstone(task.partition, &key, id.grain, id.start_s, live.epoch, now_ms));
            }
        }
        let is_over = |stored: &StoredWindow| is_untouched(stored.touched_at_ms) && stored.last_applied < replay_from;
        match self.evict_from_local_state(task, is_over, now_ms, out) {
            Ok(has_more_stored) => has_more |= has_more_stored,
            Err(error) => out.fail(error),
        }
        if has_more {
            // The rest goes with the next commit.
            task.swept_at_ms = now_ms - SWEEP_MS;
        }
    }

    /// Whether there may be more.
    fn evict_from_local_state(
        &self,
        task: &mut MergeTask,
        is_over: impl Fn(&StoredWindow) -> bool,
        now_ms: i64,
        out: &mut Outputs,
    ) -> Result<bool, EngineError> {
        let watermarks = &task.watermarks;
        let until_s = |grain, source| self.evicted_until(watermarks, source, grain);
        let (over, has_more) = task.windows.look_over_finals(until_s, is_over, self.config.windows_per_commit)?;
        for stored in over {
            task.windows.remove_stored(&stored);
            out.records.push(self.tombstone(
                task.partition,
                &stored.key,
                stored.grain,
                stored.start_s,
                stored.epoch,
                now_ms,
            ));
        }
        Ok(has_more)
    }

    /// Windows that ended by then are past their grace.
    fn evicted_until(&self, watermarks: &Watermarks, source: Source, grain: Grain) -> Option<i64> {
        let grace_s = i64::try_from(self.config.grace[grain as usize].as_secs()).unwrap_or(i64::MAX);
        Some(watermarks.current_ms(source)?.div_euclid(1_000).saturating_sub(grace_s))
    }

    fn tombstone(
        &self,
        partition: u32,
        key: &MetricKey,
        grain: Grain,
        start_s: i64,
        epoch: u64,
        now_ms: i64,
    ) -> NewRecord {
        let epoch = Epoch { partition, offset: epoch };
        window_record(partition, window_key(key, grain, self.zone_of(key, grain), start_s, epoch), None, now_ms)
    }
}

/// Why a delta cannot be added.
enum Trouble {
    Overflow(Overflow),
    Local(EngineError),
}

impl From<Overflow> for Trouble {
    fn from(overflow: Overflow) -> Self {
        Self::Overflow(overflow)
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Local(error)
    }
}

/// Where a delta goes.
#[derive(Clone, Copy)]
struct Place {
    grain: Grain,
    window: Window,
    source: Source,
    is_late: bool,
    offset: u64,
    now_ms: i64,
    trace: Option<TraceContext>,
}

impl Place {
    fn opened_window(&self) -> LiveWindow {
        LiveWindow {
            epoch: self.offset,
            length_s: u32::try_from(self.window.end_s - self.window.start_s).unwrap_or(u32::MAX),
            is_final: self.is_late,
            ..LiveWindow::default()
        }
    }
}

fn upsert_of(
    key: MetricKey,
    source: Source,
    zone: &str,
    partition: u32,
    id: WindowId,
    live: &LiveWindow,
    now_ms: i64,
) -> WindowUpsert {
    WindowUpsert {
        key,
        source,
        grain: id.grain,
        zone: zone.to_owned(),
        window_start: id.start_s,
        window_end: id.start_s + i64::from(live.length_s),
        epoch: Epoch { partition, offset: live.epoch },
        revision: u64::from(live.revision),
        r#final: live.is_final,
        state: WindowState::of(&live.aggregate),
        as_of: live.last_applied,
        updated_at: now_ms,
    }
}

fn upsert_record(partition: u32, upsert: WindowUpsert, trace: Option<TraceContext>) -> NewRecord {
    let key = window_key(&upsert.key, upsert.grain, &upsert.zone, upsert.window_start, upsert.epoch);
    let value = upsert.encode();
    let record = window_record(partition, key, Some(value), upsert.updated_at);
    NewRecord { headers: TraceContext::stamp_if(trace, record.headers), ..record }
}

fn window_record(partition: u32, key: String, value: Option<Vec<u8>>, now_ms: i64) -> NewRecord {
    NewRecord {
        topic: Topic::MetricsWindows,
        partition: Some(partition),
        key: Bytes::from(key),
        value: value.map(Bytes::from),
        headers: Headers::new().with(header::SCHEMA, Bytes::from_static(b"1")),
        timestamp_ms: now_ms,
    }
}
