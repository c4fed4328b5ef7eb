//! Pure: no I/O, no clock, no async.
//!
//! Instants are milliseconds since the Unix epoch in memory and RFC 3339 text in UTC on the wire.

use jiff::Timestamp;

/// The first instant an event may carry: 1972-01-01T00:00:00Z. Since then every zone's offset has been a multiple of
/// a quarter of an hour, which is what lets any calendar be added up from quarter-hour windows.
pub const EARLIEST_MS: i64 = 63_072_000_000;
/// The first instant that is too late to store: 2106-01-01T00:00:00Z, the end of ClickHouse's `DateTime`.
pub const LATEST_MS: i64 = 4_291_747_200_000;

const DAY_MS: i64 = 86_400_000;
/// 9999-01-01T00:00:00Z: jiff's instants end within that year.
const LAST_YEAR_MS: i64 = 253_370_764_800_000;

/// RFC 3339 with milliseconds, in UTC. `ms` outside of jiff's range (years −9999 to 9999) is clamped.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    if (0..LAST_YEAR_MS).contains(&ms) {
        // Digits and what stands between them are ASCII.
        return String::from_utf8_lossy(&format_canonical_ms(ms)).into_owned();
    }
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX });
    format!("{timestamp:.3}")
}

/// Reads RFC 3339 / ISO 8601 with an offset; sub-millisecond digits are cut off.
///
/// # Errors
/// The text is not an instant.
pub fn parse_ms(text: &str) -> Result<i64, jiff::Error> {
    if let Some(ms) = parse_canonical_ms(text) {
        return Ok(ms);
    }
    text.parse::<Timestamp>().map(|timestamp| {
        let nanos = timestamp.as_nanosecond();
        i64::try_from(nanos.div_euclid(1_000_000)).unwrap_or(0)
    })
}

/// `2019-11-24T00:00:02.123Z`. Years 1970 to 9998 only: this runs several times an event.
fn format_canonical_ms(ms: i64) -> [u8; 24] {
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put_civil(&mut text, ms.div_euclid(1_000));
    put_digits(&mut text[20..23], ms.rem_euclid(1_000));
    text
}

/// As [`format_ms`], at the end of `out`.
pub(crate) fn push_ms(out: &mut Vec<u8>, ms: i64) {
    if (0..LAST_YEAR_MS).contains(&ms) {
        out.extend_from_slice(&format_canonical_ms(ms));
    } else {
        out.extend_from_slice(format_ms(ms).as_bytes());
    }
}

/// `2019-11-24T00:00:02Z`, as jiff prints a whole second. `None` outside of the years 1970 to 9998.
pub(crate) fn format_canonical_s(second: i64) -> Option<[u8; 20]> {
    if !(0..LAST_YEAR_MS / 1_000).contains(&second) {
        return None;
    }
    let mut text = *b"0000-00-00T00:00:00Z";
    put_civil(&mut text, second);
    Some(text)
}

fn put_civil(text: &mut [u8], second: i64) {
    let (year, month, day) = civil_of_days(second / 86_400);
    put_digits(&mut text[0..4], year);
    put_digits(&mut text[5..7], month);
    put_digits(&mut text[8..10], day);
    put_digits(&mut text[11..13], second / 3_600 % 24);
    put_digits(&mut text[14..16], second / 60 % 60);
    put_digits(&mut text[17..19], second % 60);
}

fn put_digits(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

/// Reads the form that [`format_ms`] writes for the years 1970 to 9998, and no other.
#[must_use]
pub(crate) fn parse_canonical_ms(text: &str) -> Option<i64> {
    let text: &[u8; 24] = text.as_bytes().try_into().ok()?;
    if (text[19], text[23]) != (b'.', b'Z') {
        return None;
    }
    Some(parse_civil(text)? * 1_000 + digits(&text[20..23])?)
}

/// Reads the form that [`format_canonical_s`] writes, and no other.
#[must_use]
pub(crate) fn parse_canonical_s(text: &str) -> Option<i64> {
    let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
    if text[19] != b'Z' {
        return None;
    }
    parse_civil(text)
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0_i64, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

/// Seconds since the epoch at `2019-11-24T00:00:02`, the first 19 bytes of `text`.
fn parse_civil(text: &[u8]) -> Option<i64> {
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| text[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (digits(&text[0..4])?, digits(&text[5..7])?, digits(&text[8..10])?);
    let (hour, minute, second) = (digits(&text[11..13])?, digits(&text[14..16])?, digits(&text[17..19])?);
    if !(1970..9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_of_civil(year, month, day);
    // A day that no month has comes back as another.
    if civil_of_days(days) != (year, month, day) {
        return None;
    }
    Some(days * (DAY_MS / 1_000) + (hour * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms"), for years from 1970 on.
fn days_of_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day; the reverse of [`days_of_civil`].
fn civil_of_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
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

    #[test]
    fn the_quick_ways_say_what_jiff_says() {
        let jiffs = |ms: i64| format!("{:.3}", Timestamp::from_millisecond(ms).unwrap());
        // Steps that meet every day of the year and every hour of the day.
        for ms in (0..LAST_YEAR_MS).step_by(90_061_001 * 7).chain([LAST_YEAR_MS - 1]) {
            assert_eq!(format_ms(ms), jiffs(ms));
            assert_eq!(parse_canonical_ms(&jiffs(ms)), Some(ms));
            let second = ms / 1_000;
            let whole = Timestamp::from_second(second).unwrap().to_string();
            assert_eq!(format_canonical_s(second).as_ref().map(<[u8; 20]>::as_slice), Some(whole.as_bytes()));
            assert_eq!(parse_canonical_s(&whole), Some(second));
        }
        for ms in [-1, LAST_YEAR_MS, i64::MIN, i64::MAX] {
            assert!(parse_canonical_ms(&format_ms(ms)).is_none_or(|read| read == ms));
        }
        for month in 0..=13 {
            for day in 0..=32 {
                for year in [1969, 1970, 2000, 2023, 2024, 2100, 9999] {
                    let text = format!("{year:04}-{month:02}-{day:02}T23:59:59.999Z");
                    let expected = text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond);
                    assert_eq!(parse_canonical_ms(&text), expected.filter(|_| (1970..9999).contains(&year)), "{text}");
                }
            }
        }
        for text in [
            "2019-11-24T24:00:00.000Z",
            "2019-11-24T00:60:00.000Z",
            "2019-11-24 00:00:00.000Z",
            "+019-11-24T00:00:00.000Z",
        ] {
            assert_eq!(parse_canonical_ms(text), None, "{text}");
            assert_eq!(parse_canonical_s(&text.replace(".000", "")), None, "{text}");
        }
        assert_eq!((format_canonical_s(-1), format_canonical_s(LAST_YEAR_MS / 1_000)), (None, None));
    }

    #[test]
    fn what_no_calendar_holds_becomes_its_nearest_end() {
        assert!(format_ms(i64::MIN).starts_with("-009999-01-02T"), "{}", format_ms(i64::MIN));
        assert!(format_ms(i64::MAX).starts_with("9999-12-30T"), "{}", format_ms(i64::MAX));
    }
}
