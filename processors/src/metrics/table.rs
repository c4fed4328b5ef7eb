//! Pure: no I/O, no clock, no async.
//!
//! The windows in memory: keys are interned, windows are found by key, grain and start.

use std::sync::Arc;

use hashbrown::HashMap;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::window::{Aggregate, Epoch, Grain};

pub type KeyId = u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId {
    pub key: KeyId,
    pub grain: Grain,
    pub start_s: i64,
}

/// One epoch of a window.
#[derive(Clone, Debug)]
pub struct LiveWindow {
    pub aggregate: Aggregate,
    pub end_s: i64,
    pub epoch: Epoch,
    pub revision: u64,
    pub is_final: bool,
    /// Offset of the last delta it holds.
    pub last_applied: u64,
    /// The state was read back and holds everything up to here: a replay below it is passed over.
    pub restored_as_of: Option<u64>,
    /// Offset of the first delta that no upsert holds yet.
    pub dirty_since: Option<u64>,
    pub touched_at_ms: i64,
}

struct Key {
    key: Arc<MetricKey>,
    source: Source,
    windows: u32,
}

/// Windows, keys, and how many keys each metric has in each window.
#[derive(Default)]
pub struct WindowTable {
    keys: Vec<Option<Key>>,
    free: Vec<KeyId>,
    ids: HashMap<Arc<MetricKey>, KeyId>,
    windows: HashMap<WindowId, LiveWindow>,
    /// Distinct keys by (workspace, metric, series), grain and start.
    cardinality: HashMap<(u64, Grain, i64), u32>,
}

impl WindowTable {
    /// The id of a key that has windows.
    #[must_use]
    pub fn find(&self, key: &MetricKey) -> Option<KeyId> {
        self.ids.get(key).copied()
    }

    /// The id of a key, made when it is new. It is let go with the key's last window, so open one.
    pub fn intern(&mut self, key: &MetricKey, source: Source) -> KeyId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let key = Arc::new(key.clone());
        let entry = Key { key: key.clone(), source, windows: 0 };
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[id as usize] = Some(entry);
                id
            }
            None => {
                self.keys.push(Some(entry));
                u32::try_from(self.keys.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.ids.insert(key, id);
        id
    }

    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<(&Arc<MetricKey>, Source)> {
        self.keys.get(id as usize)?.as_ref().map(|entry| (&entry.key, entry.source))
    }

    #[must_use]
    pub fn get_mut(&mut self, id: WindowId) -> Option<&mut LiveWindow> {
        self.windows.get_mut(&id)
    }

    /// How many keys the metric has in this window already.
    #[must_use]
    pub fn keys_in_window(&self, metric: u64, grain: Grain, start_s: i64) -> u32 {
        self.cardinality.get(&(metric, grain, start_s)).copied().unwrap_or(0)
    }

    pub fn insert(&mut self, id: WindowId, window: LiveWindow) {
        let Some(entry) = self.keys.get_mut(id.key as usize).and_then(Option::as_mut) else { return };
        if self.windows.insert(id, window).is_none() {
            entry.windows += 1;
            *self.cardinality.entry((metric_hash(&entry.key), id.grain, id.start_s)).or_default() += 1;
        }
    }

    pub fn remove(&mut self, id: WindowId) -> Option<LiveWindow> {
        let window = self.windows.remove(&id)?;
        let entry = self.keys.get_mut(id.key as usize)?;
        if let Some(key) = entry {
            let place = (metric_hash(&key.key), id.grain, id.start_s);
            if let Some(count) = self.cardinality.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    self.cardinality.remove(&place);
                }
            }
            key.windows -= 1;
            if key.windows == 0 {
                self.ids.remove(&key.key);
                *entry = None;
                self.free.push(id.key);
            }
        }
        Some(window)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&WindowId, &LiveWindow)> {
        self.windows.iter()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    #[must_use]
    pub fn heap_size(&self) -> usize {
        let sketches: usize = self.windows.values().map(|window| window.aggregate.heap_size()).sum();
        self.windows.len() * (size_of::<WindowId>() + size_of::<LiveWindow>()) + self.keys.len() * 200 + sketches
    }
}

/// Of workspace, metric and series: what the cardinality cap counts by.
#[must_use]
pub fn metric_hash(key: &MetricKey) -> u64 {
    let name = format!("{}\u{0}{}\u{0}{}", key.workspace, key.metric, key.series);
    xxhash_rust::xxh3::xxh3_64(name.as_bytes())
}
