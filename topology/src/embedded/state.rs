//! Local stores of workers' state: a log-structured merge tree for each stage and partition (lsm-tree, which fjall is built
//! on). What is in them is a copy, so they have no journal: a batch is durable, as a whole, when the memtable it is in has
//! been flushed, and what a kill takes away is read from the log again. A tree that cannot be opened is emptied and filled
//! anew.
//!
//! Not a fjall database: while one of its workers compacts, another hands waiting compactions back to the queue in a busy
//! loop (fjall 3.1.13, `worker_tick`), which took a third of the time of two cores; and its journal writes twice what the
//! log has already.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lsm_tree::compaction::Leveled;
use lsm_tree::config::{BlockSizePolicy, CompressionPolicy, PartitioningPolicy};
use lsm_tree::{
    AbstractTree as _, AnyTree, Cache, CompressionType, Config, DescriptorTable, Guard as _, SeqNo,
    SequenceNumberCounter,
};
use neonhub_processors::engine::{Change, EngineError, StateStore, StateStores};
use neonhub_schemas::record::TopicPartition;
use parking_lot::Mutex;

/// By what keys and values take; the memtable itself takes about twice as much.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// And what is in one for so long is flushed, so that a kill does not take more than that away.
const FLUSH_INTERVAL: Duration = Duration::from_secs(60);
/// Level 1 has four of them, and each further level ten times as many. Each merge of level 0 rewrites level 1, so with
/// tables much larger than a memtable nearly all work would be that.
const TABLE_BYTES: u64 = 8 << 20;
/// With so many runs in level 0 their writer helps to merge them, and with twice as many it waits.
const MANY_RUNS: usize = 8;
/// Steps of compaction after a flush at most; one is enough in the mean.
const STEPS: usize = 4;
const OPEN_FILES: usize = 256;

/// The stores of a process; clones share them.
#[derive(Clone)]
pub struct TreeStates {
    folder: PathBuf,
    cache_bytes: u64,
    stages: Arc<Mutex<HashMap<&'static str, Stage>>>,
    compactor: Arc<Compactor>,
}

struct Stage {
    /// Held while the process may write to the folder.
    _lock: File,
    cache: Arc<Cache>,
    files: Arc<DescriptorTable>,
    trees: HashMap<TopicPartition, Arc<StateTree>>,
}

impl TreeStates {
    /// Nothing is opened before it is needed. `cache_bytes` is for the blocks of each stage's trees.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn new(folder: PathBuf, cache_bytes: u64) -> std::io::Result<Self> {
        Ok(Self { folder, cache_bytes, stages: Arc::default(), compactor: Arc::new(Compactor::start()?) })
    }

    fn tree(&self, stage_name: &'static str, partition: TopicPartition) -> Result<Arc<StateTree>, EngineError> {
        let mut stages = self.stages.lock();
        let folder = self.folder.join(stage_name);
        if !stages.contains_key(stage_name) {
            let stage = Stage {
                _lock: lock(&folder)?,
                cache: Arc::new(Cache::with_capacity_bytes(self.cache_bytes)),
                files: Arc::new(DescriptorTable::new(OPEN_FILES)),
                trees: HashMap::new(),
            };
            stages.insert(stage_name, stage);
        }
        let Some(stage) = stages.get_mut(stage_name) else { return Err(failed(&"it is gone")) };
        if let Some(tree) = stage.trees.get(&partition) {
            return Ok(Arc::clone(tree));
        }
        let folder = folder.join(partition.to_string().replace('/', "."));
        let opened = StateTree::open(&folder, stage).or_else(|error| {
            tracing::warn!(folder = %folder.display(), %error, "a local state cannot be opened; it is made anew");
            std::fs::remove_dir_all(&folder).map_err(|error| failed(&error))?;
            StateTree::open(&folder, stage).map_err(|error| failed(&error))
        });
        let tree = Arc::new(opened?);
        stage.trees.insert(partition, Arc::clone(&tree));
        Ok(tree)
    }
}

fn lock(folder: &Path) -> Result<File, EngineError> {
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    let file = File::create(folder.join("lock")).map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(EngineError::Unavailable(format!("{} is in use by another process", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn failed(error: &dyn std::fmt::Display) -> EngineError {
    EngineError::Unavailable(format!("the local state failed: {error}"))
}

impl StateStores for TreeStates {
    fn open(&mut self, stage: &'static str, partition: TopicPartition) -> Result<Box<dyn StateStore>, EngineError> {
        let tree = self.tree(stage, partition)?;
        let opened = tree.openings.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Box::new(TreeState { tree, opened, partition, compactor: Arc::clone(&self.compactor) }))
    }
}

/// One writes, and reads; another thread may compact meanwhile.
struct StateTree {
    tree: AnyTree,
    /// Of batches.
    next_number: SequenceNumberCounter,
    visible_below: SequenceNumberCounter,
    flushed_at: Mutex<Instant>,
    /// How often it was opened: the last who did may write.
    openings: AtomicU64,
    waits_for_compactor: AtomicBool,
}

impl StateTree {
    fn open(folder: &Path, stage: &Stage) -> lsm_tree::Result<Self> {
        let (next_number, visible_below) = (SequenceNumberCounter::default(), SequenceNumberCounter::default());
        let tree = Config::new(folder, next_number.clone(), visible_below.clone())
            .use_cache(Arc::clone(&stage.cache))
            .use_descriptor_table(Some(Arc::clone(&stage.files)))
            .data_block_size_policy(BlockSizePolicy::all(8 << 10))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            // In pieces: a table's whole filter or index would be read and checked anew for each lookup as soon as all of
            // them together are larger than the cache.
            .index_block_partitioning_policy(PartitioningPolicy::all(true))
            .filter_block_partitioning_policy(PartitioningPolicy::all(true))
            .open()?;
        let next = tree.get_highest_seqno().map_or(0, |highest| highest + 1);
        next_number.fetch_max(next);
        visible_below.fetch_max(next);
        Ok(Self {
            tree,
            next_number,
            visible_below,
            flushed_at: Mutex::new(Instant::now()),
            openings: AtomicU64::new(0),
            waits_for_compactor: AtomicBool::new(false),
        })
    }

    fn is_flush_due(&self) -> bool {
        let bytes = self.tree.active_memtable().size();
        let has_waited = || self.flushed_at.lock().elapsed() >= FLUSH_INTERVAL;
        self.tree.sealed_memtable_count() > 0 || bytes >= MEMTABLE_BYTES || bytes > 0 && has_waited()
    }

    /// What was written until now is durable.
    fn flush(&self) -> lsm_tree::Result<()> {
        let lock = self.tree.get_flush_lock();
        self.tree.rotate_memtable();
        self.tree.flush(&lock, self.visible_below.get())?;
        *self.flushed_at.lock() = Instant::now();
        Ok(())
    }

    /// One step, if there is one to do that nobody else does. Readers see the newest version only, so older ones go.
    fn compact(&self) -> lsm_tree::Result<()> {
        let strategy = Leveled::default().with_table_target_size(TABLE_BYTES);
        self.tree.compact(Arc::new(strategy), self.visible_below.get())
    }
}

/// The thread that compacts, and ends with the last of the states.
struct Compactor {
    trees: Option<mpsc::Sender<Arc<StateTree>>>,
    thread: Option<JoinHandle<()>>,
}

impl Compactor {
    fn start() -> std::io::Result<Self> {
        let (trees, waiting) = mpsc::channel::<Arc<StateTree>>();
        let compact_them = move || {
            for tree in waiting {
                tree.waits_for_compactor.store(false, Ordering::Release);
                if let Err(error) = (0..STEPS).try_for_each(|_| tree.compact()) {
                    tracing::warn!(%error, "a local state cannot be compacted; the next flush tries again");
                }
            }
        };
        let thread = std::thread::Builder::new().name("state-compact".to_owned()).spawn(compact_them)?;
        Ok(Self { trees: Some(trees), thread: Some(thread) })
    }

    fn ask(&self, tree: &Arc<StateTree>) {
        if !tree.waits_for_compactor.swap(true, Ordering::AcqRel)
            && let Some(trees) = &self.trees
        {
            let _ended = trees.send(Arc::clone(tree));
        }
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.trees = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

struct TreeState {
    tree: Arc<StateTree>,
    /// Which of the openings this is.
    opened: u64,
    partition: TopicPartition,
    compactor: Arc<Compactor>,
}

impl TreeState {
    fn is_owned(&self) -> bool {
        self.tree.openings.load(Ordering::Acquire) == self.opened
    }

    fn ensure_owned(&self) -> Result<(), EngineError> {
        if self.is_owned() {
            return Ok(());
        }
        Err(EngineError::Fenced(format!("another has opened the local state of {}", self.partition)))
    }

    /// Helps to compact when that falls behind.
    fn flush_tree(&self) -> lsm_tree::Result<()> {
        self.tree.flush()?;
        self.compactor.ask(&self.tree);
        while self.tree.tree.l0_run_count() >= MANY_RUNS {
            self.tree.compact()?;
            if self.tree.tree.l0_run_count() < 2 * MANY_RUNS {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl StateStore for TreeState {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        let value = self.tree.tree.get(key, SeqNo::MAX).map_err(|error| failed(&error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        for entry in self.tree.tree.range(from..to, SeqNo::MAX, None) {
            let (key, value) = entry.into_inner().map_err(|error| failed(&error))?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.ensure_owned()?;
        // Before, so that nothing is written when it fails, and no batch is in two memtables.
        if self.tree.is_flush_due() {
            self.flush_tree().map_err(|error| failed(&error))?;
        }
        let number = self.tree.next_number.next();
        for (key, value) in changes {
            match value {
                Some(value) => self.tree.tree.insert(key, value, number),
                None => self.tree.tree.remove(key, number),
            };
        }
        self.tree.visible_below.fetch_max(number + 1);
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.ensure_owned()?;
        self.flush_tree().map_err(|error| failed(&error))
    }

    fn clear(&self) -> Result<(), EngineError> {
        self.ensure_owned()?;
        self.tree.tree.clear().map_err(|error| failed(&error))
    }
}

impl Drop for TreeState {
    fn drop(&mut self) {
        if self.is_owned()
            && let Err(error) = self.tree.flush()
        {
            tracing::warn!(partition = %self.partition, %error, "a local state was not flushed: more is read at the start");
        }
    }
}

#[cfg(test)]
mod tests {
    use neonhub_schemas::topics::Topic;

    use super::*;

    const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 3 };

    fn states(folder: &Path) -> TreeStates {
        TreeStates::new(folder.to_path_buf(), 1 << 20).unwrap()
    }

    /// Where writers alone compact, so that between two writes nothing happens to the folder.
    fn states_without_compactor(folder: &Path) -> TreeStates {
        TreeStates { compactor: Arc::new(Compactor { trees: None, thread: None }), ..states(folder) }
    }

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
            let mut states = states(folder.path());
            let first = states.open("stage", PLACE).unwrap();
            first.write(vec![(vec![1], Some(vec![7])), (vec![3], Some(vec![])), (vec![2], Some(vec![8]))]).unwrap();
            let second = states.open("stage", PLACE).unwrap();
            assert!(matches!(first.write(vec![(vec![1], None)]), Err(EngineError::Fenced(_))));
            assert!(matches!(first.flush(), Err(EngineError::Fenced(_))));
            assert!(matches!(first.clear(), Err(EngineError::Fenced(_))));
            second.write(vec![(vec![3], None)]).unwrap();
        }
        {
            let again = states(folder.path()).open("stage", PLACE).unwrap();
            assert_eq!((again.get(&[1]).unwrap(), again.get(&[3]).unwrap()), (Some(vec![7]), None));
            assert_eq!(keys(&*again, 0, 9), [[1], [2]]);
            assert_eq!(keys(&*again, 2, 2), Vec::<Vec<u8>>::new());
            again.write(vec![(vec![1], Some(vec![9]))]).unwrap();
            assert_eq!(again.get(&[1]).unwrap(), Some(vec![9]), "newer than what was there before the restart");
            again.clear().unwrap();
            assert_eq!(keys(&*again, 0, 9), Vec::<Vec<u8>>::new());
        }
        let emptied = states(folder.path()).open("stage", PLACE).unwrap();
        assert_eq!(keys(&*emptied, 0, 9), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_was_flushed_outlives_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let store = states_without_compactor(folder.path()).open("stage", PLACE).unwrap();
        let after_kill = || {
            let killed = tempfile::tempdir().unwrap();
            copy(folder.path(), killed.path());
            keys(&*states(killed.path()).open("stage", PLACE).unwrap(), 0, 9)
        };
        store.write(vec![(vec![1], Some(vec![7]))]).unwrap();
        assert_eq!(after_kill(), Vec::<Vec<u8>>::new());
        store.flush().unwrap();
        store.write(vec![(vec![2], Some(vec![7]))]).unwrap();
        assert_eq!(after_kill(), [[1]]);
    }

    #[test]
    fn a_folder_has_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = states(folder.path());
        let _store = one.open("stage", PLACE).unwrap();
        let refused = states(folder.path()).open("stage", PLACE).err().unwrap();
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        one.open("other", PLACE).unwrap();
    }

    #[test]
    fn a_folder_that_is_damaged_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let open = || states(folder.path()).open("stage", PLACE).unwrap();
        open().write(vec![(vec![2], Some(vec![7]))]).unwrap();
        let tree = folder.path().join("stage").join(PLACE.to_string().replace('/', "."));
        std::fs::write(tree.join("current"), b"no such").unwrap();
        let store = open();
        store.write(vec![(vec![1], Some(vec![7]))]).unwrap();
        assert_eq!(keys(&*store, 0, 9), [[1]]);
    }

    /// As much as makes many flushes and compactions; what the folder has after each batch is some whole batches, the
    /// first ones.
    #[test]
    fn a_kill_takes_whole_batches_away_and_the_newest_ones_only() {
        const BATCHES: u32 = 60;
        let folder = tempfile::tempdir().unwrap();
        let key = |batch: u32, number: u32| [b"k".as_slice(), &((number * 37 + batch) % 4_096).to_be_bytes()].concat();
        let store = states_without_compactor(folder.path()).open("stage", PLACE).unwrap();
        let mut seen = 0;
        for batch in 1..=BATCHES {
            // Each key names the batch that wrote it last; and one key all of them do.
            let mut changes: Vec<Change> =
                (0..512).map(|number| (key(batch, number), Some(batch.to_be_bytes().repeat(256)))).collect();
            changes.push((b"m".to_vec(), Some(batch.to_be_bytes().to_vec())));
            store.write(changes).unwrap();
            if batch % 7 != 0 {
                continue;
            }
            let killed = tempfile::tempdir().unwrap();
            copy(folder.path(), killed.path());
            let found = states(killed.path()).open("stage", PLACE).unwrap();
            let newest = found.get(b"m").unwrap().map_or(0, |value| u32::from_be_bytes(value.try_into().unwrap()));
            assert!(newest >= seen && newest <= batch, "{newest} after {seen} and {batch}");
            seen = newest;
            let mut written = std::collections::BTreeMap::new();
            (1..=newest).for_each(|batch| written.extend((0..512).map(|number| (key(batch, number), batch))));
            let mut read = std::collections::BTreeMap::new();
            found
                .scan(b"k", b"l", &mut |key, value| {
                    read.insert(key.to_vec(), u32::from_be_bytes(value[..4].try_into().unwrap()));
                    true
                })
                .unwrap();
            assert!(read == written, "as of batch {newest}");
        }
        assert!(seen > 40, "it is flushed now and then: {seen}");
    }

    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.metadata().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
}
