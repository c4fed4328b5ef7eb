//! Pure: no I/O, no clock, no async.
//!
//! Small texts: decimals, instants, names of fields and aggregations. The first byte says which.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::event::FieldPath;
use crate::metric::Aggregation;
use crate::micros::Micros;
use crate::time;
use crate::window::{Epoch, parse_window_key, window_key};

pub(super) fn check(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 7 {
        0 => round_trip::<Micros>(text),
        1 => round_trip::<FieldPath>(text),
        2 => round_trip::<Aggregation>(text),
        3 => round_trip::<Epoch>(text),
        4 => check_sum(rest),
        5 => check_instant(text),
        _ => check_window_key(rest),
    }
}

fn round_trip<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let printed = value.to_string();
    assert_eq!(printed.parse::<T>().ok().as_ref(), Some(&value), "{text:?} is printed as {printed:?}");
}

/// As sums stand in records: wider than a single value may be.
fn check_sum(json: &[u8]) {
    let Ok(sum) = serde_json::from_slice::<Micros>(json) else { return };
    let written = serde_json::to_vec(&sum).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Micros>(&written).ok(), Some(sum));
    assert!(sum.to_f64().is_finite());
}

fn check_instant(text: &str) {
    let Ok(ms) = time::parse_ms(text) else { return };
    let printed = time::format_ms(ms);
    assert_eq!(time::parse_ms(&printed).ok(), Some(ms), "{text:?} is printed as {printed:?}");
}

fn check_window_key(key: &[u8]) {
    let Some((key, grain, start_s, epoch)) = parse_window_key(key) else { return };
    let printed = window_key(&key, grain, "UTC", start_s, epoch);
    assert_eq!(parse_window_key(printed.as_bytes()), Some((key, grain, start_s, epoch)), "{printed}");
}
