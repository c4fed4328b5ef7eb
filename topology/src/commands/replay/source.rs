//! Reads the files, unpacked and in the format that their names say, and hands over events. Blocking: runs on a thread of
//! its own.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use super::mapping::Mapping;
use super::outgoing::{Origin, OutgoingEvent, Rejection};
use super::recorded::Sending;
use super::{lines, rows};

/// Longer lines and rows are no events; ingest takes 32 KB each.
pub const LONGEST: usize = 1024 * 1024;

/// What a line is.
#[derive(Debug)]
pub enum Item {
    Event(OutgoingEvent),
    /// Not sent.
    Bad(Rejection),
}

impl Item {
    pub fn of(event: Result<OutgoingEvent, String>, origin: Origin) -> Self {
        event.map_or_else(|detail| Self::Bad(Rejection { origin, detail }), Self::Event)
    }
}

pub type Hand<'h> = &'h mut dyn FnMut(Item) -> ControlFlow<()>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Lines,
    Table { delimiter: u8 },
}

/// What to read, and how.
#[derive(Debug)]
pub struct Source {
    pub files: Vec<PathBuf>,
    pub mapping: Option<Mapping>,
    pub as_import: bool,
}

impl Source {
    /// Bytes as they lie on disk; `None` with standard input.
    ///
    /// # Errors
    /// A file that is not there, or a table without a mapping: said before anything is sent.
    pub fn check(&self) -> anyhow::Result<Option<u64>> {
        let mut bytes = Some(0);
        for path in &self.files {
            self.format(path)?;
            if is_standard_input(path) {
                bytes = None;
                continue;
            }
            let metadata = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
            if metadata.is_dir() {
                bail!("{} is a folder; name its files", path.display());
            }
            bytes = bytes.map(|sum: u64| sum + metadata.len());
        }
        Ok(bytes)
    }

    /// Reads every file to its end, or until told to stop.
    ///
    /// # Errors
    /// The file or its compression cannot be read on.
    pub fn read(&self, bar: &ProgressBar, hand: Hand<'_>) -> anyhow::Result<()> {
        for path in &self.files {
            let stream: Box<dyn Read> = if is_standard_input(path) {
                Box::new(bar.wrap_read(io::stdin().lock()))
            } else {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                Box::new(bar.wrap_read(file))
            };
            if self.read_stream(path, stream, hand)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Reads what a file of this name has.
    ///
    /// # Errors
    /// The stream or its compression cannot be read on.
    pub fn read_stream(&self, path: &Path, stream: Box<dyn Read>, hand: Hand<'_>) -> anyhow::Result<ControlFlow<()>> {
        let file: Arc<str> = path.file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy()).into();
        let stream: Box<dyn Read> =
            if has_extension(path, "gz") { Box::new(MultiGzDecoder::new(BufReader::new(stream))) } else { stream };
        let sending = self.sending();
        let flow = match (self.format(path)?, &self.mapping) {
            (Format::Table { delimiter }, Some(mapping)) => {
                rows::read(stream, delimiter, mapping, &file, &sending, hand)
            }
            // A mapping's route is for tables.
            _ => lines::read(stream, &file, &Sending { route: None, ..sending }, hand),
        };
        flow.with_context(|| path.display().to_string())
    }

    fn format(&self, path: &Path) -> anyhow::Result<Format> {
        let plain = if has_extension(path, "gz") { path.with_extension("") } else { path.to_owned() };
        let by_name = if has_extension(&plain, "csv") {
            Some(b',')
        } else if has_extension(&plain, "tsv") {
            Some(b'\t')
        } else {
            None
        };
        match (by_name, &self.mapping) {
            (Some(_), None) => bail!("{}: a table needs a mapping (--mapping FILE.toml)", path.display()),
            (Some(delimiter), Some(mapping)) => Ok(Format::Table { delimiter: mapping.delimiter.unwrap_or(delimiter) }),
            (None, Some(mapping)) if is_standard_input(path) => {
                Ok(Format::Table { delimiter: mapping.delimiter.unwrap_or(b',') })
            }
            (None, _) => Ok(Format::Lines),
        }
    }

    fn sending(&self) -> Sending {
        let route = self.mapping.as_ref().and_then(|mapping| mapping.route.as_deref());
        let route = match route {
            Some("/v1/batch") if self.as_import => Some("/v1/import"),
            other => other,
        };
        Sending { route: route.map(Arc::from), as_import: self.as_import }
    }
}

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(files: &[(&str, &[u8])], mapping: Option<&str>) -> anyhow::Result<(Vec<OutgoingEvent>, Vec<String>)> {
        let folder = tempfile::tempdir()?;
        let mut paths = Vec::new();
        for (name, content) in files {
            paths.push(folder.path().join(name));
            std::fs::write(folder.path().join(name), content)?;
        }
        let mapping = mapping.map(|text| Mapping::parse(text).unwrap());
        let source = Source { files: paths, mapping, as_import: false };
        source.check()?;
        let (mut events, mut bad) = (Vec::new(), Vec::new());
        source.read(&ProgressBar::hidden(), &mut |item| {
            match item {
                Item::Event(event) => events.push(event),
                Item::Bad(rejection) => bad.push(rejection.to_string()),
            }
            ControlFlow::Continue(())
        })?;
        Ok((events, bad))
    }

    #[test]
    fn lines_blank_lines_bad_lines_and_lines_that_are_too_long() {
        let mut text = b"{\"type\":\"page\"}\n\nnonsense\n\xff\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', LONGEST + 10));
        text.extend(b"\n{\"type\":\"click\",\"campaign\":\"a\"}");
        text.extend(b"\n{\"type\":\"page\",\"x\":\"");
        text.extend(std::iter::repeat_n(b'x', LONGEST - "{\"type\":\"page\",\"x\":\"\"}".len()));
        text.extend(b"\"}\n{\"type\":\"page\"}");
        let (events, bad) = read(&[("e.ndjson", &text)], None).unwrap();
        let lines: Vec<u64> = events.iter().map(|event| event.origin.line).collect();
        assert_eq!(lines, [1, 6, 7, 8], "the longest line there may be, and the one after it");
        assert_eq!(bad[0], "e.ndjson:3: an event is a JSON object");
        assert!(bad[1].starts_with("e.ndjson:4: not UTF-8"), "{}", bad[1]);
        assert!(bad[2].starts_with("e.ndjson:5: the line is longer"), "{}", bad[2]);
        assert_eq!(bad.len(), 3);
    }

    const MAPPING: &str = "[event]\ntype = { value = \"page\" }\nanonymousId = \"id\"";

    #[test]
    fn tables_compressed_or_not_give_lines_and_ids() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"id\tx\na\t1\nb\t2\n").unwrap();
        let packed = packed.finish().unwrap();
        let (events, bad) = read(&[("t.tsv.gz", &packed), ("t.csv", b"id,x\nc\nd,2\n")], Some(MAPPING)).unwrap();
        let places: Vec<String> = events.iter().map(|e| format!("{}:{}", e.origin.file, e.origin.line)).collect();
        assert_eq!(places, ["t.tsv.gz:2", "t.tsv.gz:3", "t.csv:3"]);
        assert!(bad[0].starts_with("t.csv:2: "), "{}", bad[0]);
        let (again, _) = read(&[("t.tsv.gz", &packed)], Some(MAPPING)).unwrap();
        assert_eq!(again[..], events[..2]);
    }

    #[test]
    fn what_cannot_be_read_is_said_first() {
        assert!(read(&[("t.csv", b"id\n")], None).unwrap_err().to_string().contains("needs a mapping"));
        let error = read(&[("t.csv", b"other\n1\n")], Some(MAPPING)).unwrap_err();
        assert!(format!("{error:#}").contains("there is no column `id`; the table has other"), "{error:#}");
        let gone = Source { files: vec!["/nowhere/x.ndjson".into()], mapping: None, as_import: false };
        assert!(gone.check().unwrap_err().to_string().contains("cannot read /nowhere/x.ndjson"));
    }
}
