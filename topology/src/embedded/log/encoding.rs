//! Pure: no I/O, no clock, no async.
//!
//! A record's value in the store: version (1 byte), checksum (4: the low half of XXH3 over all that follows), timestamp
//! (8), flags (1), header count (1), lengths of key and value (LEB128), then each header (name length, name, value
//! length, value), the key and the value. Integers are little-endian. The place in the log is the key, not the value.

use bytes::{BufMut, Bytes, BytesMut};
use neonhub_schemas::codec::header;
use neonhub_schemas::record::{Headers, NewRecord, Record, TopicPartition};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
const CHECKSUM_END: usize = 5;
const FIXED_END: usize = 15;
const TOMBSTONE: u8 = 1;

/// Why a stored value is not a record.
pub type Damage = &'static str;

/// One buffer holds the whole record; key, value and headers of the decoded record are slices of it.
pub fn encode(record: &NewRecord) -> Result<Bytes, String> {
    let value_len = record.value.as_ref().map_or(0, Bytes::len);
    let mut headers_len = 0;
    for (name, value) in record.headers.iter() {
        if header::known(name).is_none() {
            return Err(format!("unknown header {name:?}"));
        }
        headers_len += 6 + name.len() + value.len();
    }
    let header_count = u8::try_from(record.headers.len()).map_err(|_| "more than 255 headers".to_owned())?;
    let mut buffer = BytesMut::with_capacity(FIXED_END + 10 + headers_len + record.key.len() + value_len);
    buffer.put_u8(VERSION);
    buffer.put_u32_le(0);
    buffer.put_i64_le(record.timestamp_ms);
    buffer.put_u8(if record.value.is_none() { TOMBSTONE } else { 0 });
    buffer.put_u8(header_count);
    put_length(&mut buffer, record.key.len())?;
    put_length(&mut buffer, value_len)?;
    for (name, value) in record.headers.iter() {
        buffer.put_u8(u8::try_from(name.len()).map_err(|_| "header name over 255 bytes".to_owned())?);
        buffer.put_slice(name.as_bytes());
        put_length(&mut buffer, value.len())?;
        buffer.put_slice(value);
    }
    buffer.put_slice(&record.key);
    if let Some(value) = &record.value {
        buffer.put_slice(value);
    }
    let checksum = checksum(&buffer[CHECKSUM_END..]);
    buffer[1..CHECKSUM_END].copy_from_slice(&checksum.to_le_bytes());
    Ok(buffer.freeze())
}

/// Checks and decodes what [`encode`] wrote.
pub fn decode(place: TopicPartition, offset: u64, encoded: &Bytes) -> Result<Record, Damage> {
    if encoded.len() < FIXED_END {
        return Err("too short");
    }
    if encoded[0] != VERSION {
        return Err("unknown version");
    }
    if encoded[1..CHECKSUM_END] != checksum(&encoded[CHECKSUM_END..]).to_le_bytes() {
        return Err("checksum mismatch");
    }
    decode_checked(place, offset, encoded).ok_or("inconsistent lengths")
}

/// Decodes a value that is known to be whole.
pub fn decode_checked(place: TopicPartition, offset: u64, encoded: &Bytes) -> Option<Record> {
    let timestamp = encoded.get(CHECKSUM_END..CHECKSUM_END + 8)?.try_into().ok()?;
    let flags = *encoded.get(13)?;
    let header_count = *encoded.get(14)?;
    let mut at = FIXED_END;
    let key_len = take_length(encoded, &mut at)?;
    let value_len = take_length(encoded, &mut at)?;
    let mut headers = Headers::new();
    for _ in 0..header_count {
        let name_len = usize::from(*encoded.get(at)?);
        let name = encoded.get(at + 1..at + 1 + name_len)?;
        at += 1 + name_len;
        let value = take(encoded, &mut at, take_length)?;
        if let Some(known) = std::str::from_utf8(name).ok().and_then(header::known) {
            headers = headers.with(known, value);
        }
    }
    let key = take(encoded, &mut at, |_, _| Some(key_len))?;
    let value = take(encoded, &mut at, |_, _| Some(value_len))?;
    Some(Record {
        topic: place.topic,
        partition: place.partition,
        offset,
        timestamp_ms: i64::from_le_bytes(timestamp),
        key,
        value: (flags & TOMBSTONE == 0).then_some(value),
        headers,
    })
}

fn take(encoded: &Bytes, at: &mut usize, length: impl FnOnce(&[u8], &mut usize) -> Option<usize>) -> Option<Bytes> {
    let length = length(encoded, at)?;
    let end = at.checked_add(length).filter(|end| *end <= encoded.len())?;
    let slice = encoded.slice(*at..end);
    *at = end;
    Some(slice)
}

#[expect(clippy::cast_possible_truncation, reason = "half of the hash is the checksum")]
fn checksum(bytes: &[u8]) -> u32 {
    xxh3_64(bytes) as u32
}

fn put_length(buffer: &mut BytesMut, length: usize) -> Result<(), String> {
    let mut rest = u32::try_from(length).map_err(|_| "a part of a record is over 4 GiB".to_owned())?;
    while rest >= 0x80 {
        buffer.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    buffer.put_u8(rest as u8);
    Ok(())
}

fn take_length(encoded: &[u8], at: &mut usize) -> Option<usize> {
    let mut length = 0_u64;
    for shift in (0..35).step_by(7) {
        let byte = *encoded.get(*at)?;
        *at += 1;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(length).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use neonhub_schemas::topics::Topic;

    const PLACE: TopicPartition = TopicPartition { topic: Topic::RawBehavior, partition: 3 };

    fn sample(value: Option<Bytes>) -> NewRecord {
        NewRecord {
            topic: PLACE.topic,
            partition: Some(PLACE.partition),
            key: Bytes::from_static(b"shop|anna"),
            value,
            headers: Headers::new().with(header::SCHEMA, "1").with(header::MESSAGE_ID, "m".repeat(300)),
            timestamp_ms: -5,
        }
    }

    #[test]
    fn a_record_comes_back_whole() {
        for value in [None, Some(Bytes::new()), Some(Bytes::from(vec![7; 70_000]))] {
            let record = sample(value);
            let encoded = encode(&record).unwrap();
            let decoded = decode(PLACE, 9, &encoded).unwrap();
            assert_eq!((decoded.offset, decoded.timestamp_ms), (9, -5));
            assert_eq!((decoded.key, decoded.value, decoded.headers), (record.key, record.value, record.headers));
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_noticed() {
        let encoded = encode(&sample(Some(Bytes::from_static(b"{}")))).unwrap();
        for index in 0..encoded.len() {
            let mut damaged = encoded.to_vec();
            damaged[index] ^= 0x10;
            assert!(decode(PLACE, 0, &damaged.into()).is_err(), "byte {index}");
            assert!(decode(PLACE, 0, &encoded.slice(..index)).is_err(), "cut at {index}");
        }
    }
}
