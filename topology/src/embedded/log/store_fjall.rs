//! The store on disk: one fjall database, a key space for each partition and one for everything else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use parking_lot::RwLock;

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
}

impl FjallStore {
    /// Opens the folder, or creates it. Recovery drops the incomplete end of the journal, if there is one.
    pub fn open(folder: &Path, options: &LogOptions) -> Result<Self, StoreError> {
        let open = || {
            Database::builder(folder)
                .cache_size(options.block_cache_bytes)
                .max_journaling_size(JOURNAL_BYTES)
                .manual_journal_persist(true)
                .worker_threads(2)
                .open()
        };
        let (database, dropped_torn_commit) = torn_journal::open(folder, open).map_err(write_failed)?;
        let meta = database
            .keyspace("meta", || KeyspaceCreateOptions::default().max_memtable_size(META_MEMTABLE_BYTES))
            .map_err(write_failed)?;
        let disk_reserve_bytes = options.disk_reserve_bytes;
        let folder = folder.to_path_buf();
        Ok(Self { database, meta, records: RwLock::default(), folder, disk_reserve_bytes, dropped_torn_commit })
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
        writes.commit().map_err(write_failed)
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        Ok(keyspace.get(key).map_err(read_failed)?.map(Bytes::from))
    }

    fn scan(&self, space: Space, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        if from >= until {
            return Ok(());
        }
        let Some(keyspace) = self.existing(space)? else { return Ok(()) };
        for entry in keyspace.range(from..until) {
            let (key, value) = entry.into_inner().map_err(read_failed)?;
            if visit(&key, value.into()).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn first_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        keyspace.first_key_value().map(|entry| entry.key().map(Bytes::from).map_err(read_failed)).transpose()
    }

    fn last_key(&self, space: Space) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(space)? else { return Ok(None) };
        keyspace.last_key_value().map(|entry| entry.key().map(Bytes::from).map_err(read_failed)).transpose()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn write_failed(error: fjall::Error) -> StoreError {
    StoreError::WriteFailed(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn read_failed(error: fjall::Error) -> StoreError {
    StoreError::ReadFailed(error.to_string())
}
