//! Pure: no I/O, no clock, no async.
//!
//! Fixed-point decimals: money and every other sum, as a count of millionths in an `i128`, so that adding in another
//! order gives the same bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SCALE: u32 = 6;
const ONE: i128 = 1_000_000;
/// Largest magnitude of a single value: 10¹⁸ units. 10¹⁴ such values still fit a sum of 38 digits, the width of
/// ClickHouse's `Decimal(38, 6)`.
const LARGEST: i128 = 1_000_000_000_000_000_000 * ONE;

/// A decimal with six places, exact. Units are whatever the event's value is in (a currency, seconds, points).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(i128);

/// Why a text is not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MicrosError {
    #[error("is not a decimal number")]
    NotANumber,
    #[error("is larger than 10^18")]
    OutOfRange,
}

impl Micros {
    pub const ZERO: Self = Self(0);

    #[must_use]
    pub const fn from_raw(micros: i128) -> Self {
        Self(micros)
    }

    #[must_use]
    pub const fn raw(self) -> i128 {
        self.0
    }

    /// `None` when the sum leaves the range of 38 digits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The nearest double: for ratios and plots, never for sums.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 53 bits")]
    pub fn to_f64(self) -> f64 {
        let whole = self.0 / ONE;
        let rest = self.0 % ONE;
        whole as f64 + rest as f64 / ONE as f64
    }
}

/// Reads a JSON number or decimal text (`12`, `-0.5`, `1.5e-3`), rounded half to even at the sixth decimal.
impl FromStr for Micros {
    type Err = MicrosError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(raw) = parse_short(text) {
            return Ok(Self(i128::from(raw)));
        }
        let (negative, rest) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(place) => (&rest[..place], parse_exponent(&rest[place + 1..])?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() || mantissa.ends_with('.') {
            return Err(MicrosError::NotANumber);
        }
        if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return Err(MicrosError::NotANumber);
        }
        // The value is 0.d₁d₂d₃… × 10^point over the significant digits.
        let digits = || whole.bytes().chain(fraction.bytes());
        let leading_zeros = digits().take_while(|digit| *digit == b'0').count();
        let significant = whole.len() + fraction.len() - leading_zeros;
        if significant == 0 {
            return Ok(Self::ZERO);
        }
        let point = i64::try_from(whole.len()).unwrap_or(i64::MAX) - i64::try_from(leading_zeros).unwrap_or(i64::MAX);
        let kept = point.saturating_add(exponent).saturating_add(i64::from(SCALE));
        if kept > 25 {
            return Err(MicrosError::OutOfRange);
        }
        let mut magnitude: i128 = 0;
        let mut first_dropped = 0;
        let mut dropped_more = false;
        let mut read: i64 = 0;
        for digit in digits().skip(leading_zeros) {
            if read < kept {
                magnitude = magnitude * 10 + i128::from(digit - b'0');
            } else if read == kept {
                first_dropped = digit - b'0';
            } else {
                dropped_more |= digit != b'0';
            }
            read += 1;
        }
        for _ in read..kept.max(read) {
            magnitude *= 10;
        }
        if kept < 0 {
            first_dropped = 0;
        }
        let round_up = first_dropped > 5 || first_dropped == 5 && (dropped_more || magnitude % 2 == 1);
        magnitude += i128::from(round_up);
        if magnitude > LARGEST {
            return Err(MicrosError::OutOfRange);
        }
        Ok(Self(if negative { -magnitude } else { magnitude }))
    }
}

/// At most twelve digits, a point and at most six more: nearly all values, and no 128-bit arithmetic.
fn parse_short(text: &str) -> Option<i64> {
    let (is_negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut magnitude = 0_i64;
    let (mut whole, mut places) = (0, None);
    for byte in digits {
        match (byte, &mut places) {
            (b'0'..=b'9', None) => whole += 1,
            (b'0'..=b'9', Some(places)) => *places += 1,
            (b'.', None) => {
                places = Some(0_usize);
                continue;
            }
            _ => return None,
        }
        if whole > 12 || places > Some(6) {
            return None;
        }
        magnitude = magnitude * 10 + i64::from(byte - b'0');
    }
    let missing = match places {
        None if whole > 0 => 6,
        Some(places @ 1..=6) => 6 - places,
        _ => return None,
    };
    for _ in 0..missing {
        magnitude *= 10;
    }
    Some(if is_negative { -magnitude } else { magnitude })
}

fn parse_exponent(text: &str) -> Result<i64, MicrosError> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(MicrosError::NotANumber);
    }
    let magnitude = digits.parse::<i64>().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    Ok(if text.starts_with('-') { -magnitude } else { magnitude })
}

/// Shortest exact decimal: `12`, `-0.5`, `0.000001`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        // Division of 128 bits is slow, and nearly no number needs it.
        let (whole, mut rest) = match u64::try_from(magnitude) {
            Ok(small) => (u128::from(small / 1_000_000), small % 1_000_000),
            Err(_) => (magnitude / ONE.unsigned_abs(), (magnitude % ONE.unsigned_abs()) as u64),
        };
        match u64::try_from(whole) {
            Ok(small) => write!(f, "{small}")?,
            Err(_) => write!(f, "{whole}")?,
        }
        if rest == 0 {
            return Ok(());
        }
        let mut fraction = *b".000000";
        for digit in fraction[1..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let length = fraction.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
        // A point and digits are ASCII.
        f.write_str(std::str::from_utf8(&fraction[..length]).unwrap_or_default())
    }
}

/// On the wire a decimal is a string, so that no reader squeezes it through a double.
impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Micros;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal as a string")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Micros, E> {
                parse_sum(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Reads back what [`fmt::Display`] wrote; sums may be larger than a single value.
pub(crate) fn parse_sum(text: &str) -> Result<Micros, MicrosError> {
    if let Ok(value) = text.parse::<Micros>() {
        return Ok(value);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > SCALE as usize {
        return Err(MicrosError::NotANumber);
    }
    format!("{whole}{fraction:0<6}").parse::<i128>().map(Micros).map_err(|_| MicrosError::NotANumber)
}

impl schemars::JsonSchema for Micros {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Decimal".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": r"^-?[0-9]+(\.[0-9]{1,6})?$",
            "description": "exact decimal with at most six places"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> i128 {
        text.parse::<Micros>().unwrap().raw()
    }

    #[test]
    fn rounds_half_to_even_at_the_sixth_decimal() {
        assert_eq!(raw("0.1234565"), 123_456);
        assert_eq!(raw("0.1234575"), 123_458);
        assert_eq!(raw("0.12345650001"), 123_457);
        assert_eq!(raw("-0.1234565"), -123_456);
        assert_eq!(raw("0.0000005"), 0);
        assert_eq!(raw("0.0000015"), 2);
        assert_eq!(raw("0.00000051"), 1);
        assert_eq!(raw("0.00000005"), 0);
    }

    #[test]
    fn reads_every_form_of_a_json_number() {
        assert_eq!(raw("19.99"), 19_990_000);
        assert_eq!(raw("1.5e3"), 1_500_000_000);
        assert_eq!(raw("15E-1"), 1_500_000);
        assert_eq!(raw("0"), 0);
        assert_eq!(raw("-0.0"), 0);
        assert_eq!(raw("1e18"), LARGEST);
        assert_eq!(raw("0.000001e12"), 1_000_000 * ONE);
        assert_eq!(raw("1e-400"), 0);
    }

    #[test]
    fn short_decimals_are_read_the_quick_way_and_mean_the_same() {
        for text in ["0", "00", "7", "-7", "1.5", "-0.000001", "999999999999.999999", ".5", "-.5", "000000000001.10"] {
            // A sign in front keeps the quick way out.
            let slow: Micros =
                text.strip_prefix('-').map_or_else(|| format!("+{text}"), |_| format!("{text}e0")).parse().unwrap();
            assert_eq!(parse_short(text).map(i128::from), Some(slow.raw()), "{text}");
        }
        for text in ["", "-", ".", "1.", "-.", "1.1234567", "1234567890123", "1e3", "1.2.3", "+1", "--1", "x"] {
            assert_eq!(parse_short(text), None, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_finite_value() {
        for text in ["NaN", "inf", "-Infinity", "", "-", ".", "1.", "1e", "1e+", "0x10", "1_000", " 1", "--1", "1e5e5"]
        {
            assert_eq!(text.parse::<Micros>(), Err(MicrosError::NotANumber), "{text}");
        }
        for text in
            ["1.1e18", "1e400", "9999999999999999999999999999999999999999999", "-1e19", "1e99999999999999999999"]
        {
            assert_eq!(text.parse::<Micros>(), Err(MicrosError::OutOfRange), "{text}");
        }
    }

    #[test]
    fn prints_the_shortest_exact_decimal_and_reads_it_back() {
        for text in ["0", "1", "-1", "0.5", "-0.000001", "19.99", "1000000000000000000"] {
            assert_eq!(text.parse::<Micros>().unwrap().to_string(), text);
        }
        let sum = Micros::from_raw(LARGEST * 1_000 + 1);
        let text = serde_json::to_string(&sum).unwrap();
        assert_eq!(serde_json::from_str::<Micros>(&text).unwrap(), sum);
    }

    #[test]
    fn signs_and_zeros_of_any_size_are_read() {
        assert_eq!(raw("+1.5"), 1_500_000);
        assert_eq!(raw("0e400"), 0);
        assert_eq!(raw("000.000e30"), 0);
    }

    #[test]
    fn on_the_wire_it_is_text_with_six_decimals_at_most() {
        let read = serde_json::from_str::<Micros>;
        assert!(read("1.5").unwrap_err().to_string().contains("expected a decimal as a string"));
        assert_eq!(read(r#""1000000000000000001.5""#).unwrap().raw(), LARGEST + ONE + ONE / 2);
        assert!(read(r#""1000000000000000001.1234567""#).is_err());
    }
}
