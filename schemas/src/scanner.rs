//! Pure: no I/O, no clock, no async.
//!
//! Reads JSON that our own encoders wrote: members in their order, no blanks, no escapes. `None` wherever the text has
//! another form; the caller then leaves it to serde, which decides whether it is right.

use serde::Deserialize as _;
use serde_json::value::RawValue;

pub(crate) struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        Some(Self { rest: std::str::from_utf8(bytes).ok()? })
    }

    pub fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    /// Whether `literal` comes next; if so, it is passed over.
    pub fn has(&mut self, literal: &str) -> bool {
        self.literal(literal).is_some()
    }

    /// To the closing quote. A string with an escape, or with what ought to be one, is not read here.
    pub fn string(&mut self) -> Option<&'a str> {
        let end = plain_text_length(self.rest.as_bytes())?;
        if self.rest.as_bytes()[end] != b'"' {
            return None;
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(text)
    }

    #[expect(clippy::option_option, reason = "absent is no failure")]
    pub fn optional(&mut self, member: &str) -> Option<Option<&'a str>> {
        if self.has(member) { self.string().map(Some) } else { Some(None) }
    }

    /// Digits without a leading zero.
    pub fn unsigned(&mut self) -> Option<u64> {
        let end = self.rest.bytes().position(|byte| !byte.is_ascii_digit())?;
        let (digits, rest) = self.rest.split_at(end);
        if digits.len() > 1 && digits.starts_with('0') {
            return None;
        }
        self.rest = rest;
        digits.parse().ok()
    }

    pub fn integer(&mut self) -> Option<i64> {
        let is_negative = self.has("-");
        let magnitude = i64::try_from(self.unsigned()?).ok()?;
        // serde takes -0 for a double.
        if is_negative { (magnitude != 0).then_some(-magnitude) } else { Some(magnitude) }
    }

    pub fn boolean(&mut self) -> Option<bool> {
        if self.has("true") {
            return Some(true);
        }
        self.literal("false").map(|()| false)
    }

    /// Any JSON value, as it stands.
    pub fn value(&mut self) -> Option<&'a str> {
        let mut values = serde_json::Deserializer::from_str(self.rest);
        let raw = <&'a RawValue>::deserialize(&mut values).ok()?;
        let text = raw.get();
        // serde drops the blanks in front of a value; this form has none.
        self.rest = self.rest.strip_prefix(text)?;
        Some(text)
    }

    /// The closing brace of the whole, and nothing after it.
    pub fn end(&self) -> Option<()> {
        (self.rest == "}").then_some(())
    }
}

/// Up to the first quote, backslash or control character, eight bytes at a time (Henry S. Warren, "Hacker's Delight", finding a
/// zero byte: of the marks only the lowest is sure, and it is the one that is wanted). `None` where there is none.
fn plain_text_length(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, _) = text.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zero_bytes(word ^ (ONES * u64::from(b'"')));
        let backslashes = zero_bytes(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let marks = (quotes | backslashes | controls) & HIGH_BITS;
        if marks != 0 {
            return Some(number * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let rest = words.len() * 8;
    let is_mark = |byte: &u8| *byte == b'"' || *byte == b'\\' || *byte < 0x20;
    text[rest..].iter().position(is_mark).map(|at| rest + at)
}

#[cfg(test)]
mod tests {
    use super::plain_text_length;

    #[test]
    fn plain_text_ends_where_each_byte_looked_at_says() {
        for mark in 0..=u8::MAX {
            for at in 0..20 {
                // Bytes that differ from a mark in one bit, and a mark after the one that counts.
                for filler in [b' ', b'!', b'#', b'[', b']', b'a', 0xa2, 0xff] {
                    let mut text = [filler; 27];
                    text[at] = mark;
                    text[24] = b'"';
                    let expected = text.iter().position(|byte| *byte == b'"' || *byte == b'\\' || *byte < 0x20);
                    assert_eq!(plain_text_length(&text), expected, "{mark:#x} at {at} in {filler:#x}");
                }
            }
        }
        assert_eq!(plain_text_length(b"no end here"), None);
    }
}
