//! Pure: no I/O, no clock, no async.
//!
//! Numbers as JSON text: decimals keep every digit, which a double would not.

use neonhub_schemas::metric::Number;
use serde_json::value::RawValue;

/// `None` where JSON has no such number.
#[must_use]
pub fn raw_number(number: Number) -> Option<Box<RawValue>> {
    let text = match number {
        Number::Integer(integer) => integer.to_string(),
        Number::Decimal(decimal) => decimal.to_string(),
        Number::Double(double) => serde_json::Number::from_f64(double)?.to_string(),
    };
    RawValue::from_string(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use neonhub_schemas::Micros;

    #[test]
    fn decimals_keep_every_digit() {
        let text = |number| raw_number(number).map(|raw| raw.get().to_owned());
        let large = Micros::from_raw(12_345_678_901_234_567_890_123_456);
        assert_eq!(text(Number::Decimal(large)).as_deref(), Some("12345678901234567890.123456"));
        assert_eq!(text(Number::Integer(u64::MAX)).as_deref(), Some("18446744073709551615"));
        assert_eq!(text(Number::Double(0.25)).as_deref(), Some("0.25"));
        assert_eq!(text(Number::Double(f64::NAN)), None);
    }
}
