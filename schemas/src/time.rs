//! Pure: no I/O, no clock, no async.
//!
//! Instants are milliseconds since the Unix epoch in memory and RFC 3339 text in UTC on the wire.

use jiff::Timestamp;

/// The first instant an event may carry: 1972-01-01T00:00:00Z. Since then every zone's offset has been a multiple of
/// a quarter of an hour, which is what lets any calendar be added up from quarter-hour windows.
pub const EARLIEST_MS: i64 = 63_072_000_000;
/// The first instant that is too late to store: 2106-01-01T00:00:00Z, the end of ClickHouse's `DateTime`.
pub const LATEST_MS: i64 = 4_291_747_200_000;

/// RFC 3339 with milliseconds, in UTC. `ms` outside of jiff's range (years −9999 to 9999) is clamped.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX });
    format!("{timestamp:.3}")
}

/// Reads RFC 3339 / ISO 8601 with an offset; sub-millisecond digits are cut off.
///
/// # Errors
/// The text is not an instant.
pub fn parse_ms(text: &str) -> Result<i64, jiff::Error> {
    text.parse::<Timestamp>().map(|timestamp| {
        let nanos = timestamp.as_nanosecond();
        i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(0)
    })
}

/// serde for a field in milliseconds that is RFC 3339 text on the wire.
pub mod rfc3339 {
    use serde::{Deserialize, Deserializer, Serializer};

    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_ms(*ms))
    }

    /// # Errors
    /// The text is not an instant.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        super::parse_ms(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_to_the_millisecond() {
        assert_eq!(format_ms(1_574_553_602_123), "2019-11-24T00:00:02.123Z");
        assert_eq!(parse_ms("2019-11-24T00:00:02.123999Z").unwrap(), 1_574_553_602_123);
        assert_eq!(parse_ms("2019-11-24T05:45:02.123+05:45").unwrap(), 1_574_553_602_123);
        assert!(parse_ms("2019-11-24T00:00:02").is_err());
        assert_eq!(parse_ms(&format_ms(EARLIEST_MS)).unwrap(), EARLIEST_MS);
    }
}
