//! `neonhub backup` and `neonhub restore`: the embedded stack's data folder, whole and at rest, as one file: tar in zstd,
//! with the sizes and hashes of its files at the end. A copy of the folder's parts from different moments would not belong
//! together: the log's offsets say what is in ClickHouse.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// A copy that the log can rebuild, so it is left out.
const LEFT_OUT: [&str; 1] = ["state"];
/// Held by whoever uses a part of the folder.
const LOCKS: [&str; 3] = ["log/lock", "store/lock", "olap/neonhub-olap.lock"];
const MANIFEST: &str = "neonhub-manifest.json";
const FORMAT: u32 = 1;
/// zstd's own default.
const LEVEL: i32 = 3;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    neonhub: String,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: PathBuf,
    bytes: u64,
    /// XXH3-128, in hexadecimal.
    hash: String,
}

#[derive(Debug, Serialize)]
pub struct Summary {
    pub files: usize,
    pub bytes: u64,
    pub file: PathBuf,
    pub file_bytes: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let (data, file) = (mib(self.bytes), mib(self.file_bytes));
        write!(f, "{} files of {data:.1} MiB, in {} of {file:.1} MiB", self.files, self.file.display())
    }
}

/// Counts and hashes what passes.
struct Hashing<R> {
    inner: R,
    hash: Xxh3,
    bytes: u64,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, hash: Xxh3::new(), bytes: 0 }
    }

    fn entry(self, path: PathBuf) -> Entry {
        Entry { path, bytes: self.bytes, hash: format!("{:032x}", self.hash.digest128()) }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

/// Writes the folder into `to`, which must not be there yet.
///
/// # Errors
/// The folder is in use or cannot be read, or the file cannot be written; then there is none.
pub fn create(data_dir: &Path, to: &Path) -> anyhow::Result<Summary> {
    ensure!(data_dir.is_dir(), "{} is no folder: is NEONHUB_DATA_DIR right?", data_dir.display());
    ensure!(!to.exists(), "{} is there already: name another file", to.display());
    let _held = hold(data_dir)?;
    let folder = to.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its own name only when it is whole.
    let unfinished = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    let compressor = zstd::Encoder::new(BufWriter::new(unfinished.as_file()), LEVEL)?;
    let mut archive = tar::Builder::new(compressor);
    archive.follow_symlinks(false);
    let mut manifest = Manifest { format: FORMAT, neonhub: env!("CARGO_PKG_VERSION").to_owned(), files: Vec::new() };
    let root = archive_path(Path::new(""));
    append_folder(&mut archive, data_dir, &root, &mut manifest).with_context(|| data_dir.display().to_string())?;
    let text = serde_json::to_vec_pretty(&manifest)?;
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o600);
    archive.append_data(&mut header, MANIFEST, text.as_slice())?;
    archive.into_inner()?.finish()?.flush()?;
    unfinished.as_file().sync_all()?;
    let file = unfinished.persist_noclobber(to).with_context(|| to.display().to_string())?;
    Ok(summary(&manifest, to, file.metadata()?.len()))
}

/// Files of the data folder are below this in the archive, so that none can be taken for the manifest.
fn archive_path(path: &Path) -> PathBuf {
    Path::new("data").join(path)
}

fn append_folder(
    archive: &mut tar::Builder<impl Write>,
    folder: &Path,
    name: &Path,
    manifest: &mut Manifest,
) -> anyhow::Result<()> {
    archive.append_dir(name, folder)?;
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), name.join(entry.file_name()));
        let kind = entry.file_type()?;
        let is_left_out = LEFT_OUT.iter().any(|left_out| name == archive_path(Path::new(left_out)));
        if kind.is_dir() && !is_left_out {
            append_folder(archive, &path, &name, manifest)?;
        } else if kind.is_file() {
            let file = File::open(&path).with_context(|| path.display().to_string())?;
            let mut header = tar::Header::new_gnu();
            header.set_metadata(&file.metadata()?);
            let mut hashing = Hashing::new(file);
            archive.append_data(&mut header, &name, &mut hashing).with_context(|| path.display().to_string())?;
            manifest.files.push(hashing.entry(name));
        } else if kind.is_symlink() {
            archive.append_path_with_name(&path, &name)?;
        }
    }
    Ok(())
}

/// Puts the folder back, which must not be there or be empty.
///
/// # Errors
/// The file is no whole backup, or the folder is in the way; then nothing is put there.
pub fn restore(from: &Path, data_dir: &Path) -> anyhow::Result<Summary> {
    let is_free = !data_dir.exists() || std::fs::read_dir(data_dir).is_ok_and(|mut entries| entries.next().is_none());
    ensure!(is_free, "{} is not empty: name another folder as NEONHUB_DATA_DIR", data_dir.display());
    let file = File::open(from).with_context(|| from.display().to_string())?;
    let file_bytes = file.metadata()?.len();
    let parent = data_dir.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)?;
    // Beside it, so that it can be moved there whole.
    let unfinished = tempfile::Builder::new().prefix(".neonhub-restore-").tempdir_in(parent)?;
    let manifest = unpack(file, unfinished.path()).with_context(|| format!("{} is no whole backup", from.display()))?;
    if data_dir.exists() {
        std::fs::remove_dir(data_dir)?;
    }
    std::fs::rename(unfinished.path().join("data"), data_dir)?;
    File::open(parent)?.sync_all()?;
    Ok(summary(&manifest, from, file_bytes))
}

fn unpack(file: File, folder: &Path) -> anyhow::Result<Manifest> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(file)?);
    archive.set_preserve_permissions(true);
    let mut seen: Vec<Entry> = Vec::new();
    let mut manifest: Option<Manifest> = None;
    // Made when all files are there: none is written through one.
    let mut links: Vec<(PathBuf, PathBuf)> = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        ensure!(manifest.is_none(), "{} comes after the manifest", path.display());
        if path == Path::new(MANIFEST) {
            manifest = Some(serde_json::from_reader(entry)?);
            continue;
        }
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        ensure!(is_below && path.starts_with("data"), "{} leads out of the folder", path.display());
        let target = folder.join(&path);
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let mode = entry.header().mode()?;
            let mut out = File::create_new(&target)?;
            let mut hashing = Hashing::new(&mut entry);
            io::copy(&mut hashing, &mut out)?;
            seen.push(hashing.entry(path));
            out.set_permissions(std::fs::Permissions::from_mode(mode & 0o777))?;
            out.sync_all()?;
        } else if kind.is_symlink() {
            let to = entry.link_name()?.context("a link to nowhere")?.into_owned();
            links.push((to, target));
        } else {
            ensure!(kind.is_dir(), "{} is neither a file, a folder nor a link", path.display());
            std::fs::create_dir(&target)?;
        }
    }
    let Some(manifest) = manifest else { bail!("its end is missing") };
    ensure!(manifest.format == FORMAT, "it has format {}, this is for {FORMAT}", manifest.format);
    ensure!(manifest.files.len() == seen.len(), "it has {} files of {}", seen.len(), manifest.files.len());
    for (told, found) in manifest.files.iter().zip(&seen) {
        let is_same = told.path == found.path && told.bytes == found.bytes && told.hash == found.hash;
        ensure!(is_same, "{} is not what it was", told.path.display());
    }
    for (to, link) in links {
        std::os::unix::fs::symlink(to, link)?;
    }
    Ok(manifest)
}

fn summary(manifest: &Manifest, file: &Path, file_bytes: u64) -> Summary {
    let bytes = manifest.files.iter().map(|entry| entry.bytes).sum();
    Summary { files: manifest.files.len(), bytes, file: file.to_owned(), file_bytes }
}

/// The locks of all parts, so that nobody begins to use one meanwhile.
fn hold(data_dir: &Path) -> anyhow::Result<Vec<File>> {
    let mut held = Vec::new();
    for path in LOCKS.map(|lock| data_dir.join(lock)).into_iter().filter(|path| path.exists()) {
        let file = File::options().read(true).write(true).open(&path).with_context(|| path.display().to_string())?;
        if file.try_lock().is_err() {
            bail!("{} is in use: stop `neonhub up` first", data_dir.display());
        }
        held.push(file);
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with_data() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data-dir");
        for (path, text) in
            [("log/lock", ""), ("log/0.jnl", "records"), ("olap/store/a/b.bin", "rows"), ("state/0/x", "s")]
        {
            let path = data.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        std::fs::write(data.join("key-secret"), "secret").unwrap();
        std::fs::set_permissions(data.join("key-secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("../store/a", data.join("olap/link")).unwrap();
        folder
    }

    #[test]
    fn what_is_put_back_is_what_was_there() {
        let folder = folder_with_data();
        let (data, file, again) =
            (folder.path().join("data-dir"), folder.path().join("b.tar.zst"), folder.path().join("again"));
        let made = create(&data, &file).unwrap();
        assert_eq!((made.files, made.bytes), (4, 17));
        let restored = restore(&file, &again).unwrap();
        assert_eq!((restored.files, restored.bytes), (4, 17));
        assert_eq!(std::fs::read_to_string(again.join("olap/store/a/b.bin")).unwrap(), "rows");
        assert_eq!(std::fs::read_link(again.join("olap/link")).unwrap(), Path::new("../store/a"));
        assert_eq!(again.join("key-secret").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!again.join("state").exists());
        assert!(create(&data, &file).unwrap_err().to_string().contains("there already"));
        assert!(restore(&file, &again).unwrap_err().to_string().contains("not empty"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "nothing unfinished is left");
    }

    #[test]
    fn a_folder_in_use_is_not_copied() {
        let folder = folder_with_data();
        let data = folder.path().join("data-dir");
        let lock = File::options().write(true).open(data.join("log/lock")).unwrap();
        lock.try_lock().unwrap();
        let error = create(&data, &folder.path().join("b")).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(lock);
        create(&data, &folder.path().join("b")).unwrap();
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        let file = folder.path().join("b.tar.zst");
        let mut archive = tar::Builder::new(zstd::Encoder::new(File::create(&file).unwrap(), 1).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        archive.append_data(&mut header, "data", io::empty()).unwrap();
        header.set_entry_type(tar::EntryType::Symlink);
        archive.append_link(&mut header, "data/link", &outside).unwrap();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(4);
        archive.append_data(&mut header, "data/link/evil", &b"evil"[..]).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        assert!(restore(&file, &folder.path().join("again")).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_or_cut_off_backup_puts_nothing_back() {
        let folder = folder_with_data();
        let file = folder.path().join("b.tar.zst");
        create(&folder.path().join("data-dir"), &file).unwrap();
        let whole = std::fs::read(&file).unwrap();
        let target = folder.path().join("again");
        for cut in (0..whole.len()).step_by(whole.len() / 40) {
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(restore(&file, &target).is_err() && !target.exists(), "cut at {cut}");
        }
        for flipped in (4..whole.len()).step_by(whole.len() / 40) {
            let mut bytes = whole.clone();
            bytes[flipped] ^= 0x10;
            std::fs::write(&file, &bytes).unwrap();
            if restore(&file, &target).is_ok() {
                // The bit was one that says nothing, like a time of change.
                assert_eq!(
                    std::fs::read_to_string(target.join("log/0.jnl")).unwrap(),
                    "records",
                    "flipped at {flipped}"
                );
                std::fs::remove_dir_all(&target).unwrap();
            }
        }
    }
}
