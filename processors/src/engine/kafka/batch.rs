//! Messages copied once, into one buffer; keys, values and headers of the records are slices of it.

use std::ops::Range;

use bytes::Bytes;
use neonhub_schemas::codec::header;
use neonhub_schemas::record::{Headers, Record, TopicPartition};
use neonhub_schemas::topics::TRANSACTION_END_KEY;
use rdkafka::Timestamp;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

use crate::engine::ports::Part;

#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: Vec<Copied>,
    headers: Vec<(&'static str, Range<usize>)>,
}

/// A message whose bytes are ranges of the batch's buffer, and its headers one of the batch's headers.
struct Copied {
    place: TopicPartition,
    offset: i64,
    timestamp_ms: i64,
    key: Range<usize>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

impl Batch {
    /// With room for so many bytes and messages.
    pub(super) fn with_capacity(bytes: usize, messages: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), messages: Vec::with_capacity(messages), headers: Vec::new() }
    }

    /// Messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn push(&mut self, place: TopicPartition, message: &BorrowedMessage<'_>, part: Part) {
        if message.payload().is_none() && message.key() == Some(TRANSACTION_END_KEY) {
            return;
        }
        let key = self.copy(message.key().unwrap_or_default());
        let value = message.payload().map(|payload| self.copy(payload));
        let first_header = self.headers.len();
        if part != Part::KeyAndValue
            && let Some(headers) = message.headers()
        {
            for header in headers.iter().filter(|header| part.wants(header.key)) {
                if let (Some(name), Some(value)) = (header::known(header.key), header.value) {
                    let value = self.copy(value);
                    self.headers.push((name, value));
                }
            }
        }
        let timestamp_ms = match message.timestamp() {
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) => ms,
            Timestamp::NotAvailable => 0,
        };
        let headers = first_header..self.headers.len();
        self.messages.push(Copied { place, offset: message.offset(), timestamp_ms, key, value, headers });
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// Leaves out the messages of partitions.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.messages.retain(|message| !partitions.contains(&message.place));
    }

    #[must_use]
    pub(super) fn finish(self) -> Vec<Record> {
        let bytes = Bytes::from(self.bytes);
        let headers_in = |range: Range<usize>| {
            let with_next = |headers: Headers, (name, value): &(&'static str, Range<usize>)| {
                headers.with(name, bytes.slice(value.clone()))
            };
            self.headers[range].iter().fold(Headers::new(), with_next)
        };
        let to_record = |message: Copied| Record {
            topic: message.place.topic,
            partition: message.place.partition,
            offset: u64::try_from(message.offset).unwrap_or(0),
            timestamp_ms: message.timestamp_ms,
            key: bytes.slice(message.key),
            value: message.value.map(|value| bytes.slice(value)),
            headers: headers_in(message.headers),
        };
        self.messages.into_iter().map(to_record).collect()
    }
}
