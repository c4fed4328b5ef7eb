//! Pure: no I/O, no clock, no async.
//!
//! NDJSON. The first byte says whether it is packed, and whether times are taken as given.

use std::io::Write as _;

use serde_json::{Map, Value};

use super::read;
use crate::commands::replay::outgoing::OutgoingEvent;
use crate::commands::replay::source::Item;

pub(crate) fn check(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let as_import = how % 2 == 1;
    match how / 2 % 3 {
        0 => check_lines(rest, as_import),
        1 => check_packed(rest, as_import),
        _ => drop(read("e.ndjson.gz", rest, None, as_import)),
    }
}

/// Every line that is not blank is one item, and an event is the line's own but for what is said of it.
fn check_lines(text: &[u8], as_import: bool) {
    let items = read("e.ndjson", text, None, as_import).unwrap_or_default();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let is_blank = |line: &[u8]| std::str::from_utf8(line).is_ok_and(|line| line.trim().is_empty());
    let expected: Vec<u64> = (1..).zip(&lines).filter(|(_, line)| !is_blank(line)).map(|(number, _)| number).collect();
    let found: Vec<u64> = items.iter().map(|item| item.origin().line).collect();
    assert_eq!(found, expected, "lines");
    for item in &items {
        if let Item::Event(event) = item {
            let line = usize::try_from(event.origin.line).ok().and_then(|number| lines.get(number - 1));
            check_event(event, line.copied().unwrap_or_default(), as_import);
        }
    }
}

fn check_event(event: &OutgoingEvent, line: &[u8], as_import: bool) {
    let is_path = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"/-_".contains(&byte);
    assert!(event.route.starts_with("/v1/") && event.route.bytes().all(is_path), "{}", event.route);
    let line = std::str::from_utf8(line).unwrap_or_default().trim_start_matches('\u{feff}');
    // What is too deep, or no number, is for ingest to refuse: most of an event is only looked through here.
    let Ok(mut expected) = serde_json::from_str::<Map<String, Value>>(line) else { return };
    let sent = serde_json::from_str::<Map<String, Value>>(&event.json);
    assert!(sent.is_ok(), "{} was JSON before", event.json);
    let mut sent = sent.unwrap_or_default();
    let id = sent.remove("messageId");
    match expected.remove("messageId").filter(|own| !own.is_null() && *own != "") {
        Some(own) => assert_eq!(id, Some(own), "another id than its own"),
        None => assert!(id.is_some_and(|id| id.as_str().is_some_and(|id| id.len() == "replay-".len() + 32))),
    }
    if as_import && &*event.route != "/v1/import" {
        expected.remove("sentAt");
    }
    assert_eq!(sent, expected, "another event");
}

/// Packed or not, the lines are the same.
fn check_packed(text: &[u8], as_import: bool) {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let Ok(packed) = encoder.write_all(text).and_then(|()| encoder.finish()) else { return };
    let lines = |name: &str, bytes: &[u8]| {
        let items = read(name, bytes, None, as_import);
        items.map(|items| items.iter().map(|item| (item.origin().line, is_event(item))).collect::<Vec<_>>())
    };
    let plain = lines("e.ndjson", text);
    assert!(plain.is_some());
    assert_eq!(lines("e.ndjson.gz", &packed), plain, "packed lines are others");
    // In two pieces, as they are appended to a log.
    assert!(lines("e.ndjson.gz", &[packed.as_slice(), &packed].concat()).is_some(), "a second piece is not read");
    let cut = lines("e.ndjson.gz", &packed[..packed.len() - 1]);
    assert_eq!(cut, None, "a file that is cut short is taken for whole");
}

fn is_event(item: &Item) -> bool {
    matches!(item, Item::Event(_))
}
