//! Each key space has a manifest `v<number>` of its tables, and a file `current` with the number and the checksum of the
//! newest one. fjall reads the number only.

use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_128;

use super::Damage;

const KEY_SPACES: &str = "keyspaces";
const CURRENT: &str = "current";

/// `current`: number (8 bytes, little-endian), checksum (16), its type (1: 0 is XXH3).
struct Current {
    number: u64,
    checksum: [u8; 16],
}

impl Current {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<8>()?;
        let (checksum, kind) = rest.split_first_chunk::<16>()?;
        (kind == [0]).then(|| Self { number: u64::from_le_bytes(*number), checksum: *checksum })
    }
}

pub fn check(folder: &Path) -> std::io::Result<Option<Damage>> {
    for key_space in key_spaces(folder)? {
        // Without it the key space was just being created.
        let Some(current) = read_if_there(&key_space.join(CURRENT))? else { continue };
        if let Err((file, detail)) = whole_manifest(&current, |name| read_if_there(&key_space.join(name)))? {
            let file = Path::new(KEY_SPACES).join(key_space.file_name().unwrap_or_default()).join(file);
            return Ok(Some(Damage { file, offset: 0, detail }));
        }
    }
    Ok(None)
}

/// The manifest that the file `current` names, or which of the two files is not what was written, and why.
pub fn whole_manifest(
    current: &[u8],
    read: impl FnOnce(&str) -> std::io::Result<Option<Vec<u8>>>,
) -> std::io::Result<Result<Vec<u8>, (String, String)>> {
    let Some(current) = Current::decode(current) else {
        return Ok(Err((CURRENT.to_owned(), "not as it was written".to_owned())));
    };
    let name = format!("v{}", current.number);
    let Some(manifest) = read(&name)? else {
        return Ok(Err((CURRENT.to_owned(), format!("it names {name}, which is not there"))));
    };
    if xxh3_128(&manifest).to_le_bytes() != current.checksum {
        return Ok(Err((name, "its checksum is not the one in the file current".to_owned())));
    }
    Ok(Ok(manifest))
}

/// The first table that is not what its manifest says. It reads them all: for a folder that could not be opened.
pub fn damaged_table(folder: &Path) -> std::io::Result<Option<PathBuf>> {
    for key_space in key_spaces(folder)? {
        let current = read_if_there(&key_space.join(CURRENT))?;
        let Some(current) = current.as_deref().and_then(Current::decode) else { continue };
        let manifest = std::fs::read(key_space.join(format!("v{}", current.number)))?;
        for table in folders_entries(&key_space.join("tables"))? {
            let id = table.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            let Some(id) = id else { continue };
            if is_damaged(&manifest, id, &std::fs::read(&table)?) {
                return Ok(Some(table.strip_prefix(folder).unwrap_or(&table).to_path_buf()));
            }
        }
    }
    Ok(None)
}

/// Whether the manifest has a table of this number, and none of them with this content.
pub fn is_damaged(manifest: &[u8], id: u64, table: &[u8]) -> bool {
    // As in the manifest: number, type of checksum, checksum.
    let mut entry = [id.to_le_bytes().as_slice(), &[0]].concat();
    let is_listed = contains(manifest, &entry);
    entry.extend(xxh3_128(table).to_le_bytes());
    is_listed && !contains(manifest, &entry)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn key_spaces(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    folders_entries(&folder.join(KEY_SPACES))
}

fn folders_entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn read_if_there(file: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
