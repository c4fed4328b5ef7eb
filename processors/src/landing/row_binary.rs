//! Pure: no I/O, no clock, no async.
//!
//! ClickHouse's RowBinary, as far as the tables need it (<https://clickhouse.com/docs/interfaces/formats/RowBinary>): numbers
//! are little-endian, strings have their length in front as LEB128, a nullable value a byte that says whether it is missing.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// A value of one column. `read` takes it off the front; `None`: the bytes are no such value.
pub(super) trait Column<'a>: Sized {
    fn write(&self, out: &mut Vec<u8>);
    fn read(bytes: &mut &'a [u8]) -> Option<Self>;
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Column<'_> for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(bytes: &mut &[u8]) -> Option<Self> {
                let (number, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(Self::from_le_bytes(*number))
            }
        })*
    };
}

numbers!(i8, u8, u32, i64, u64, i128);

impl Column<'_> for bool {
    fn write(&self, out: &mut Vec<u8>) {
        u8::from(*self).write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some(u8::read(bytes)? != 0)
    }
}

impl<'a, T: Column<'a>> Column<'a> for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_none().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        if bool::read(bytes)? { Some(None) } else { T::read(bytes).map(Some) }
    }
}

impl<'a> Column<'a> for &'a [u8] {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        out.extend_from_slice(self);
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        let length = read_length(bytes)?;
        let (value, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(value)
    }
}

impl Column<'_> for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_slice().write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        <&[u8]>::read(bytes).map(<[u8]>::to_vec)
    }
}

impl<'a> Column<'a> for Cow<'a, str> {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_bytes().write(out);
    }

    fn read(bytes: &mut &'a [u8]) -> Option<Self> {
        std::str::from_utf8(<&[u8]>::read(bytes)?).ok().map(Cow::Borrowed)
    }
}

impl Column<'_> for String {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_bytes().write(out);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        <Cow<'_, str>>::read(bytes).map(Cow::into_owned)
    }
}

impl Column<'_> for BTreeMap<String, String> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for (key, value) in self {
            key.write(out);
            value.write(out);
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        (0..read_length(bytes)?).map(|_| Some((String::read(bytes)?, String::read(bytes)?))).collect()
    }
}

fn write_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(low_bits(length) | 0x80);
        length >>= 7;
    }
    out.push(low_bits(length));
}

#[expect(clippy::cast_possible_truncation, reason = "seven bits")]
fn low_bits(length: usize) -> u8 {
    (length & 0x7f) as u8
}

fn read_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = u8::read(bytes)?;
        length |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_clickhouses_form() {
        let mut out = Vec::new();
        "é".to_owned().write(&mut out);
        Some(-2_i128).write(&mut out);
        None::<u64>.write(&mut out);
        0x0102_0304_u32.write(&mut out);
        BTreeMap::from([("a".to_owned(), "b".to_owned())]).write(&mut out);
        let mut expected = vec![2, 0xc3, 0xa9, 0, 0xfe];
        expected.extend([0xff; 15]);
        expected.extend([1, 4, 3, 2, 1, 1, 1, b'a', 1, b'b']);
        assert_eq!(out, expected);
    }

    #[test]
    fn lengths_of_every_size_are_read_back_and_cut_ones_are_not() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 70_000] {
            let text = "x".repeat(length);
            let mut out = Vec::new();
            text.write(&mut out);
            assert_eq!(String::read(&mut out.as_slice()), Some(text));
            out.pop();
            assert_eq!(String::read(&mut out.as_slice()), None);
        }
        assert_eq!(read_length(&mut [0xff; 20].as_slice()), None);
    }
}
