//! Reads the files, line by line and row by row, and hands over events. Blocking: runs on a thread of its own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use indicatif::ProgressBar;

use super::mapping::Mapping;
use super::outgoing::{Origin, OutgoingEvent, Rejection};
use super::recorded::{Sending, outgoing};
use super::table::Table;

/// Longer lines are no events; ingest takes 32 KB each.
const LONGEST_LINE: usize = 1024 * 1024;

/// What a line is.
#[derive(Debug)]
pub enum Item {
    Event(OutgoingEvent),
    /// Not sent.
    Bad(Rejection),
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
            let name = path.file_name().map_or_else(|| "-".into(), |name| name.to_string_lossy());
            let stream: Box<dyn Read> = if is_standard_input(path) {
                Box::new(bar.wrap_read(io::stdin().lock()))
            } else {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                Box::new(bar.wrap_read(file))
            };
            let stream: Box<dyn Read> =
                if has_extension(path, "gz") { Box::new(MultiGzDecoder::new(BufReader::new(stream))) } else { stream };
            let flow = match self.format(path)? {
                Format::Lines => self.read_lines(stream, &name, hand),
                Format::Table { delimiter } => self.read_table(stream, &name, delimiter, hand),
            };
            if flow.with_context(|| path.display().to_string())?.is_break() {
                break;
            }
        }
        Ok(())
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

    fn read_lines(&self, stream: Box<dyn Read>, name: &str, hand: Hand<'_>) -> anyhow::Result<ControlFlow<()>> {
        let mut reader = BufReader::with_capacity(1 << 16, stream);
        let file: Arc<str> = name.into();
        // A mapping's route is for tables.
        let sending = Sending { route: None, ..self.sending() };
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = LONGEST_LINE as u64 + 1;
            if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let origin = Origin { file: file.clone(), line: number };
            let item = if line.len() > LONGEST_LINE {
                skip_line(&mut reader)?;
                Item::Bad(Rejection { origin, detail: format!("the line is longer than {LONGEST_LINE} bytes") })
            } else {
                match std::str::from_utf8(&line) {
                    Ok(text) if text.trim().is_empty() => continue,
                    Ok(text) => item(outgoing(text.trim_start_matches('\u{feff}'), 0, &origin, &sending), origin),
                    Err(error) => Item::Bad(Rejection { origin, detail: format!("not UTF-8: {error}") }),
                }
            };
            if hand(item).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn read_table(
        &self,
        stream: Box<dyn Read>,
        name: &str,
        delimiter: u8,
        hand: Hand<'_>,
    ) -> anyhow::Result<ControlFlow<()>> {
        let Some(mapping) = &self.mapping else { bail!("a table needs a mapping") };
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(stream);
        let table = Table::bind(mapping, reader.headers()?).map_err(anyhow::Error::msg)?;
        let file: Arc<str> = name.into();
        let sending = self.sending();
        let mut row = csv::StringRecord::new();
        loop {
            let line = reader.position().line();
            let found = match reader.read_record(&mut row) {
                Ok(false) => return Ok(ControlFlow::Continue(())),
                Ok(true) => table.events(&row),
                Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => return Err(error.into()),
                Err(error) => Err(error.to_string()),
            };
            let line = row.position().map_or(line, csv::Position::line);
            let origin = Origin { file: file.clone(), line };
            let items: Vec<Item> = match found {
                Err(detail) => vec![Item::Bad(Rejection { origin, detail })],
                Ok(events) => {
                    let of_part = |(part, event): (usize, serde_json::Value)| {
                        item(outgoing(&event.to_string(), part, &origin, &sending), origin.clone())
                    };
                    events.into_iter().enumerate().map(of_part).collect()
                }
            };
            for item in items {
                if hand(item).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }
}

fn item(event: Result<OutgoingEvent, String>, origin: Origin) -> Item {
    event.map_or_else(|detail| Item::Bad(Rejection { origin, detail }), Item::Event)
}

fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffered = reader.fill_buf()?;
        if buffered.is_empty() {
            return Ok(());
        }
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffered.len(), |end| end + 1);
        reader.consume(length);
        if end.is_some() {
            return Ok(());
        }
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
        text.extend(std::iter::repeat_n(b'x', LONGEST_LINE + 10));
        text.extend(b"\n{\"type\":\"click\",\"campaign\":\"a\"}");
        let (events, bad) = read(&[("e.ndjson", &text)], None).unwrap();
        let lines: Vec<u64> = events.iter().map(|event| event.origin.line).collect();
        assert_eq!(lines, [1, 6]);
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
