//! Local stores of workers' state on fjall: one database a stage, a key space a partition. What is in them is a copy: a
//! folder that cannot be opened is emptied and filled again from the log.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions};
use neonhub_processors::engine::{Change, EngineError, StateStore, StateStores};
use neonhub_schemas::record::TopicPartition;
use parking_lot::Mutex;

/// fjall lets writers wait when four full ones have not been flushed.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// A memtable is put aside by one of these, so one that compacts must not be the only one: the memtable would grow meanwhile.
const THREADS: usize = 2;
const JOURNAL_BYTES: u64 = 64 << 20;

/// The stores of a process; clones share them.
#[derive(Clone)]
pub struct FjallStates {
    folder: PathBuf,
    cache_bytes: u64,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    databases: HashMap<&'static str, Database>,
    /// Who opened each store last.
    owners: HashMap<(&'static str, TopicPartition), Arc<AtomicU64>>,
}

impl FjallStates {
    /// Nothing is opened before it is needed. `cache_bytes` is for the blocks of each stage's database.
    #[must_use]
    pub fn new(folder: PathBuf, cache_bytes: u64) -> Self {
        Self { folder, cache_bytes, open: Arc::default() }
    }

    fn database(&self, open: &mut Open, stage: &'static str) -> Result<Database, EngineError> {
        if let Some(database) = open.databases.get(stage) {
            return Ok(database.clone());
        }
        let folder = self.folder.join(stage);
        let database = match self.open_database(&folder) {
            Ok(database) => database,
            Err(fjall::Error::Locked) => {
                return Err(EngineError::Unavailable(format!("{} is in use by another process", folder.display())));
            }
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "a local state cannot be opened; it is made anew");
                std::fs::remove_dir_all(&folder).map_err(|error| failed(&error))?;
                self.open_database(&folder).map_err(|error| failed(&error))?
            }
        };
        open.databases.insert(stage, database.clone());
        Ok(database)
    }

    fn open_database(&self, folder: &Path) -> Result<Database, fjall::Error> {
        std::fs::create_dir_all(folder)?;
        Database::builder(folder)
            .cache_size(self.cache_bytes)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(THREADS)
            .open()
    }
}

impl StateStores for FjallStates {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        let mut open = self.open.lock();
        let database = self.database(&mut open, stage)?;
        let name = partition.to_string().replace('/', ".");
        let keyspace = database.keyspace(&name, options).map_err(|error| failed(&error))?;
        let owner = Arc::clone(open.owners.entry((stage, partition)).or_default());
        let opened = owner.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Box::new(FjallState { states: self.clone(), stage, database, keyspace, owner, opened, partition }))
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_size_policy(BlockSizePolicy::all(8 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn failed(error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Unavailable(format!("the local state failed: {error}"))
}

struct FjallState {
    states: FjallStates,
    stage: &'static str,
    database: Database,
    keyspace: Keyspace,
    owner: Arc<AtomicU64>,
    /// Which of the openings this is.
    opened: u64,
    partition: TopicPartition,
}

impl FjallState {
    fn ensure_owned(&self) -> Result<(), EngineError> {
        if self.owner.load(Ordering::Acquire) == self.opened {
            return Ok(());
        }
        Err(EngineError::Fenced(format!("another has opened the local state of {}", self.partition)))
    }

    /// A database takes no more writes after one that failed: the next worker opens it again.
    fn write_failed(&self, error: &fjall::Error) -> EngineError {
        self.states.open.lock().databases.remove(self.stage);
        failed(error)
    }
}

impl StateStore for FjallState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self.keyspace.get(key).map_err(|error| failed(&error))?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        for entry in self.keyspace.range(from..to) {
            let (key, value) = entry.into_inner().map_err(|error| failed(&error))?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.ensure_owned()?;
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), changes.len());
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.keyspace, key, value),
                None => batch.remove(&self.keyspace, key),
            }
        }
        batch.commit().map_err(|error| self.write_failed(&error))
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.ensure_owned()?;
        self.keyspace.clear().map_err(|error| self.write_failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use neonhub_schemas::topics::Topic;

    use super::*;

    const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 3 };

    fn keys(store: &dyn StateStore, from: u8, to: u8) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        store
            .scan(&[from], &[to], &mut |key, _| {
                found.push(key.to_vec());
                true
            })
            .unwrap();
        found
    }

    #[test]
    fn what_was_written_is_there_after_a_restart_and_only_the_last_owner_writes() {
        let folder = tempfile::tempdir().unwrap();
        {
            let mut states = FjallStates::new(folder.path().to_path_buf(), 1 << 20);
            let first = states.open("stage", PLACE).unwrap();
            first.write(vec![(vec![1], Some(vec![7])), (vec![3], Some(vec![])), (vec![2], Some(vec![8]))]).unwrap();
            let second = states.open("stage", PLACE).unwrap();
            assert!(matches!(first.write(vec![(vec![1], None)]), Err(EngineError::Fenced(_))));
            assert!(matches!(first.clear(), Err(EngineError::Fenced(_))));
            second.write(vec![(vec![3], None)]).unwrap();
        }
        let mut states = FjallStates::new(folder.path().to_path_buf(), 1 << 20);
        let again = states.open("stage", PLACE).unwrap();
        assert_eq!((again.get(&[1]).unwrap(), again.get(&[3]).unwrap()), (Some(vec![7]), None));
        assert_eq!(keys(&*again, 0, 9), [[1], [2]]);
        assert_eq!(keys(&*again, 2, 2), Vec::<Vec<u8>>::new());
        again.clear().unwrap();
        assert_eq!(keys(&*again, 0, 9), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_folder_that_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("stage")).unwrap();
        std::fs::write(folder.path().join("stage/version"), b"no such").unwrap();
        let mut states = FjallStates::new(folder.path().to_path_buf(), 1 << 20);
        let store = states.open("stage", PLACE).unwrap();
        store.write(vec![(vec![1], Some(vec![7]))]).unwrap();
        assert_eq!(store.get(&[1]).unwrap(), Some(vec![7]));
    }
}
