//! A temporary folder and loopback ports for one server, safe against other test processes on the same machine.
//!
//! What is in use is held by a file lock, which the operating system releases however the test process ends. So a folder
//! that a killed process left behind is known by its free lock, and the next start removes it.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Removed on drop, and at the next start if there was no drop.
pub struct ScratchFolder {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl ScratchFolder {
    pub fn create(server_name: &str) -> Result<Self, String> {
        let base = base_folder()?;
        // Sweeping and creating exclude each other, so nobody sweeps a folder between its creation and its lock.
        let _housekeeping = lock_waiting(&base.join("housekeeping.lock"))?;
        sweep(&base)?;
        let process = std::process::id();
        for number in 0.. {
            let path = base.join(format!("{server_name}-{process}-{number}"));
            let lock_path = path.with_extension("lock");
            if let Some(lock) = lock_if_free(&lock_path)? {
                fs::create_dir_all(path.join("tmp")).map_err(|error| failed("create", &path, &error))?;
                return Ok(Self { path, lock_path, _lock: lock });
            }
        }
        unreachable!("the numbers do not end")
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start, because the lock becomes free.
        if fs::remove_dir_all(&self.path).is_ok() {
            let _ = fs::remove_file(&self.lock_path);
        }
    }
}

/// A loopback port that no other test process takes, also while nothing listens on it.
pub struct ReservedPort {
    number: u16,
    _lock: File,
}

impl ReservedPort {
    /// Below the range that the kernel gives to outgoing connections (32768 and up): a client that keeps trying a port of
    /// that range while its server is down sooner or later gets it as its own source port, connects to itself, and the
    /// server cannot come back.
    pub fn reserve() -> Result<Self, String> {
        let base = base_folder()?;
        for number in 21_000..31_000 {
            if let Some(lock) = lock_if_free(&base.join(format!("port-{number}.reserved")))?
                && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
            {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err("no loopback port between 21000 and 31000 is free".to_owned())
    }

    pub fn number(&self) -> u16 {
        self.number
    }
}

/// One per user, so that users of one machine do not meet each other's permissions.
fn base_folder() -> Result<PathBuf, String> {
    let user = fs::metadata("/proc/self").map_err(|error| failed("read", Path::new("/proc/self"), &error))?.uid();
    let base = std::env::temp_dir().join(format!("neonhub-real-stack-{user}"));
    fs::create_dir_all(&base).map_err(|error| failed("create", &base, &error))?;
    Ok(base)
}

/// Removes the folders whose test process is gone.
fn sweep(base: &Path) -> Result<(), String> {
    let entries = fs::read_dir(base).map_err(|error| failed("list", base, &error))?;
    for lock_path in entries.flatten().map(|entry| entry.path()) {
        let folder = lock_path.with_extension("");
        let is_folder_lock = lock_path.extension().is_some_and(|extension| extension == "lock") && folder.is_dir();
        if !is_folder_lock {
            continue;
        }
        // A server that is still dying may write once more; then the next start tries again.
        if lock_if_free(&lock_path)?.is_some() && fs::remove_dir_all(&folder).is_ok() {
            let _ = fs::remove_file(&lock_path);
        }
    }
    Ok(())
}

fn lock_waiting(path: &Path) -> Result<File, String> {
    let file = open_lock_file(path)?;
    file.lock().map_err(|error| failed("lock", path, &error))?;
    Ok(file)
}

fn lock_if_free(path: &Path) -> Result<Option<File>, String> {
    let file = open_lock_file(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed("lock", path, &error)),
    }
}

fn open_lock_file(path: &Path) -> Result<File, String> {
    File::options().create(true).truncate(false).write(true).open(path).map_err(|error| failed("open", path, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[test]
fn a_folder_left_by_a_process_that_is_gone_is_swept_and_one_in_use_is_not() {
    let base = base_folder().unwrap();
    let left_behind = base.join("gone-0-0");
    fs::create_dir_all(left_behind.join("data")).unwrap();
    fs::write(left_behind.with_extension("lock"), "").unwrap();

    let in_use = ScratchFolder::create("in-use").unwrap();
    let other = ScratchFolder::create("in-use").unwrap();

    assert!(!left_behind.exists());
    assert!(in_use.path().is_dir());
    assert_ne!(in_use.path(), other.path());
    let path = in_use.path().to_owned();
    drop(in_use);
    assert!(!path.exists());
}

#[test]
fn a_reserved_port_is_given_once() {
    let first = ReservedPort::reserve().unwrap();
    let second = ReservedPort::reserve().unwrap();
    assert_ne!(first.number(), second.number());
}
