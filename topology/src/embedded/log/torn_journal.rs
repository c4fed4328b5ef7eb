//! Opens a database whose last commit was torn by a power failure.
//!
//! fjall cuts an incomplete last batch off its journal, but refuses a last batch that is there from begin to end with a
//! hole in between, as a file system leaves it that writes pages out of order. The fsync of such a batch never returned,
//! so nobody was told that it is durable. Cutting off its last byte makes it an incomplete one. If the damage lies
//! elsewhere, that does not help, and the byte is put back.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fjall::{Database, Error, JournalRecoveryError};

/// Says, too, whether a torn commit was dropped.
pub fn open(folder: &Path, open: impl Fn() -> fjall::Result<Database>) -> fjall::Result<(Database, bool)> {
    let refused = match open() {
        Err(error @ Error::JournalRecovery(JournalRecoveryError::ChecksumMismatch)) => error,
        other => return other.map(|database| (database, false)),
    };
    let Some(journal) = active_journal(folder)? else { return Err(refused) };
    let Some(cut) = Cut::last_byte_of(&journal)? else { return Err(refused) };
    match open() {
        Ok(database) => Ok((database, true)),
        Err(_) => {
            cut.restore()?;
            Err(refused)
        }
    }
}

/// The one with the highest number.
fn active_journal(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jnl"));
        let Some(number) = name.and_then(|number| number.parse().ok()) else { continue };
        if newest.as_ref().is_none_or(|(newest, _)| number > *newest) {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

struct Cut {
    file: File,
    at: u64,
    byte: u8,
    length: u64,
}

impl Cut {
    /// The last byte before the zeros that were allocated in advance.
    fn last_byte_of(journal: &Path) -> std::io::Result<Option<Self>> {
        let mut file = OpenOptions::new().read(true).write(true).open(journal)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Some(at) = bytes.iter().rposition(|byte| *byte != 0) else { return Ok(None) };
        let (byte, at) = (bytes[at], at as u64);
        file.set_len(at)?;
        file.sync_all()?;
        Ok(Some(Self { file, at, byte, length }))
    }

    fn restore(mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.write_all(&[self.byte])?;
        self.file.sync_all()
    }
}
