//! NDJSON: one event a line.

use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::outgoing::{Origin, Rejection};
use super::recorded::{Sending, outgoing};
use super::source::{Hand, Item, LONGEST};

/// Reads to the end, or until told to stop.
///
/// # Errors
/// The stream cannot be read on.
pub fn read(stream: impl Read, file: &Arc<str>, sending: &Sending, hand: Hand<'_>) -> anyhow::Result<ControlFlow<()>> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let limit = LONGEST as u64 + 1;
        if reader.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let origin = Origin { file: file.clone(), line: number };
        let item = if line.len() > LONGEST && !line.ends_with(b"\n") {
            skip_line(&mut reader)?;
            Item::Bad(Rejection { origin, detail: format!("the line is longer than {LONGEST} bytes") })
        } else {
            match std::str::from_utf8(&line) {
                Ok(text) if text.trim().is_empty() => continue,
                Ok(text) => Item::of(outgoing(text.trim_start_matches('\u{feff}'), 0, &origin, sending), origin),
                Err(error) => Item::Bad(Rejection { origin, detail: format!("not UTF-8: {error}") }),
            }
        };
        if hand(item).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
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
