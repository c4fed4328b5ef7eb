//! The engine's life: one data directory, locked; one connection kept from start to end; one more per statement or session.
//!
//! A fresh connection costs 0.2 ms and leaves nothing behind, so settings, databases and temporary tables cannot leak from
//! one statement into another.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::OlapError;
use super::exception::Exception;
use super::library::{Connection, Library};
use super::parameters::quoted;
use super::reader::denied_functions;
use super::writes;

/// What the library sets otherwise than a ClickHouse server does; and an INSERT into a nearly full disk is refused, so that a
/// write seldom fails: see `writes`.
const SETTINGS: [&str; 4] = [
    "--async_insert=0",
    "--implicit_select=0",
    "--allow_introspection_functions=0",
    "--min_free_disk_bytes_to_perform_insert=67108864",
];
const LOCK_FILE: &str = "neonhub-olap.lock";
const LOCK_RETRY: Duration = Duration::from_millis(20);

pub struct Engine {
    library: Arc<Library>,
    arguments: Vec<CString>,
    /// The engine shuts down with its last connection; this one outlives all others.
    keeper: Mutex<Option<Connection>>,
    version: String,
    timezone: String,
    denied_to_readers: HashSet<String>,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

impl Engine {
    /// Blocks until the engine is up. A data directory that a dying process still holds is waited for.
    pub fn boot(library: &Path, data_dir: &Path, lock_deadline: Duration) -> Result<Self, OlapError> {
        let unusable = |source| OlapError::DataDirectory { path: data_dir.to_owned(), source };
        std::fs::create_dir_all(data_dir).map_err(unusable)?;
        let lock = take_lock(data_dir, lock_deadline)?;
        let loaded = Library::load(library)
            .map_err(|source| OlapError::Library { path: library.to_owned(), source: Box::new(source) })?;
        let not_booted = |reason: &str| OlapError::Boot { data_dir: data_dir.to_owned(), reason: reason.to_owned() };
        let path = data_dir.to_str().ok_or_else(|| not_booted("its path is not UTF-8"))?;
        let arguments = ["neonhub-olap".to_owned(), format!("--path={path}")]
            .into_iter()
            .chain(SETTINGS.map(str::to_owned))
            .map(CString::new)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| not_booted("its path holds a zero byte"))?;
        if !writes::watch() {
            return Err(not_booted("its writes cannot be watched: the program was linked without exporting `write`"));
        }
        let mut keeper = loaded.connect(&arguments).ok_or_else(|| {
            not_booted("the engine refused the data directory; its own message is above, if it gave one")
        })?;
        if let Err(error) = tell_of_parts_put_aside(&mut keeper) {
            tracing::warn!(%error, "it is not known whether damaged parts were put aside");
        }
        let about = keeper
            .query(b"SELECT version(), timezone()", "TabSeparatedRaw", &[])
            .map_err(|error| not_booted(&error))?;
        let about = String::from_utf8_lossy(about.as_ref()).trim_end().to_owned();
        let (version, timezone) =
            about.split_once('\t').ok_or_else(|| not_booted("the engine didn't say its version"))?;
        let (version, timezone) = (version.to_owned(), timezone.to_owned());
        let functions = keeper
            .query(b"SELECT name FROM system.table_functions", "TabSeparatedRaw", &[])
            .map_err(|error| not_booted(&error))?;
        let denied_to_readers = denied_functions(&String::from_utf8_lossy(functions.as_ref()));
        let keeper = Mutex::new(Some(keeper));
        Ok(Self { library: loaded, arguments, keeper, version, timezone, denied_to_readers, _lock: lock })
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn timezone(&self) -> &str {
        &self.timezone
    }

    /// Functions that reach beyond the tables, in lower case.
    pub fn denied_to_readers(&self) -> &HashSet<String> {
        &self.denied_to_readers
    }

    /// A connection with nothing set.
    pub fn connect(&self) -> Result<Connection, Exception> {
        let running = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let connection = if running { self.library.connect(&self.arguments) } else { None };
        connection.ok_or_else(|| Exception::new(236, "ABORTED", "The engine is shutting down"))
    }

    /// Stops the statements whose text holds `marker`: only reads carry one.
    pub fn kill(&self, marker: &str) {
        // The marker is put together by the engine, so that this statement's own text doesn't hold it.
        let (front, back) = marker.split_at(marker.len() / 2);
        let condition = format!("position(query, {} || {}) > 0", quoted(front), quoted(back));
        let sql = format!("KILL QUERY WHERE {condition} AND query_id != queryID() ASYNC");
        let killed = self.connect().and_then(|mut connection| {
            connection.query(sql.as_bytes(), "Null", &[]).map(drop).map_err(|text| Exception::from_engine(&text))
        });
        if let Err(error) = killed {
            tracing::debug!(%error, "a statement could not be stopped");
        }
    }

    /// Closes the last connection: no other may be open by now.
    pub fn close(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(keeper);
    }
}

/// The engine puts a damaged part aside and starts without its rows, which nothing else would tell.
fn tell_of_parts_put_aside(keeper: &mut Connection) -> Result<(), String> {
    let sql = b"SELECT database, table, name, path FROM system.detached_parts WHERE reason = 'broken-on-start'";
    let parts = keeper.query(sql, "TabSeparated", &[])?;
    for part in String::from_utf8_lossy(parts.as_ref()).lines() {
        tracing::error!(part, "the OLAP engine has put a damaged part aside: its rows are missing");
    }
    Ok(())
}

fn take_lock(data_dir: &Path, deadline: Duration) -> Result<File, OlapError> {
    let path = data_dir.join(LOCK_FILE);
    let unusable = |source| OlapError::DataDirectory { path: path.clone(), source };
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(unusable)?;
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
            Err(TryLockError::WouldBlock) if started.elapsed() >= deadline => {
                return Err(OlapError::Locked { data_dir: data_dir.to_owned(), waited: deadline });
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_for_one_and_free_again_when_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let held = take_lock(directory.path(), Duration::ZERO).unwrap();
        let refused = take_lock(directory.path(), Duration::ZERO).unwrap_err();
        assert!(matches!(refused, OlapError::Locked { .. }), "{refused}");
        drop(held);
        take_lock(directory.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn a_missing_library_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let booted = Engine::boot(Path::new("/nowhere/libchdb.so"), directory.path(), Duration::ZERO);
        let message = booted.err().unwrap().to_string();
        assert!(message.contains("/nowhere/libchdb.so"), "{message}");
    }
}
