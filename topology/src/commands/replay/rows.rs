//! Tables: a row is one event or more, as a mapping says.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::mapping::Mapping;
use super::outgoing::{Origin, Rejection};
use super::recorded::{Sending, outgoing};
use super::source::{Hand, Item, LONGEST};
use super::table::Table;

/// Reads to the end, or until told to stop.
///
/// # Errors
/// The stream cannot be read on, a row does not end, or the table lacks a column of the mapping.
pub fn read(
    stream: impl Read,
    delimiter: u8,
    mapping: &Mapping,
    file: &Arc<str>,
    sending: &Sending,
    hand: Hand<'_>,
) -> anyhow::Result<ControlFlow<()>> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(RowByRow::over(stream));
    let table = Table::bind(mapping, reader.headers()?).map_err(anyhow::Error::msg)?;
    let mut row = csv::StringRecord::new();
    loop {
        reader.get_mut().row_bytes = 0;
        let begin = reader.position().byte();
        let found = match reader.read_record(&mut row) {
            Ok(false) => return Ok(ControlFlow::Continue(())),
            Ok(true) => table.events(&row),
            Err(error) if matches!(error.kind(), csv::ErrorKind::Io(_)) => return Err(error.into()),
            Err(error) => Err(error.to_string()),
        };
        let origin = Origin { file: file.clone(), line: reader.get_mut().line_from(begin) };
        let items: Vec<Item> = match found {
            Err(detail) => vec![Item::Bad(Rejection { origin, detail })],
            Ok(events) => {
                let of_part = |(part, event): (usize, serde_json::Value)| {
                    Item::of(outgoing(&event.to_string(), part, &origin, sending), origin.clone())
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

/// The stream below the parser: knows how long a row becomes, and in which line it begins. (What the parser says is the line
/// after the row before: blank lines are not counted then, nor is the end of a line that is `\r\n`.)
struct RowByRow<R> {
    stream: R,
    /// Read since the last row began, and at most a buffer of what came before.
    row_bytes: usize,
    /// How many bytes were read, and the number of the line that they end in.
    bytes: u64,
    line: u64,
    is_blank: bool,
    /// Where lines begin that are not blank, and their numbers, from the last row on.
    begins: VecDeque<(u64, u64)>,
}

impl<R> RowByRow<R> {
    fn over(stream: R) -> Self {
        Self { stream, row_bytes: 0, bytes: 0, line: 1, is_blank: true, begins: VecDeque::new() }
    }

    /// The first line with anything in it that begins there or later.
    fn line_from(&mut self, byte: u64) -> u64 {
        while self.begins.pop_front_if(|(begin, _)| *begin < byte).is_some() {}
        self.begins.front().map_or(self.line, |(_, line)| *line)
    }

    fn count_lines(&mut self, read: &[u8]) {
        for byte in read {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.is_blank = true;
                }
                b'\r' => {}
                _ if self.is_blank => {
                    self.is_blank = false;
                    self.begins.push_back((self.bytes, self.line));
                }
                _ => {}
            }
            self.bytes += 1;
        }
    }
}

impl<R: Read> Read for RowByRow<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        // A row whose quote is never closed would take in the rest of the file.
        if length > 0 && self.row_bytes > LONGEST {
            return Err(io::Error::other(format!("a row is longer than {LONGEST} bytes: is a quote not closed?")));
        }
        self.row_bytes += length;
        self.count_lines(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(table: &[u8]) -> anyhow::Result<Vec<u64>> {
        let mapping = Mapping::parse("[event]\ntype = { value = \"page\" }\nanonymousId = \"id\"").unwrap();
        let mut lines = Vec::new();
        let _ = read(table, b',', &mapping, &"t.csv".into(), &Sending::default(), &mut |item| {
            lines.push(match item {
                Item::Event(event) => event.origin.line,
                Item::Bad(rejection) => panic!("{rejection}"),
            });
            ControlFlow::Continue(())
        })?;
        Ok(lines)
    }

    #[test]
    fn rows_are_named_by_their_first_line() {
        let table = b"\xef\xbb\xbfid,x\n\n1,a\n2,\"b\nb\n\"\n\r\n\n3,c\r\n4,\"d\r\n\r\nd\"\r\n5,e";
        assert_eq!(lines_of(table).unwrap(), [3, 4, 9, 10, 13]);
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_take_in_the_file() {
        let long = vec![b'x'; LONGEST - 100];
        let quoted = [b"id\n\"".as_slice(), &long, b"\"\n\"", &long, b"\"\n"].concat();
        assert_eq!(lines_of(&quoted).unwrap(), [2, 3]);
        let open = [b"id\n1\n\"2\n".as_slice(), &long, &long].concat();
        let error = lines_of(&open).unwrap_err();
        assert!(format!("{error:#}").contains("is a quote not closed?"), "{error:#}");
    }
}
