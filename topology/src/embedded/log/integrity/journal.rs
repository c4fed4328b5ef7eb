//! Reads fjall's journals without changing them. Integers are little-endian.
//!
//! | entry | bytes |
//! |---|---|
//! | start of a batch | 1, number of items (4), sequence number (8) |
//! | item | 2, kind (1), compression (1), key space (8), length of key (2), of value (4), of value as stored (4), key, value |
//! | clear | 4, key space (8) |
//! | end of a batch | 3, checksum of its items (8: XXH3), `FJL` 3 |

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::Damage;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";

/// The item that every durable commit has: how many there were, this one included.
pub const COMMITS_KEY: &[u8] = b"commits";

/// What the journals have, oldest first.
#[derive(Debug, Default)]
pub struct Journals {
    /// Commits up to the first damage, if a journal has any.
    commits: Option<u64>,
    /// Of any journal but the last: those were synced before the next one began.
    sealed_damage: Option<Damage>,
    /// Where the last journal's whole batches end, and why.
    end: Option<Damage>,
}

impl Journals {
    /// Damage that takes something durable away. An incomplete end of the last journal may be a torn commit.
    pub fn damage_of_durable(&self, durable_commits: Option<u64>) -> Option<Damage> {
        let is_short = durable_commits.zip(self.commits).is_some_and(|(durable, commits)| commits < durable);
        self.sealed_damage
            .clone()
            .or_else(|| self.end.clone().filter(|_| is_short).map(|end| lost(end, durable_commits)))
    }

    /// The same, when it is known how many commits the opened database has.
    pub fn damage_when_opened(&self, durable_commits: Option<u64>, found: u64) -> Option<Damage> {
        let is_short = durable_commits.is_some_and(|durable| found < durable);
        self.end.clone().filter(|_| is_short).map(|end| lost(end, durable_commits))
    }
}

fn lost(end: Damage, durable_commits: Option<u64>) -> Damage {
    let durable = durable_commits.unwrap_or_default();
    Damage { detail: format!("{}; commits after it are lost, {durable} were durable", end.detail), ..end }
}

pub fn read_all(folder: &Path) -> std::io::Result<Journals> {
    let mut journals = Journals::default();
    let mut state = State::default();
    let files = files(folder)?;
    for (index, (_, path)) in files.iter().enumerate() {
        let bytes = std::fs::read(path)?;
        let end = read(&bytes, &mut state);
        journals.commits = state.commits;
        let file = path.file_name().map(PathBuf::from).unwrap_or_default();
        let is_last = index + 1 == files.len();
        match end {
            (offset, Ok(())) if is_last => {
                journals.end = Some(Damage { file, offset, detail: "it ends here".to_owned() });
            }
            (_, Ok(())) => {}
            (offset, Err(detail)) if is_last => {
                journals.end = Some(Damage { file, offset, detail: detail.to_owned() });
            }
            (offset, Err(detail)) => {
                journals.sealed_damage = Some(Damage { file, offset, detail: detail.to_owned() });
                break;
            }
        }
    }
    Ok(journals)
}

/// By their numbers.
fn files(folder: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jnl"));
        if let Some(number) = name.and_then(|number| number.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Goes on from one journal to the next.
#[derive(Default)]
struct State {
    commits: Option<u64>,
    sequence: Option<u64>,
}

/// Reads up to the end, or the first trouble: its offset, and what it is.
fn read(bytes: &[u8], state: &mut State) -> (u64, Result<(), &'static str>) {
    let mut reader = Reader { bytes, at: 0 };
    // The rest was allocated in advance.
    while bytes[reader.at..].iter().any(|byte| *byte != 0) {
        let begin = reader.at;
        let outcome = reader.batch().and_then(|batch| state.follow(&batch));
        if let Err(detail) = outcome {
            // The checksum says nothing about where in the batch it is.
            return (begin as u64, Err(detail));
        }
    }
    (reader.at as u64, Ok(()))
}

/// Where the whole batches of one journal end, and what comes there if that is not the end.
#[cfg(any(test, fuzzing))]
pub fn whole_batches(bytes: &[u8]) -> (u64, Result<(), &'static str>) {
    read(bytes, &mut State::default())
}

impl State {
    fn follow(&mut self, batch: &Batch) -> Result<(), &'static str> {
        if self.sequence.is_some_and(|sequence| batch.sequence <= sequence) {
            return Err("a sequence number that does not grow");
        }
        self.sequence = Some(batch.sequence);
        if let Some(commits) = batch.commits {
            if self.commits.is_some_and(|before| before.checked_add(1) != Some(commits)) {
                return Err("commits are missing before it");
            }
            self.commits = Some(commits);
        }
        Ok(())
    }
}

struct Batch {
    sequence: u64,
    commits: Option<u64>,
}

type KeyAndValue<'a> = (&'a [u8], &'a [u8]);

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn batch(&mut self) -> Result<Batch, &'static str> {
        if self.number::<1>()? != u64::from(START) {
            return Err("not the start of a batch");
        }
        let items = self.number::<4>()?;
        let mut batch = Batch { sequence: self.number::<8>()?, commits: None };
        let begin = self.at;
        for _ in 0..items {
            if let Some((COMMITS_KEY, value)) = self.item()? {
                batch.commits = value.try_into().ok().map(u64::from_be_bytes);
            }
        }
        let content = &self.bytes[begin..self.at];
        if self.number::<1>()? != u64::from(END) {
            return Err("not the end of a batch where it should be");
        }
        if self.number::<8>()? != xxh3_64(content) {
            return Err("checksum mismatch in a batch");
        }
        if self.take(TRAILER.len())? != TRAILER {
            return Err("a batch without its trailer");
        }
        Ok(batch)
    }

    /// Key and value as stored.
    fn item(&mut self) -> Result<Option<KeyAndValue<'a>>, &'static str> {
        match u8::try_from(self.number::<1>()?) {
            Ok(ITEM) => {
                // Kind, compression, key space.
                self.take(1 + 1 + 8)?;
                let key_length = self.number::<2>()?;
                self.take(4)?;
                let value_length = self.number::<4>()?;
                let key = self.take(usize::try_from(key_length).unwrap_or(usize::MAX))?;
                let value = self.take(usize::try_from(value_length).unwrap_or(usize::MAX))?;
                Ok(Some((key, value)))
            }
            Ok(CLEAR) => self.take(8).map(|_| None),
            _ => Err("an unknown entry in a batch"),
        }
    }

    fn number<const LENGTH: usize>(&mut self) -> Result<u64, &'static str> {
        let mut number = [0; 8];
        number[..LENGTH].copy_from_slice(self.take(LENGTH)?);
        Ok(u64::from_le_bytes(number))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let taken = &self.bytes[self.at..end.ok_or("a batch that is cut short")?];
        self.at += length;
        Ok(taken)
    }
}
