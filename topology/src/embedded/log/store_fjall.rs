//! The store on disk: one fjall database, a key space for each partition and one for everything else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::RwLock;

use super::integrity::journal::COMMITS_KEY;
use super::integrity::witness::{self, Witness};
use super::integrity::{self, Damage};
use super::options::LogOptions;
use super::store::{Batch, Durability, Operation, Space, Store, StoreError, Visitor};
use super::torn_journal;

/// Bounds the journal and with it, because a journal is kept until its memtables are flushed, the memtables.
const JOURNAL_BYTES: u64 = 256 << 20;
const RECORDS_MEMTABLE_BYTES: u64 = 16 << 20;
const META_MEMTABLE_BYTES: u64 = 8 << 20;

pub struct FjallStore {
    database: Database,
    meta: Keyspace,
    /// Opened at the first use: most partitions of a small installation stay empty.
    records: RwLock<HashMap<Space, Keyspace>>,
    folder: PathBuf,
    disk_reserve_bytes: u64,
    dropped_torn_commit: bool,
    /// Synced writes so far, over the folder's whole life.
    commits: AtomicU64,
    witness: Witness,
}

impl FjallStore {
    /// Opens the folder, or creates it. Recovery drops the incomplete end of the journal, if there is one and nothing in it
    /// was durable.
    pub fn open(folder: &Path, options: &LogOptions) -> Result<Self, StoreError> {
        let io_failed = |error: std::io::Error| open_failed(folder, &error);
        std::fs::create_dir_all(folder).map_err(io_failed)?;
        let durable_commits = witness::read(folder).map_err(io_failed)?;
        let journals = integrity::check(folder, durable_commits).map_err(io_failed)?.map_err(damaged)?;
        let open = || {
            Database::builder(folder)
                .cache_size(options.block_cache_bytes)
                .max_journaling_size(JOURNAL_BYTES)
                .manual_journal_persist(true)
                .worker_threads(2)
                .open()
        };
        let opened = torn_journal::open(folder, open).and_then(|(database, dropped_torn_commit)| {
            let meta = KeyspaceCreateOptions::default().max_memtable_size(META_MEMTABLE_BYTES);
            Ok((database.keyspace("meta", || meta)?, database, dropped_torn_commit))
        });
        let (meta, database, dropped_torn_commit) = opened.map_err(|error| unreadable(folder, &error))?;
        let commits = stored_commits(&meta)?;
        if let Some(damage) = journals.damage_when_opened(durable_commits, commits) {
            return Err(damaged(damage));
        }
        Ok(Self {
            database,
            meta,
            records: RwLock::default(),
            folder: folder.to_path_buf(),
            disk_reserve_bytes: options.disk_reserve_bytes,
            dropped_torn_commit,
            commits: AtomicU64::new(commits),
            witness: Witness::open(folder).map_err(io_failed)?,
        })
    }

    /// Whether opening found, and dropped, a last commit torn by a power failure: worth a line in the caller's log.
    #[must_use]
    pub fn dropped_torn_commit(&self) -> bool {
        self.dropped_torn_commit
    }

    /// The partition's key space, if it was ever written to.
    fn existing(&self, space: Space) -> Result<Option<Keyspace>, StoreError> {
        let Space::Records(topic_partition) = space else { return Ok(Some(self.meta.clone())) };
        if let Some(keyspace) = self.records.read().get(&space) {
            return Ok(Some(keyspace.clone()));
        }
        if !self.database.keyspace_exists(&topic_partition.to_string().replace('/', ".")) {
            return Ok(None);
        }
        self.opened(space).map(Some)
    }

    fn opened(&self, space: Space) -> Result<Keyspace, StoreError> {
        let Space::Records(topic_partition) = space else { return Ok(self.meta.clone()) };
        if let Some(keyspace) = self.records.read().get(&space) {
            return Ok(keyspace.clone());
        }
        let name = topic_partition.to_string().replace('/', ".");
        let keyspace = self.database.keyspace(&name, records_options).map_err(write_failed)?;
        self.records.write().insert(space, keyspace.clone());
        Ok(keyspace)
    }

    /// A write that fails halfway makes the database refuse all further writes, so it is better not begun.
    fn ensure_room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let Ok(filesystem) = rustix::fs::statvfs(&self.folder) else { return Ok(()) };
        let free_bytes = filesystem.f_bavail.saturating_mul(filesystem.f_frsize);
        if free_bytes < self.disk_reserve_bytes.saturating_add(bytes.saturating_mul(2)) {
            return Err(StoreError::Full { free_bytes });
        }
        Ok(())
    }
}

/// Records are written in the order of their keys, read in ranges, and never looked up one by one: large blocks, no
/// bloom filters. The youngest levels are not compressed, because they are soon merged or moved down.
fn records_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(RECORDS_MEMTABLE_BYTES)
        .data_block_size_policy(BlockSizePolicy::all(16 << 10))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
        .filter_policy(FilterPolicy::disabled())
}

impl Store for FjallStore {
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if durability == Durability::Synced {
            self.ensure_room_for(batch.bytes)?;
        }
        let persist = match durability {
            Durability::Synced => PersistMode::SyncAll,
            Durability::Buffered => PersistMode::Buffer,
        };
        // fjall syncs the journal before it applies the batch to the memtables: nobody reads what is not durable.
        let mut writes = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.operations.len())
            .durability(Some(persist));
        let commits = self.commits.load(Ordering::Relaxed) + 1;
        if durability == Durability::Synced {
            writes.insert(&self.meta, COMMITS_KEY, commits.to_be_bytes());
        }
        let mut current = (Space::Meta, self.meta.clone());
        for operation in batch.operations {
            let (Operation::Put { space, .. } | Operation::Delete { space, .. }) = &operation;
            if current.0 != *space {
                current = (*space, self.opened(*space)?);
            }
            match operation {
                Operation::Put { key, value, .. } => writes.insert(&current.1, key, value),
                Operation::Delete { key, .. } => writes.remove(&current.1, key),
            }
        }
        writes.commit().map_err(write_failed)?;
        if durability == Durability::Synced {
            self.commits.store(commits, Ordering::Relaxed);
            // Without it lost commits may not be noticed; that is no reason to refuse this one.
            if let Err(error) = self.witness.tell(commits) {
                tracing::warn!(%error, "the log's witness of durable commits cannot be written");
            }
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        Ok(keyspace.get(key).map_err(read_failed(&keyspace))?.map(Bytes::from))
    }

    fn scan(&self, space: Space, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let Some(keyspace) = self.existing(space)? else { return Ok(()) };
        for entry in keyspace.range(from..until) {
            let (key, value) = entry.into_inner().map_err(read_failed(&keyspace))?;
            if visit(&key, value.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn first_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        keyspace.first_key_value().map(|entry| entry.key().map(Bytes::from).map_err(read_failed(&keyspace))).transpose()
    }

    fn last_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        keyspace.last_key_value().map(|entry| entry.key().map(Bytes::from).map_err(read_failed(&keyspace))).transpose()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn write_failed(error: fjall::Error) -> StoreError {
    StoreError::WriteFailed(error.to_string())
}

fn read_failed(keyspace: &Keyspace) -> impl Fn(fjall::Error) -> StoreError {
    |error| StoreError::ReadFailed(format!("{}: {error}", keyspace.path().display()))
}

fn stored_commits(meta: &Keyspace) -> Result<u64, StoreError> {
    let stored = meta.get(COMMITS_KEY).map_err(read_failed(meta))?;
    Ok(stored.and_then(|value| <[u8; 8]>::try_from(&value[..]).ok()).map_or(0, u64::from_be_bytes))
}

fn damaged(damage: Damage) -> StoreError {
    let Damage { file, offset, detail } = damage;
    StoreError::Damaged { file, offset, detail }
}

fn open_failed(folder: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::OpenFailed { folder: folder.to_path_buf(), detail: error.to_string() }
}

/// fjall does not say in which file: if it is a table, that is found out.
fn unreadable(folder: &Path, error: &fjall::Error) -> StoreError {
    if let fjall::Error::InvalidVersion(_) = error {
        return StoreError::Damaged { file: "version".into(), offset: 0, detail: error.to_string() };
    }
    match integrity::damaged_table(folder) {
        Ok(Some(file)) => StoreError::Damaged { file, offset: 0, detail: error.to_string() },
        _ => open_failed(folder, error),
    }
}
