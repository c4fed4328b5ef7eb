//! A small file beside the database: how many commits are durable. It is written after each fsync and not synced itself, so
//! after a power failure it may say less than there is, but never more.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

const FILE_NAME: &str = "durable";

pub struct Witness(File);

impl Witness {
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        File::options().create(true).truncate(false).write(true).open(folder.join(FILE_NAME)).map(Self)
    }

    pub fn tell(&self, commits: u64) -> std::io::Result<()> {
        self.0.write_all_at(&encode(commits), 0)
    }
}

/// `None`: there is none, or it is damaged itself; then nothing is known.
pub fn read(folder: &Path) -> std::io::Result<Option<u64>> {
    let bytes = match std::fs::read(folder.join(FILE_NAME)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let commits = decode(&bytes);
    if commits.is_none() && !bytes.is_empty() {
        tracing::warn!(folder = %folder.display(), file = FILE_NAME, "not readable: lost commits cannot be noticed");
    }
    Ok(commits)
}

/// `None`: it is not as it was written.
pub fn decode(bytes: &[u8]) -> Option<u64> {
    let commits = u64::from_be_bytes(*bytes.first_chunk()?);
    (bytes == encode(commits)).then_some(commits)
}

pub fn encode(commits: u64) -> [u8; 16] {
    let number = commits.to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&xxh3_64(&number).to_be_bytes());
    bytes
}
