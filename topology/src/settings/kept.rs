//! Secrets that the embedded stack makes for itself, which is alone with its data: files in the data folder, for their owner
//! to read alone.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use neonhub_schemas::access::SHORTEST_SECRET;

use crate::clock;

/// What is in the file; a file that is missing is made, with 256 random bits in it.
///
/// # Errors
/// The folder cannot be written, or the file cannot be read.
pub fn kept_secret(path: &Path) -> anyhow::Result<String> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let bits = || clock::secret_bits().context("random bits for a secret");
        let text = format!("{:032x}{:032x}\n", bits()?, bits()?);
        // Under its own name only when it is whole; and whoever was first is right.
        let unfinished = path.with_extension(format!("{:x}", clock::random()));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
        let mut file = file.with_context(|| unfinished.display().to_string())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&unfinished, path);
        std::fs::remove_file(&unfinished)?;
        if let Err(error) = linked
            && !path.exists()
        {
            return Err(error).with_context(|| path.display().to_string());
        }
        // The name, too, must outlive a power cut: another secret would make all keys worthless.
        if let Some(folder) = path.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
    }
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let text = text.trim();
    ensure!(text.len() >= SHORTEST_SECRET, "{} is no secret: it has {} characters", path.display(), text.len());
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join("key-secret");
        let first = kept_secret(&path).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(kept_secret(&path).unwrap(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing unfinished is left");
        assert_ne!(kept_secret(&folder.path().join("another")).unwrap(), first);
        std::fs::write(&path, "cut off").unwrap();
        assert!(kept_secret(&path).unwrap_err().to_string().contains("is no secret"));
    }
}
