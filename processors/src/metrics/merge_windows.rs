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
use neonhub_schemas::window::{
    Aggregate, Epoch, Grain, Overflow, Partial, Window, WindowState, WindowUpsert, window_key,
};

use super::merge::{MergeTask, MetricsMerge};
use super::table::{LiveWindow, WindowId, metric_hash};
use super::watermark::Watermarks;
use crate::engine::Outputs;

/// How often windows are looked over for eviction.
pub(super) const SWEEP_MS: i64 = 10_000;

impl MetricsMerge {
    fn keys_per_partition(&self) -> u32 {
        self.config.max_keys.div_ceil(self.config.partitions.max(1))
    }

    pub(super) fn is_flush_due(&self, task: &MergeTask, grain: Grain, now_ms: i64) -> bool {
        let cadence_ms = i64::try_from(self.config.cadence[grain as usize].as_millis()).unwrap_or(i64::MAX);
        let since_flush_ms = now_ms.saturating_sub(task.flushed_at_ms[grain as usize]);
        // A clock that went back must not hold anything up.
        !task.dirty[grain as usize].is_empty() && (since_flush_ms >= cadence_ms || since_flush_ms < 0)
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
        let metric = metric_hash(key);
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
                let place = Place { grain, window, source, metric, is_late, offset: record.offset, now_ms };
                let capped = self.apply_to_window(task, key, &gained, &place);
                match capped {
                    Ok(capped) => out.capped += u64::from(capped),
                    Err(error) => return out.reject(record, "metrics.merge", "overflow", error),
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
    ) -> Result<bool, Overflow> {
        let Place { grain, window, .. } = *place;
        let window_of = |key| WindowId { key, grain, start_s: window.start_s };
        let own = task.table.find(key).map(window_of).filter(|id| task.table.get_mut(*id).is_some());
        let may_be_capped = own.is_none() && !key.dimensions.is_empty() && !key.is_other();
        if may_be_capped && task.restored_to.is_some_and(|restored_to| place.offset <= restored_to) {
            // A replay: the windows that filled the cap may be gone by now, but what `__other__` holds it holds.
            let other = task.table.find(&key.other()).map(window_of).and_then(|id| task.table.get_mut(id));
            if other.is_some_and(|other| other.restored_as_of.is_some_and(|as_of| place.offset <= as_of)) {
                return Ok(false);
            }
        }
        let capped = may_be_capped
            && task.table.keys_in_window(place.metric, grain, window.start_s) >= self.keys_per_partition();
        let id = match own {
            Some(id) => id,
            None if capped => window_of(task.table.intern(&key.other(), place.source)),
            None => window_of(task.table.intern(key, place.source)),
        };
        if task.table.get_mut(id).is_none() {
            let epoch = Epoch { partition: task.partition, offset: place.offset };
            let opened = LiveWindow {
                aggregate: Aggregate::default(),
                end_s: window.end_s,
                epoch,
                revision: 0,
                is_final: place.is_late,
                last_applied: place.offset,
                restored_as_of: None,
                dirty_since: None,
                touched_at_ms: place.now_ms,
            };
            task.table.insert(id, opened);
            if !place.is_late {
                task.waiting.insert((place.source, window.end_s, id), ());
            }
        }
        let Some(live) = task.table.get_mut(id) else { return Ok(capped) };
        if live.restored_as_of.is_some_and(|as_of| place.offset <= as_of) {
            return Ok(false);
        }
        live.aggregate.merge(gained)?;
        live.last_applied = place.offset;
        live.touched_at_ms = place.now_ms;
        if live.dirty_since.is_none() {
            live.dirty_since = Some(place.offset);
            task.dirty[grain as usize].push(id);
        }
        Ok(capped)
    }

    /// Windows whose end the watermark has passed become final.
    pub(super) fn finalize(task: &mut MergeTask) {
        for source in Source::ALL {
            let Some(watermark_ms) = task.watermarks.current_ms(source) else { continue };
            let watermark_s = watermark_ms.div_euclid(1_000);
            loop {
                let next = task.waiting.range((source, i64::MIN, LEAST)..).next().map(|(place, ())| *place);
                let Some((next_source, end_s, id)) = next else { break };
                if next_source != source || end_s > watermark_s {
                    break;
                }
                task.waiting.remove(&(source, end_s, id));
                if let Some(live) = task.table.get_mut(id)
                    && !live.is_final
                {
                    live.is_final = true;
                    task.became_final.push(id);
                }
            }
        }
    }

    pub(super) fn flush(&self, task: &mut MergeTask, now_ms: i64, out: &mut Outputs) {
        let mut due = std::mem::take(&mut task.became_final);
        // The windows of one time go out together: a replay relies on it where keys are capped.
        let became_final: BTreeSet<(Grain, i64)> = due.iter().map(|id| (id.grain, id.start_s)).collect();
        let beside_them = |id: &&WindowId| became_final.contains(&(id.grain, id.start_s));
        due.extend(task.dirty.iter().flatten().filter(beside_them));
        for grain in Grain::ALL {
            if self.is_flush_due(task, grain, now_ms) {
                task.flushed_at_ms[grain as usize] = now_ms;
                due.append(&mut task.dirty[grain as usize]);
            }
        }
        due.sort_unstable();
        due.dedup();
        for id in due {
            let zone = self.zone_of(task, id);
            let Some((key, source)) = task.table.key(id.key).map(|(key, source)| (key.clone(), source)) else {
                continue;
            };
            let Some(live) = task.table.get_mut(id) else { continue };
            live.revision += 1;
            live.dirty_since = None;
            out.records.push(upsert_record(task.partition, upsert_of(&key, source, &zone, id, live, now_ms)));
        }
        // Finals went out of turn; what they held is clean now.
        for grain in Grain::ALL {
            let table = &mut task.table;
            task.dirty[grain as usize].retain(|id| table.get_mut(*id).is_some_and(|live| live.dirty_since.is_some()));
        }
    }

    fn zone_of(&self, task: &MergeTask, id: WindowId) -> String {
        if !id.grain.is_zoned() {
            return "UTC".to_owned();
        }
        let workspace = task.table.key(id.key).map_or("", |(key, _)| key.workspace.as_str());
        self.calendars.get(workspace).unwrap_or(&self.default_calendar).name().to_owned()
    }

    /// Forgets windows that are final, put out, past their grace, and no longer touched. Their deltas lie below
    /// `replay_from`, so that no replay can open them again.
    pub(super) fn evict(&self, task: &mut MergeTask, replay_from: u64, now_ms: i64, out: &mut Outputs) {
        if now_ms.saturating_sub(task.swept_at_ms).abs() < SWEEP_MS {
            return;
        }
        task.swept_at_ms = now_ms;
        let residence_ms = i64::try_from(self.config.residence.as_millis()).unwrap_or(i64::MAX);
        let mut over: Vec<WindowId> = Vec::new();
        for (id, live) in task.table.iter() {
            let source = task.table.key(id.key).map_or(Source::Behavior, |(_, source)| source);
            let grace_s = i64::try_from(self.config.grace[id.grain as usize].as_secs()).unwrap_or(i64::MAX);
            let watermark_ms = task.watermarks.current_ms(source);
            let past = watermark_ms.is_some_and(|watermark_ms| watermark_ms >= (live.end_s + grace_s) * 1_000);
            let untouched = now_ms.saturating_sub(live.touched_at_ms) >= residence_ms;
            if past && untouched && live.is_final && live.dirty_since.is_none() && live.last_applied < replay_from {
                over.push(*id);
            }
        }
        over.sort_unstable();
        for id in over {
            let zone = self.zone_of(task, id);
            let Some(key) = task.table.key(id.key).map(|(key, _)| key.clone()) else { continue };
            if let Some(live) = task.table.remove(id) {
                let key = window_key(&key, id.grain, &zone, id.start_s, live.epoch);
                out.records.push(window_record(task.partition, key, None, now_ms));
            }
        }
    }
}

/// Where a delta goes.
#[derive(Clone, Copy)]
struct Place {
    grain: Grain,
    window: Window,
    source: Source,
    metric: u64,
    is_late: bool,
    offset: u64,
    now_ms: i64,
}

const LEAST: WindowId = WindowId { key: 0, grain: Grain::Minute, start_s: i64::MIN };

fn upsert_of(
    key: &MetricKey,
    source: Source,
    zone: &str,
    id: WindowId,
    live: &LiveWindow,
    now_ms: i64,
) -> WindowUpsert {
    WindowUpsert {
        key: key.clone(),
        source,
        grain: id.grain,
        zone: zone.to_owned(),
        window_start: id.start_s,
        window_end: live.end_s,
        epoch: live.epoch,
        revision: live.revision,
        r#final: live.is_final,
        state: WindowState::of(&live.aggregate),
        as_of: live.last_applied,
        updated_at: now_ms,
    }
}

fn upsert_record(partition: u32, upsert: WindowUpsert) -> NewRecord {
    let key = window_key(&upsert.key, upsert.grain, &upsert.zone, upsert.window_start, upsert.epoch);
    // Times within ClickHouse's range always have a text form.
    let value = serde_json::to_vec(&upsert).unwrap_or_default();
    window_record(partition, key, Some(value), upsert.updated_at)
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
