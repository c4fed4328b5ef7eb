//! Pure: no I/O, no clock, no async.
//!
//! Cells of a table. The first byte says what a cell should be; of a timestamp with a pattern, the pattern ends with a zero.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::commands::replay::cell::{CellType, TimeFormat, value_of};

pub(crate) fn check(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match what % 7 {
        0 => check_number(text),
        1 => check_unix(text, &TimeFormat::UnixSeconds, 6),
        2 => check_unix(text, &TimeFormat::UnixMilliseconds, 3),
        3 => check_instant(text, &TimeFormat::Iso),
        4 => {
            let (pattern, cell) = text.split_once('\0').unwrap_or((text, ""));
            check_instant(cell, &TimeFormat::from(pattern));
        }
        5 => assert_eq!(read(text, CellType::Json, &TimeFormat::Iso), serde_json::from_str(text).ok()),
        _ => {
            let is_bool = read(text, CellType::Bool, &TimeFormat::Iso).is_none_or(|value| value.is_boolean());
            assert!(is_bool);
            assert_eq!(read(text, CellType::Text, &TimeFormat::Iso), Some(Value::from(text)));
        }
    }
}

fn read(cell: &str, kind: CellType, format: &TimeFormat) -> Option<Value> {
    match value_of(cell, kind, format, &TimeZone::UTC) {
        Ok(value) => Some(value),
        Err(detail) => {
            assert!(!detail.is_empty());
            None
        }
    }
}

/// Whole numbers keep every digit; others are what a float can hold of them.
fn check_number(cell: &str) {
    let Some(value) = read(cell, CellType::Number, &TimeFormat::Iso) else { return };
    let whole =
        cell.parse::<i128>().ok().filter(|whole| i64::try_from(*whole).is_ok() || u64::try_from(*whole).is_ok());
    match whole {
        Some(whole) => assert_eq!(value.to_string(), whole.to_string(), "{cell:?}"),
        None => assert_eq!(value.as_f64(), cell.parse().ok(), "{cell:?}"),
    }
}

fn check_instant(cell: &str, format: &TimeFormat) {
    let Some(value) = read(cell, CellType::Timestamp, format) else { return };
    let instant = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    assert!(instant.is_some_and(|instant| value == instant.to_string()), "{cell:?} is printed as {value}");
}

/// Decimals: what is beyond microseconds is cut off, towards 1970.
fn check_unix(cell: &str, format: &TimeFormat, decimals: usize) {
    let Some(value) = read(cell, CellType::Timestamp, format) else { return };
    let instant = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let (sign, digits) = match cell.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, cell.strip_prefix('+').unwrap_or(cell)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction: String = fraction.chars().chain(std::iter::repeat('0')).take(decimals).collect();
    let micros = format!("{whole}{fraction}").parse::<i128>().map(|micros| sign * micros);
    assert_eq!(instant.map(|instant| i128::from(instant.as_microsecond())), micros.ok(), "{cell:?}");
}
