//! Pure but for the local state: no clock, no async.
//!
//! All windows of a task: those at work in memory, all of them in the local state if there is one. When memory is over its
//! budget, the windows that were not touched for the longest time are left to the local state; who asks for one brings it
//! back. Windows are saved only when their upserts hold everything they have, see `MetricsMerge::prepare_commit`.

use std::collections::{BTreeMap, HashMap};

use neonhub_schemas::control::UpstreamWatermarks;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::window::Grain;

use super::keys::metric_hash;
use super::stored::{self, Meta, Place, StoredWindow};
use super::table::{Group, LiveWindow, Stored, WindowId, WindowTable};
use crate::engine::{Change, EngineError, LocalState, Marker};

/// How many keys a metric has in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Cardinality {
    in_memory: u32,
    spilled: u32,
}

/// A window that was in the local state and is over.
#[derive(Clone, Copy, Debug)]
struct Removed {
    source: Source,
    end_s: i64,
}

/// Keys of an index.
#[derive(Debug, Default)]
struct Found {
    keys: Vec<Vec<u8>>,
    /// The first that was too many.
    next: Option<Vec<u8>>,
}

pub struct Windows {
    pub table: WindowTable,
    local: Option<LocalState>,
    /// Bytes of windows and keys in memory, if the local state can take the rest.
    budget: usize,
    /// Windows that are written to the local state at a time.
    portion: usize,
    /// Slots of windows in memory that wait for the watermark, by source and end. Some may have gone since, and others may
    /// have come in their slots.
    waiting: BTreeMap<(Source, i64), Vec<u32>>,
    /// By metric, grain and start. What is not here has no windows in memory.
    cardinality: HashMap<Group, Cardinality>,
    /// In the local state, but over; until the next save.
    removed: HashMap<Place, Removed>,
    unsaved: Vec<WindowId>,
    /// Whether the local state may have windows that are not in memory.
    has_spilled: bool,
    /// Where windows in the local state that are not final begin, by source; `None`: there are none.
    open_from: [Option<Vec<u8>>; 3],
    /// Up to where the final windows in the local state were looked over; empty: from the beginning.
    looked_over_to: Vec<u8>,
}

impl Windows {
    #[must_use]
    pub fn new(local: Option<LocalState>, budget: usize, portion: usize) -> Self {
        let is_filled = local.as_ref().is_some_and(LocalState::is_filled);
        let open_from = Source::ALL.map(|source| is_filled.then(|| stored::open_key(source, i64::MIN, &[])));
        Self {
            table: WindowTable::default(),
            local,
            budget,
            portion: portion.max(1),
            has_spilled: is_filled,
            waiting: BTreeMap::new(),
            cardinality: HashMap::new(),
            removed: HashMap::new(),
            unsaved: Vec::new(),
            open_from,
            looked_over_to: Vec::new(),
        }
    }

    /// What was saved beside the windows.
    pub fn meta(&self) -> Result<Option<Meta>, EngineError> {
        let Some(local) = self.local.as_ref().filter(|local| local.is_filled()) else { return Ok(None) };
        let bytes = local.get(stored::META_KEY)?;
        local.trusting(bytes.map(|bytes| stored::decode(&bytes)).transpose())
    }

    /// The window of a key, wherever it is; it is in memory then.
    pub fn find(&mut self, key: &MetricKey, grain: Grain, start_s: i64) -> Result<Option<WindowId>, EngineError> {
        let id = self.table.find(key).map(|key| WindowId { key, grain, start_s });
        if let Some(id) = id.filter(|id| self.table.get(*id).is_some()) {
            return Ok(Some(id));
        }
        if self.local.is_none() || !key.dimensions.is_empty() && self.cardinality(key, grain, start_s)?.spilled == 0 {
            return Ok(None);
        }
        let place = stored::place(key, grain, start_s);
        if self.removed.contains_key(&place) {
            return Ok(None);
        }
        match self.stored(&stored::window_key(&place))? {
            Some(stored) => self.bring_back(&stored).map(Some),
            None => Ok(None),
        }
    }

    fn stored(&self, window_key: &[u8]) -> Result<Option<StoredWindow>, EngineError> {
        let Some(local) = &self.local else { return Ok(None) };
        let bytes = local.get(window_key)?;
        local.trusting(bytes.map(|bytes| stored::decode(&bytes)).transpose())
    }

    fn bring_back(&mut self, stored: &StoredWindow) -> Result<WindowId, EngineError> {
        let window = match &self.local {
            Some(local) => local.trusting(stored.to_window())?,
            None => stored.to_window()?,
        };
        if !stored.key.dimensions.is_empty() {
            self.cardinality(&stored.key, stored.grain, stored.start_s)?;
        }
        if let Some(known) = self.cardinality.get_mut(&group(&stored.key, stored.grain, stored.start_s)) {
            known.spilled = known.spilled.saturating_sub(1);
        }
        Ok(self.put(&stored.key, stored.source, stored.grain, stored.start_s, window))
    }

    /// How many keys the metric has in this window already.
    pub fn keys_in_window(&mut self, key: &MetricKey, grain: Grain, start_s: i64) -> Result<u32, EngineError> {
        let cardinality = self.cardinality(key, grain, start_s)?;
        Ok(cardinality.in_memory + cardinality.spilled)
    }

    /// Counted once, when the first window of the metric at this time comes into memory.
    fn cardinality(&mut self, key: &MetricKey, grain: Grain, start_s: i64) -> Result<Cardinality, EngineError> {
        let group = group(key, grain, start_s);
        if let Some(known) = self.cardinality.get(&group) {
            return Ok(*known);
        }
        let mut counted = Cardinality::default();
        if let Some(local) = &self.local {
            let (from, to) = stored::group_range(&stored::group(group.2, grain, start_s));
            local.scan(&from, &to, |key, _| {
                let is_over = Place::try_from(&key[1..]).is_ok_and(|place| self.removed.contains_key(&place));
                counted.spilled += u32::from(!is_over);
                true
            })?;
        }
        self.cardinality.insert(group, counted);
        Ok(counted)
    }

    /// What was read back takes the place of what is there.
    pub fn restore(
        &mut self,
        key: &MetricKey,
        source: Source,
        grain: Grain,
        start_s: i64,
        mut window: LiveWindow,
    ) -> Result<(), EngineError> {
        let known = self.find(key, grain, start_s)?;
        window.stored = known.and_then(|id| self.table.get(id)).map_or(Stored::No, |known| known.stored);
        if let Some(id) = known {
            // It counts already.
            self.table.insert(id, window);
            self.wait(id, source);
            self.changed(id);
        } else {
            let id = self.put(key, source, grain, start_s, window);
            self.changed(id);
        }
        if self.is_over_budget() {
            let changes = self.write_up_to_last()?;
            if let Some(local) = &self.local {
                local.write(changes)?;
            }
            self.spill();
        }
        Ok(())
    }

    /// Puts a window into memory that is not there.
    pub fn put(&mut self, key: &MetricKey, source: Source, grain: Grain, start_s: i64, window: LiveWindow) -> WindowId {
        let id = WindowId { key: self.table.intern(key, source), grain, start_s };
        self.table.insert(id, window);
        if !key.dimensions.is_empty() {
            self.cardinality.entry(group(key, grain, start_s)).or_default().in_memory += 1;
        }
        self.wait(id, source);
        id
    }

    fn wait(&mut self, id: WindowId, source: Source) {
        let Some(slot) = self.table.slot_of(id) else { return };
        let window = self.table.in_slot(slot).filter(|(_, window)| !window.is_final);
        if let Some((_, window)) = window {
            let end_s = id.start_s + i64::from(window.length_s);
            self.waiting.entry((source, end_s)).or_default().push(slot);
        }
    }

    /// The window in a slot, if it waits there for the watermark to pass this end.
    fn that_waits(&self, slot: u32, (source, end_s): (Source, i64)) -> Option<WindowId> {
        let (id, window) = self.table.in_slot(slot)?;
        let waits = !window.is_final
            && id.start_s + i64::from(window.length_s) == end_s
            && self.table.source(id.key) == Some(source);
        waits.then_some(id)
    }

    /// The window is not any more what the local state has.
    pub fn changed(&mut self, id: WindowId) {
        if self.local.is_none() {
            return;
        }
        if let Some(window) = self.table.get_mut(id).filter(|window| !window.is_unsaved) {
            window.is_unsaved = true;
            self.unsaved.push(id);
        }
    }

    /// Makes windows final whose end the watermark has passed, and says which. Of those in the local state only so many come
    /// into memory: says, too, whether there are more.
    pub fn finalize(
        &mut self,
        source: Source,
        watermark_s: i64,
        from_local_state: usize,
    ) -> Result<(Vec<WindowId>, bool), EngineError> {
        let mut over = Vec::new();
        let first = |waiting: &BTreeMap<(Source, i64), _>| {
            waiting.range((source, i64::MIN)..=(source, watermark_s)).next().map(|(place, _)| *place)
        };
        while let Some(place) = first(&self.waiting) {
            let slots = self.waiting.remove(&place).unwrap_or_default();
            over.extend(slots.into_iter().filter_map(|slot| self.that_waits(slot, place)));
        }
        let more = self.bring_back_open(source, watermark_s, from_local_state, &mut over)?;
        // A slot may have waited twice.
        over.retain(|id| self.table.get_mut(*id).is_some_and(|window| !std::mem::replace(&mut window.is_final, true)));
        Ok((over, more))
    }

    fn bring_back_open(
        &mut self,
        source: Source,
        watermark_s: i64,
        at_most: usize,
        over: &mut Vec<WindowId>,
    ) -> Result<bool, EngineError> {
        let to = stored::open_key(source, watermark_s.saturating_add(1), &[]);
        let Some(from) = self.open_from[source as usize].clone().filter(|from| *from < to) else { return Ok(false) };
        let found = self.scan_index(&from, &to, at_most)?;
        for index_key in &found.keys {
            let Some(stored) = self.stored_unless_in_memory(index_key)? else { continue };
            over.push(self.bring_back(&stored)?);
        }
        let more = found.next.is_some();
        self.open_from[source as usize] = Some(found.next.unwrap_or(to));
        Ok(more)
    }

    /// Goes on through the windows that are in the local state only, final, and ended by `until_s` of their grain and source;
    /// looks at so many at most. Those that please `is_over`, and whether there are more to look at.
    pub fn look_over_finals(
        &mut self,
        until_s: impl Fn(Grain, Source) -> Option<i64>,
        mut is_over: impl FnMut(&StoredWindow) -> bool,
        at_most: usize,
    ) -> Result<(Vec<StoredWindow>, bool), EngineError> {
        let mut over = Vec::new();
        let mut left = at_most;
        for (grain, source) in Grain::ALL.into_iter().flat_map(|grain| Source::ALL.map(|source| (grain, source))) {
            let Some(until_s) = until_s(grain, source) else { continue };
            let from = stored::final_key(grain, source, i64::MIN, &[]).max(self.looked_over_to.clone());
            let to = stored::final_key(grain, source, until_s.saturating_add(1), &[]);
            let found = self.scan_index(&from, &to, left)?;
            left -= found.keys.len();
            for index_key in &found.keys {
                over.extend(self.stored_unless_in_memory(index_key)?.filter(&mut is_over));
            }
            if let Some(next) = found.next {
                self.looked_over_to = next;
                return Ok((over, true));
            }
        }
        self.looked_over_to.clear();
        Ok((over, false))
    }

    /// So many keys in `[from, to)` at most.
    fn scan_index(&self, from: &[u8], to: &[u8], at_most: usize) -> Result<Found, EngineError> {
        let mut found = Found::default();
        if let Some(local) = &self.local {
            local.scan(from, to, |key, _| {
                if found.keys.len() == at_most {
                    found.next = Some(key.to_vec());
                } else {
                    found.keys.push(key.to_vec());
                }
                found.next.is_none()
            })?;
        }
        Ok(found)
    }

    fn stored_unless_in_memory(&self, index_key: &[u8]) -> Result<Option<StoredWindow>, EngineError> {
        let Some(window_key) = stored::window_key_of(index_key) else { return Ok(None) };
        if Place::try_from(&window_key[1..]).is_ok_and(|place| self.removed.contains_key(&place)) {
            return Ok(None);
        }
        let Some(stored) = self.stored(&window_key)? else { return Ok(None) };
        let id = self.table.find(&stored.key);
        let id = id.map(|key| WindowId { key, grain: stored.grain, start_s: stored.start_s });
        Ok(Some(stored).filter(|_| id.is_none_or(|id| self.table.get(id).is_none())))
    }

    /// A window in memory is over.
    pub fn remove(&mut self, id: WindowId) -> Option<LiveWindow> {
        let (key, source) = self.table.key(id.key)?;
        let window = self.table.remove(id)?;
        if window.stored != Stored::No {
            let end_s = id.start_s + i64::from(window.length_s);
            self.removed.insert(stored::place(&key, id.grain, id.start_s), Removed { source, end_s });
        }
        self.leaves_memory(&key, id, false);
        Some(window)
    }

    /// A window in the local state only is over.
    pub fn remove_stored(&mut self, stored: &StoredWindow) {
        let place = stored::place(&stored.key, stored.grain, stored.start_s);
        self.removed.insert(place, Removed { source: stored.source, end_s: stored.end_s() });
        let cardinality = self.cardinality.get_mut(&group(&stored.key, stored.grain, stored.start_s));
        if let Some(known) = cardinality {
            known.spilled = known.spilled.saturating_sub(1);
        }
    }

    fn leaves_memory(&mut self, key: &MetricKey, id: WindowId, spilled: bool) {
        if key.dimensions.is_empty() {
            return;
        }
        let group = group(key, id.grain, id.start_s);
        if let Some(known) = self.cardinality.get_mut(&group) {
            known.in_memory -= 1;
            known.spilled += u32::from(spilled);
            if known.in_memory == 0 {
                self.cardinality.remove(&group);
            }
        }
    }

    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.local.is_some() && self.heap_size() > self.budget
    }

    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.local.is_none() || self.unsaved.is_empty() && self.removed.is_empty()
    }

    /// Saves everything that the local state does not have; no window may be dirty.
    pub fn save(
        &mut self,
        watermarks: &UpstreamWatermarks,
        newest_applied: Option<u64>,
        marker: &Marker,
    ) -> Result<(), EngineError> {
        let mut changes = self.write_up_to_last()?;
        changes.push((stored::META_KEY.to_vec(), Some(stored::encode(&Meta::of(watermarks, newest_applied)))));
        if let Some(local) = &self.local {
            local.save(changes, marker)?;
        }
        if self.is_over_budget() {
            self.spill();
        }
        // Asked for, and not opened after all.
        self.cardinality.retain(|_, known| known.in_memory > 0);
        Ok(())
    }

    /// Writes what the local state does not have, in portions, so that all of it is never in memory once more; the last one
    /// is for the caller. Until then the state is newer than its marker says, which does no harm.
    fn write_up_to_last(&mut self) -> Result<Vec<Change>, EngineError> {
        loop {
            let changes = self.next_changes();
            match &self.local {
                Some(local) if !self.is_saved() => local.write(changes)?,
                _ => return Ok(changes),
            }
        }
    }

    /// Of a portion of windows; of those that are over first, since others may be in their places again.
    fn next_changes(&mut self) -> Vec<Change> {
        // By key: a store need not say which of two changes of one key in a batch is the later.
        let mut changes = BTreeMap::new();
        let removed: Vec<(Place, Removed)> = self.removed.extract_if(|_, _| true).take(self.portion).collect();
        let first_unsaved = self.unsaved.len().saturating_sub(self.portion - removed.len());
        for (place, removed) in removed {
            let Removed { source, end_s } = removed;
            let grain = Grain::ALL[usize::from(place[8])];
            changes.insert(stored::window_key(&place), None);
            changes.insert(stored::open_key(source, end_s, &place), None);
            changes.insert(stored::final_key(grain, source, end_s, &place), None);
        }
        for id in self.unsaved.split_off(first_unsaved) {
            let Some((key, source)) = self.table.key(id.key) else { continue };
            let Some(window) = self.table.get_mut(id).filter(|window| window.is_unsaved) else { continue };
            window.is_unsaved = false;
            let place = stored::place(&key, id.grain, id.start_s);
            let end_s = id.start_s + i64::from(window.length_s);
            let (open, r#final) =
                (stored::open_key(source, end_s, &place), stored::final_key(id.grain, source, end_s, &place));
            let now = if window.is_final { Stored::Final } else { Stored::Open };
            match (window.stored, now) {
                (Stored::No, Stored::Final) => drop(changes.insert(r#final, Some(Vec::new()))),
                (Stored::No, _) => drop(changes.insert(open, Some(Vec::new()))),
                (Stored::Open, Stored::Final) => changes.extend([(open, None), (r#final, Some(Vec::new()))]),
                _ => {}
            }
            window.stored = now;
            let stored = StoredWindow::of(key, source, id.grain, id.start_s, window);
            changes.insert(stored::window_key(&place), Some(stored::encode(&stored)));
        }
        changes.into_iter().collect()
    }

    /// Leaves the windows that were not touched for the longest time to the local state, until a quarter of the budget is
    /// free. What is dirty or unsaved stays.
    fn spill(&mut self) {
        self.has_spilled = true;
        let is_free = |window: &LiveWindow| window.dirty_since.get().is_none() && !window.is_unsaved;
        let mut coldest: Vec<(i64, WindowId)> = self
            .table
            .iter()
            .filter(|(_, window)| is_free(window))
            .map(|(id, window)| (window.touched_at_ms, id))
            .collect();
        coldest.sort_unstable();
        for (_, id) in coldest {
            if self.heap_size() <= self.budget / 4 * 3 {
                break;
            }
            let Some((key, source)) = self.table.key(id.key) else { continue };
            let Some(window) = self.table.remove(id) else { continue };
            self.leaves_memory(&key, id, true);
            if !window.is_final {
                let end_s = id.start_s + i64::from(window.length_s);
                let begin = stored::open_key(source, end_s, &[]);
                let from = &mut self.open_from[source as usize];
                *from = Some(match from.take() {
                    Some(from) => from.min(begin),
                    None => begin,
                });
            }
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|place, slots| {
            slots.retain(|slot| self.that_waits(*slot, *place).is_some());
            slots.shrink_to_fit();
            !slots.is_empty()
        });
        self.waiting = waiting;
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty() && !self.has_spilled
    }

    /// Bytes in memory.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        // A place in a list of those that wait (which is between half and all full), and what is to be removed.
        self.table.heap_size()
            + self.table.len() * size_of::<u32>() * 3 / 2
            + self.cardinality.len() * 48
            + self.removed.len() * 96
    }
}

fn group(key: &MetricKey, grain: Grain, start_s: i64) -> Group {
    (grain, start_s, metric_hash(key))
}

#[cfg(test)]
mod tests;
