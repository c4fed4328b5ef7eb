//! What fjall does not look at when it opens a folder, and would lose in silence: a journal that is damaged or cut short is
//! read up to the damage and cut off there, and the name of a key space's newest manifest is not checked.
//!
//! So the journals and manifests are read before fjall touches them. What tells a commit that was torn by a power failure
//! (nobody was told that it is durable) from damage is the [`witness`]: it says how many commits were.

pub mod journal;
pub mod manifest;
pub mod witness;

use std::path::{Path, PathBuf};

pub use manifest::damaged_table;

/// Where a file is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Within the log's folder.
    pub file: PathBuf,
    pub offset: u64,
    pub detail: String,
}

/// Looks at a folder that is about to be opened, and changes nothing. `durable_commits` is what the witness says.
pub fn check(folder: &Path, durable_commits: Option<u64>) -> std::io::Result<Result<journal::Journals, Damage>> {
    if let Some(damage) = manifest::check(folder)? {
        return Ok(Err(damage));
    }
    let journals = journal::read_all(folder)?;
    Ok(match journals.damage_of_durable(durable_commits) {
        Some(damage) => Err(damage),
        None => Ok(journals),
    })
}
