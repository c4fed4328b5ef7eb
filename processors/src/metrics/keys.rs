//! Pure: no I/O, no clock, no async.
//!
//! The metric keys that have windows in memory, each once.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use xxhash_rust::xxh3::xxh3_64_with_seed;

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

    pub fn metric_hash(&self, id: KeyId) -> Option<u64> {
        self.entry(id).map(|entry| hash_of_metric(&entry.workspace, &entry.metric, entry.series))
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

/// Of workspace, metric and series: what the cardinality cap counts by.
pub fn metric_hash(key: &MetricKey) -> u64 {
    hash_of_metric(&key.workspace, &key.metric, key.series)
}

fn hash_of_metric(workspace: &str, metric: &str, series: u64) -> u64 {
    xxh3_64_with_seed(metric.as_bytes(), xxh3_64_with_seed(workspace.as_bytes(), series))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn key(campaign: &str) -> MetricKey {
        let dimensions = [("campaign".to_owned(), campaign.to_owned())].into();
        MetricKey { workspace: "acme".into(), metric: "spend".into(), series: 1, dimensions }
    }

    #[test]
    fn keys_that_differ_in_anything_are_told_apart() {
        let mut keys = Keys::default();
        let all = [
            key("men"),
            key("women"),
            MetricKey { workspace: "other".into(), ..key("men") },
            MetricKey { metric: "clicks".into(), ..key("men") },
            MetricKey { series: 2, ..key("men") },
            MetricKey { dimensions: Default::default(), ..key("men") },
            MetricKey { dimensions: [("policy".to_owned(), "men".to_owned())].into(), ..key("men") },
        ];
        for (index, key) in all.iter().enumerate() {
            assert_eq!(keys.find(key), None);
            // Whatever the hash: none of those that are there is it.
            assert!(keys.entries.iter().flatten().all(|entry| !entry.is(key)));
            let id = keys.intern(key, Source::Campaign);
            assert_eq!((keys.find(key), keys.intern(key, Source::Campaign)), (Some(id), id));
            assert_eq!((id as usize, keys.get(id)), (index, Some((key.clone(), Source::Campaign))));
        }
        assert_eq!((keys.source(99), keys.metric_hash(99)), (None, None));
    }

    #[test]
    fn keys_are_counted_by_workspace_metric_and_series() {
        let spend = key("men");
        let others = [
            MetricKey { workspace: "other".into(), ..spend.clone() },
            MetricKey { metric: "clicks".into(), ..spend.clone() },
            MetricKey { series: 2, ..spend.clone() },
        ];
        others.iter().for_each(|other| assert_ne!(metric_hash(other), metric_hash(&spend)));
        assert_eq!(metric_hash(&key("women")), metric_hash(&spend));
        let mut keys = Keys::default();
        let id = keys.intern(&spend, Source::Campaign);
        assert_eq!(keys.metric_hash(id), Some(metric_hash(&spend)));
    }

    #[test]
    fn a_key_goes_with_its_last_window_and_its_id_is_given_again() {
        let mut keys = Keys::default();
        let [men, women] = ["men", "women"].map(|campaign| keys.intern(&key(campaign), Source::Campaign));
        for id in [men, men, women] {
            keys.hold(id);
        }
        keys.let_go(men);
        assert_eq!((keys.find(&key("men")), keys.find(&key("women"))), (Some(men), Some(women)));
        keys.let_go(men);
        assert_eq!((keys.find(&key("men")), keys.get(men), keys.find(&key("women"))), (None, None, Some(women)));
        assert_eq!(keys.intern(&key("children"), Source::Behavior), men);
        assert_eq!(keys.source(men), Some(Source::Behavior));
    }

    /// What the budget of memory is compared with.
    #[test]
    fn a_key_takes_its_place_and_its_values_in_words() {
        let size_of_keys = |values: &[&str]| {
            let mut keys = Keys::default();
            for value in values {
                keys.intern(&key(value), Source::Campaign);
            }
            keys.heap_size()
        };
        let place = size_of::<Option<CompactKey>>() + 8;
        let pair = 32;
        assert_eq!(size_of_keys(&[]), 0);
        assert_eq!(size_of_keys(&["12345678"]), place + pair + 8);
        assert_eq!(size_of_keys(&["123456789"]), place + pair + 16);
        assert_eq!(size_of_keys(&["1", "2"]), 2 * (place + pair + 8));
        let mut keys = Keys::default();
        let id = keys.intern(&key("men"), Source::Campaign);
        keys.hold(id);
        keys.let_go(id);
        assert_eq!(keys.heap_size(), 0, "and gives it back");
    }
}
