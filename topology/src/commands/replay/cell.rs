//! Pure: no I/O, no clock, no async.
//!
//! A cell of a table, text → the JSON value that a mapping wants.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Number, Value};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellType {
    #[default]
    Text,
    Number,
    Bool,
    Timestamp,
    /// Any JSON text.
    Json,
}

/// How a timestamp is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TimeFormat {
    /// ISO 8601, with `T` or a space; without an offset it is in the zone.
    #[default]
    Iso,
    UnixSeconds,
    UnixMilliseconds,
    /// strptime: `%d/%m/%Y %H:%M`; without an offset it is in the zone.
    Pattern(String),
}

impl From<&str> for TimeFormat {
    fn from(text: &str) -> Self {
        match text {
            "iso" => Self::Iso,
            "unix" => Self::UnixSeconds,
            "unix_ms" => Self::UnixMilliseconds,
            pattern => Self::Pattern(pattern.to_owned()),
        }
    }
}

/// # Errors
/// What the cell should have been.
pub fn value_of(cell: &str, kind: CellType, format: &TimeFormat, zone: &TimeZone) -> Result<Value, String> {
    match kind {
        CellType::Text => Ok(Value::from(cell)),
        CellType::Number => number(cell).map(Value::Number).ok_or_else(|| format!("`{}` is no number", shown(cell))),
        CellType::Bool => match cell.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Ok(Value::Bool(true)),
            "false" | "f" | "no" | "n" | "0" => Ok(Value::Bool(false)),
            _ => Err(format!("`{}` is neither true nor false", shown(cell))),
        },
        CellType::Timestamp => timestamp(cell, format, zone)
            .map(|instant| Value::from(instant.to_string()))
            .ok_or_else(|| format!("`{}` is no timestamp ({})", shown(cell), expected(format))),
        CellType::Json => serde_json::from_str(cell).map_err(|error| format!("is not JSON: {error}")),
    }
}

fn number(cell: &str) -> Option<Number> {
    if let Ok(whole) = cell.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = cell.parse::<u64>() {
        return Some(whole.into());
    }
    Number::from_f64(cell.parse().ok()?)
}

fn timestamp(cell: &str, format: &TimeFormat, zone: &TimeZone) -> Option<Timestamp> {
    match format {
        TimeFormat::Iso => match cell.parse::<Timestamp>() {
            Ok(instant) => Some(instant),
            Err(_) => in_zone(cell.parse::<DateTime>().ok()?, zone),
        },
        TimeFormat::UnixSeconds => unix(cell, 1_000_000),
        TimeFormat::UnixMilliseconds => unix(cell, 1_000),
        TimeFormat::Pattern(pattern) => match Timestamp::strptime(pattern, cell) {
            Ok(instant) => Some(instant),
            Err(_) => in_zone(DateTime::strptime(pattern, cell).ok()?, zone),
        },
    }
}

fn in_zone(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    local.to_zoned(zone.clone()).ok().map(|zoned| zoned.timestamp())
}

/// Decimal digits, so that no fraction is lost on the way through a float; `unit` is in microseconds.
fn unix(cell: &str, unit: i64) -> Option<Timestamp> {
    let (whole, fraction) = cell.split_once('.').unwrap_or((cell, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole_micros = whole.parse::<i64>().ok()?.checked_mul(unit)?;
    let mut micros = 0;
    let mut place = unit;
    for digit in fraction.bytes() {
        place /= 10;
        micros += i64::from(digit - b'0') * place;
    }
    let signed = if whole.starts_with('-') { -micros } else { micros };
    Timestamp::from_microsecond(whole_micros.checked_add(signed)?).ok()
}

fn expected(format: &TimeFormat) -> String {
    match format {
        TimeFormat::Iso => "ISO 8601, like 2019-11-24T00:00:02Z".to_owned(),
        TimeFormat::UnixSeconds => "unix: seconds since 1970".to_owned(),
        TimeFormat::UnixMilliseconds => "unix_ms: milliseconds since 1970".to_owned(),
        TimeFormat::Pattern(pattern) => format!("like {pattern}"),
    }
}

fn shown(cell: &str) -> String {
    cell.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(cell: &str, kind: CellType, format: &str, zone: &str) -> Result<Value, String> {
        value_of(cell, kind, &format.into(), &TimeZone::get(zone).unwrap())
    }

    #[test]
    fn every_type() {
        assert_eq!(read("men", CellType::Text, "iso", "UTC").unwrap(), "men");
        assert_eq!(read("-7", CellType::Number, "iso", "UTC").unwrap(), -7);
        assert_eq!(read("18446744073709551615", CellType::Number, "iso", "UTC").unwrap(), u64::MAX);
        assert_eq!(read("0.0125", CellType::Number, "iso", "UTC").unwrap().to_string(), "0.0125");
        assert_eq!(read("No", CellType::Bool, "iso", "UTC").unwrap(), false);
        assert_eq!(read("[1]", CellType::Json, "iso", "UTC").unwrap()[0], 1);
        for (cell, kind) in
            [("x", CellType::Number), ("NaN", CellType::Number), ("maybe", CellType::Bool), ("{", CellType::Json)]
        {
            assert!(read(cell, kind, "iso", "UTC").is_err(), "{cell}");
        }
    }

    #[test]
    fn every_way_to_write_an_instant() {
        for (cell, format, zone, expected) in [
            ("2019-11-24 00:00:17.004101+00:00", "iso", "UTC", "2019-11-24T00:00:17.004101Z"),
            ("2019-11-24T05:45:00+05:45", "iso", "UTC", "2019-11-24T00:00:00Z"),
            ("2019-11-24 01:00:00", "iso", "Europe/Berlin", "2019-11-24T00:00:00Z"),
            ("1396766998.728", "unix", "UTC", "2014-04-06T06:49:58.728Z"),
            ("1396766998728", "unix_ms", "UTC", "2014-04-06T06:49:58.728Z"),
            ("-0.5", "unix", "UTC", "1969-12-31T23:59:59.5Z"),
            ("24/11/2019 09:30", "%d/%m/%Y %H:%M", "UTC", "2019-11-24T09:30:00Z"),
        ] {
            assert_eq!(read(cell, CellType::Timestamp, format, zone).unwrap(), expected, "{cell}");
        }
        for (cell, format) in
            [("yesterday", "iso"), ("1e9", "unix"), ("1.-5", "unix"), ("", "unix_ms"), ("7", "%Y-%m-%d")]
        {
            assert!(read(cell, CellType::Timestamp, format, "UTC").is_err(), "{cell}");
        }
    }
}
