//! Pure: no I/O, no clock, no async.
//!
//! The metric keys that have windows in memory, each once.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;

pub type KeyId = u32;

/// A metric key in few bytes: what many keys share is there once.
struct CompactKey {
    workspace: Arc<str>,
    metric: Arc<str>,
    series: u64,
    dimensions: Box<[(Arc<str>, Box<str>)]>,
    source: Source,
    windows: u32,
}

impl CompactKey {
    fn is(&self, key: &MetricKey) -> bool {
        let dimensions = self.dimensions.iter().map(|(name, value)| (&**name, &**value));
        self.series == key.series
            && *self.metric == *key.metric
            && *self.workspace == *key.workspace
            && dimensions.eq(key.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    fn to_key(&self) -> MetricKey {
        let dimensions = self.dimensions.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        MetricKey {
            workspace: self.workspace.to_string(),
            metric: self.metric.to_string(),
            series: self.series,
            dimensions: dimensions.collect(),
        }
    }

    fn heap_size(&self) -> usize {
        let pair = size_of::<(Arc<str>, Box<str>)>();
        self.dimensions.iter().map(|(_, value)| pair + value.len().next_multiple_of(8)).sum()
    }
}

#[derive(Default)]
pub struct Keys {
    entries: Vec<Option<CompactKey>>,
    free: Vec<KeyId>,
    ids: HashTable<KeyId>,
    hasher: DefaultHashBuilder,
    /// Workspaces, metrics and names of dimensions: few.
    names: HashSet<Arc<str>>,
    values_size: usize,
}

impl Keys {
    /// The id of a key that has windows.
    pub fn find(&self, key: &MetricKey) -> Option<KeyId> {
        let is_it = |id: &KeyId| self.entry(*id).is_some_and(|entry| entry.is(key));
        self.ids.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// The id of a key, made when it is new.
    pub fn intern(&mut self, key: &MetricKey, source: Source) -> KeyId {
        if let Some(id) = self.find(key) {
            return id;
        }
        let dimensions =
            key.dimensions.iter().map(|(name, value)| (self.names.shared(name), Box::from(value.as_str())));
        let entry = CompactKey {
            dimensions: dimensions.collect(),
            workspace: self.names.shared(&key.workspace),
            metric: self.names.shared(&key.metric),
            series: key.series,
            source,
            windows: 0,
        };
        self.values_size += entry.heap_size();
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = Some(entry);
                id
            }
            None => {
                self.entries.push(Some(entry));
                u32::try_from(self.entries.len() - 1).unwrap_or(KeyId::MAX)
            }
        };
        let (entries, hasher) = (&self.entries, &self.hasher);
        let hash_of = |id: &KeyId| entries[*id as usize].as_ref().map_or(0, |entry| hasher.hash_one(entry.to_key()));
        self.ids.insert_unique(hasher.hash_one(key), id, hash_of);
        id
    }

    fn entry(&self, id: KeyId) -> Option<&CompactKey> {
        self.entries.get(id as usize)?.as_ref()
    }

    pub fn get(&self, id: KeyId) -> Option<(MetricKey, Source)> {
        self.entry(id).map(|entry| (entry.to_key(), entry.source))
    }

    pub fn source(&self, id: KeyId) -> Option<Source> {
        self.entry(id).map(|entry| entry.source)
    }

    /// One more window has this key.
    pub fn hold(&mut self, id: KeyId) {
        if let Some(entry) = self.entries.get_mut(id as usize).and_then(Option::as_mut) {
            entry.windows += 1;
        }
    }

    /// One window less; with the last one the key goes.
    pub fn let_go(&mut self, id: KeyId) {
        let Some(place) = self.entries.get_mut(id as usize) else { return };
        let Some(entry) = place.as_mut() else { return };
        entry.windows -= 1;
        if entry.windows > 0 {
            return;
        }
        let gone = self.hasher.hash_one(entry.to_key());
        self.values_size -= entry.heap_size();
        *place = None;
        self.free.push(id);
        if let Ok(found) = self.ids.find_entry(gone, |other| *other == id) {
            found.remove();
        }
    }

    pub fn heap_size(&self) -> usize {
        self.ids.len() * (size_of::<Option<CompactKey>>() + size_of::<KeyId>() * 2) + self.values_size
    }
}

/// Names that many share.
trait Shared {
    fn shared(&mut self, name: &str) -> Arc<str>;
}

impl Shared for HashSet<Arc<str>> {
    fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = Arc::from(name);
        self.insert(Arc::clone(&name));
        name
    }
}
