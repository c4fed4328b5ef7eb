//! Pure: no I/O, no clock, no async.
//!
//! When an event happened. Client clocks are wrong, so Segment's rule applies: event time = received − (sent − stated),
//! with "stated" being `timestamp`, or `originalTimestamp`. Where an event has both, `originalTimestamp` is the client's clock
//! and `timestamp` is what its sender means (RudderStack's SDKs) or has corrected already (Segment's own servers): it is taken
//! as it is.

use neonhub_schemas::{Micros, time};
use serde_json::value::RawValue;

use super::members::Members;
use super::rejection::{Fault, Reason};
use super::text::string_of;

/// Numbers below this are seconds, others milliseconds: in seconds it is the year 5138, in milliseconds March 1973.
const SECONDS_BELOW: i128 = 100_000_000_000;
/// Events may be this far ahead of our clock.
pub(super) const LARGEST_LEAD_MS: i64 = 5 * 60 * 1_000;

/// Reads RFC 3339 text, or Unix time in seconds or milliseconds.
pub(super) fn instant(raw: &RawValue, field: &str) -> Result<i64, Fault> {
    let unreadable = || {
        let detail = "must be RFC 3339 text with an offset, or Unix time in seconds or milliseconds";
        Fault::new(Reason::InvalidTimestamp, field, detail)
    };
    if let Some(ms) = whole_number(raw.get()) {
        return Ok(ms);
    }
    let text = string_of(raw, field)?;
    let text = text.as_deref().unwrap_or(raw.get());
    if let Ok(ms) = time::parse_ms(text) {
        return Ok(ms);
    }
    let number = text.parse::<Micros>().map_err(|_| unreadable())?.raw();
    let is_seconds = number.abs() < SECONDS_BELOW * 1_000_000;
    let ms = if is_seconds { number.div_euclid(1_000) } else { number.div_euclid(1_000_000) };
    i64::try_from(ms).map_err(|_| unreadable())
}

/// Unix time in digits alone, as most SDKs send it that send a number: at most 15 of them.
fn whole_number(json: &str) -> Option<i64> {
    if json.len() > 15 || !json.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i64 = json.parse().ok()?;
    Some(if i128::from(number) < SECONDS_BELOW { number * 1_000 } else { number })
}

/// The event's time, corrected and within range.
pub(super) fn event_time(
    members: &Members<'_>,
    batch_sent_at_ms: Option<i64>,
    as_given: bool,
    received_at_ms: i64,
) -> Result<i64, Fault> {
    let (field, raw, is_meant) = match (members.get("timestamp"), members.get("originalTimestamp")) {
        (Some(raw), original) => ("timestamp", raw, original.is_some()),
        (None, Some(raw)) => ("originalTimestamp", raw, false),
        (None, None) => return Ok(received_at_ms),
    };
    let stated = instant(raw, field)?;
    let sent_at = match members.get("sentAt") {
        Some(raw) => Some(instant(raw, "sentAt")?),
        None => batch_sent_at_ms,
    };
    let corrected = match sent_at {
        Some(sent_at) if !as_given && !is_meant => received_at_ms.saturating_sub(sent_at.saturating_sub(stated)),
        _ => stated,
    };
    in_range(corrected, field, received_at_ms)
}

/// An instant that an event may have.
pub(super) fn in_range(corrected: i64, field: &str, received_at_ms: i64) -> Result<i64, Fault> {
    if corrected < time::EARLIEST_MS {
        let detail = format!("is before {}", time::format_ms(time::EARLIEST_MS));
        return Err(Fault::new(Reason::TooEarly, field, detail));
    }
    if corrected > received_at_ms.saturating_add(LARGEST_LEAD_MS) || corrected >= time::LATEST_MS {
        let detail = "is from the future: more than 5 minutes ahead of the time of receipt";
        return Err(Fault::new(Reason::FromTheFuture, field, detail));
    }
    Ok(corrected)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_600_000_000_000;

    fn read(json: &str) -> Result<i64, Reason> {
        event_time(&Members::parse(json).unwrap(), None, false, NOW).map_err(|fault| fault.reason)
    }

    #[test]
    fn every_form_of_an_instant() {
        for form in [
            r#""2020-09-13T12:26:39.5Z""#,
            r#""2020-09-13T18:11:39.500+05:45""#,
            "1599999999500",
            "1599999999.5",
            r#""1599999999.5""#,
            "1.5999999995e9",
        ] {
            assert_eq!(read(&format!("{{\"timestamp\":{form}}}")), Ok(NOW - 500), "{form}");
        }
        assert_eq!(read(r#"{"timestamp":null}"#), Ok(NOW));
        for form in [r#""yesterday""#, r#""2020-09-13T12:26:39""#, "true", "{}", "[1]", "1e18", "1e400", r#""""#] {
            assert!(read(&format!("{{\"timestamp\":{form}}}")).is_err(), "{form}");
        }
    }

    #[test]
    fn the_clients_clock_is_corrected() {
        // The client's clock is an hour ahead; the event happened 2 s before it was sent.
        let json = r#"{"timestamp":"2020-09-13T13:26:40Z","sentAt":"2020-09-13T13:26:42Z"}"#;
        assert_eq!(read(json), Ok(NOW - 2_000));
        let json = r#"{"originalTimestamp":"2020-09-13T13:26:40Z","sentAt":"2020-09-13T13:26:42Z"}"#;
        assert_eq!(read(json), Ok(NOW - 2_000));
        // As RudderStack's SDK for Node sends an event with a time of its own.
        let json = r#"{"timestamp":"2019-01-01T00:00:00Z","originalTimestamp":"2020-09-13T13:26:40Z","sentAt":"2020-09-13T13:26:42Z"}"#;
        assert_eq!(read(json), Ok(1_546_300_800_000));
        let members = Members::parse(r#"{"timestamp":"2020-09-13T13:26:40Z"}"#).unwrap();
        assert_eq!(event_time(&members, Some(NOW + 3_602_000), false, NOW), Ok(NOW - 2_000));
        // Historical imports are taken as given.
        let members = Members::parse(r#"{"timestamp":"2019-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(event_time(&members, Some(NOW - 5), true, NOW), Ok(1_546_300_800_000));
    }

    #[test]
    fn the_range_is_kept() {
        assert_eq!(read(&format!("{{\"timestamp\":{}}}", NOW + LARGEST_LEAD_MS)), Ok(NOW + LARGEST_LEAD_MS));
        assert_eq!(read(&format!("{{\"timestamp\":{}}}", NOW + LARGEST_LEAD_MS + 1)), Err(Reason::FromTheFuture));
        assert_eq!(read(r#"{"timestamp":"1971-12-31T23:59:59Z"}"#), Err(Reason::TooEarly));
        assert_eq!(read(r#"{"timestamp":"1972-01-01T00:00:00Z"}"#), Ok(time::EARLIEST_MS));
        assert_eq!(read(r#"{"timestamp":"9999-01-01T00:00:00Z","sentAt":-9e17}"#), Err(Reason::FromTheFuture));
    }
}
