//! Pure: no I/O, no clock, no async.
//!
//! The envelope around every event and its JSON codec. Strings are borrowed from the record where JSON allows;
//! `properties` and `context` stay raw text until somebody names a field in them.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::canonical;
use super::kind::{Kind, Source};
use crate::codec::header;
use crate::micros::Micros;
use crate::record::{Headers, NewRecord};
use crate::time;

/// The version this code writes. Older ones still decode (see `golden/`); newer ones are refused.
pub const SCHEMA_VERSION: u32 = 1;

/// One event. `timestamp_ms` is event time, corrected for the client's clock; `received_at_ms` is ours.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope<'a> {
    pub workspace: Cow<'a, str>,
    pub message_id: Cow<'a, str>,
    pub kind: Kind,
    /// The track event's name, the page's or screen's name, the integration's event type, else the kind.
    pub name: Cow<'a, str>,
    pub user_id: Option<Cow<'a, str>>,
    pub anonymous_id: Option<Cow<'a, str>>,
    pub group_id: Option<Cow<'a, str>>,
    /// `alias` only: the id the user had before.
    pub previous_id: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    /// The campaign: stated by campaign events, found in UTM parameters on behaviour.
    pub campaign: Option<Cow<'a, str>>,
    /// The platform of an integration event.
    pub platform: Option<Cow<'a, str>>,
    /// What the event is worth or costs, where its kind has such a thing (conversion, spend, track's revenue).
    pub value: Option<Micros>,
    pub timestamp_ms: i64,
    pub received_at_ms: i64,
    /// A JSON object: properties, or traits for identify and group, or an integration's payload.
    pub properties: Cow<'a, str>,
    /// A JSON object.
    pub context: Cow<'a, str>,
}

/// Why bytes are not an envelope.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    #[error("schema version {found} is newer than {SCHEMA_VERSION}: upgrade this process first")]
    Newer { found: u32 },
    #[error("kind `{kind}` does not belong to source `{source_name}`")]
    Mismatch { kind: &'static str, source_name: &'static str },
}

#[derive(Deserialize)]
struct Wire<'a> {
    schema: u32,
    #[serde(borrow)]
    workspace: Cow<'a, str>,
    #[serde(borrow)]
    message_id: Cow<'a, str>,
    source: Source,
    kind: Kind,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    anonymous_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    group_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    previous_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    session_id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    campaign: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    platform: Option<Cow<'a, str>>,
    #[serde(default)]
    value: Option<Micros>,
    #[serde(with = "time::rfc3339")]
    timestamp: i64,
    #[serde(with = "time::rfc3339")]
    received_at: i64,
    #[serde(borrow)]
    properties: &'a RawValue,
    #[serde(borrow)]
    context: &'a RawValue,
}

impl<'a> Envelope<'a> {
    #[must_use]
    pub fn source(&self) -> Source {
        self.kind.source()
    }

    /// Who did it: the anonymous id where there is one (so that the events before and after a login stay together),
    /// else the user, else the message itself. An alias goes where the id it renames has its events.
    #[must_use]
    pub fn actor(&self) -> &str {
        let previous = if self.kind == Kind::Alias { self.previous_id.as_deref() } else { None };
        let ids = [previous, self.anonymous_id.as_deref(), self.user_id.as_deref()];
        ids.into_iter().flatten().find(|id| !id.is_empty()).unwrap_or(&self.message_id)
    }

    /// The record's key, `workspace|actor`: all events of an actor stay in order in one partition.
    #[must_use]
    pub fn key(&self) -> Bytes {
        let (workspace, actor) = (self.workspace.as_bytes(), self.actor().as_bytes());
        Bytes::from([workspace, b"|", actor].concat())
    }

    /// # Errors
    /// The bytes are no event of a version that this code knows.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        canonical::decode(bytes).map_or_else(|| Self::decode_any(bytes), Ok)
    }

    /// In any form of JSON.
    pub(crate) fn decode_any(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let wire: Wire<'a> = serde_json::from_slice(bytes)?;
        if wire.schema > SCHEMA_VERSION {
            return Err(DecodeError::Newer { found: wire.schema });
        }
        if wire.kind.source() != wire.source {
            return Err(DecodeError::Mismatch { kind: wire.kind.as_str(), source_name: wire.source.as_str() });
        }
        Ok(Self {
            workspace: wire.workspace,
            message_id: wire.message_id,
            kind: wire.kind,
            name: wire.name,
            user_id: wire.user_id,
            anonymous_id: wire.anonymous_id,
            group_id: wire.group_id,
            previous_id: wire.previous_id,
            session_id: wire.session_id,
            campaign: wire.campaign,
            platform: wire.platform,
            value: wire.value,
            timestamp_ms: wire.timestamp,
            received_at_ms: wire.received_at,
            properties: Cow::Borrowed(wire.properties.get()),
            context: Cow::Borrowed(wire.context.get()),
        })
    }

    /// The JSON value of the record. Raw parts are copied as they are.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(384 + self.properties.len() + self.context.len());
        out.extend_from_slice(BEFORE_WORKSPACE);
        push_rest_of_text(&mut out, &self.workspace);
        out.extend_from_slice(BEFORE_MESSAGE_ID);
        push_rest_of_text(&mut out, &self.message_id);
        push_text(&mut out, "source", Some(self.source().as_str()));
        push_text(&mut out, "kind", Some(self.kind.as_str()));
        push_text(&mut out, "name", Some(&self.name));
        push_text(&mut out, "user_id", self.user_id.as_deref());
        push_text(&mut out, "anonymous_id", self.anonymous_id.as_deref());
        push_text(&mut out, "group_id", self.group_id.as_deref());
        push_text(&mut out, "previous_id", self.previous_id.as_deref());
        push_text(&mut out, "session_id", self.session_id.as_deref());
        push_text(&mut out, "campaign", self.campaign.as_deref());
        push_text(&mut out, "platform", self.platform.as_deref());
        push_text(&mut out, "value", self.value.map(|value| value.to_string()).as_deref());
        push_time(&mut out, "timestamp", self.timestamp_ms);
        push_time(&mut out, "received_at", self.received_at_ms);
        out.extend_from_slice(b",\"properties\":");
        out.extend_from_slice(self.properties.as_bytes());
        out.extend_from_slice(b",\"context\":");
        out.extend_from_slice(self.context.as_bytes());
        out.push(b'}');
        out
    }

    /// The headers of the record whose value is what [`Self::encode`] made of this event; they share its bytes.
    #[must_use]
    pub fn headers(&self, value: &Bytes) -> Headers {
        let workspace_at = BEFORE_WORKSPACE.len();
        let message_id_at = workspace_at + self.workspace.len() + 1 + BEFORE_MESSAGE_ID.len();
        let headers = Headers::new()
            .with(header::SCHEMA, Bytes::from_static(b"1"))
            .with(header::WORKSPACE, shared(value, workspace_at, &self.workspace))
            .with(header::MESSAGE_ID, shared(value, message_id_at, &self.message_id));
        match &self.session_id {
            Some(session) => headers.with(header::SESSION, format!("{session}@{}", self.timestamp_ms)),
            None => headers,
        }
    }

    /// The record for `raw.*`: the key chooses the partition.
    #[must_use]
    pub fn to_raw_record(&self) -> NewRecord {
        let value = Bytes::from(self.encode());
        NewRecord {
            topic: self.source().raw_topic(),
            partition: None,
            key: self.key(),
            headers: self.headers(&value),
            value: Some(value),
            timestamp_ms: self.received_at_ms,
        }
    }
}

/// How every value begins.
const BEFORE_WORKSPACE: &[u8] = b"{\"schema\":1,\"workspace\":\"";
const BEFORE_MESSAGE_ID: &[u8] = b",\"message_id\":\"";

/// A part of the value where it stands there as it is, without escapes; else a copy.
fn shared(value: &Bytes, at: usize, text: &str) -> Bytes {
    let place = at..at + text.len();
    if value.get(place.clone()) == Some(text.as_bytes()) {
        value.slice(place)
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
}

fn push_text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    let Some(value) = value else { return };
    push_name(out, name);
    push_rest_of_text(out, value);
}

fn push_time(out: &mut Vec<u8>, name: &str, ms: i64) {
    push_name(out, name);
    time::push_ms(out, ms);
    out.push(b'"');
}

/// What follows the opening quote.
fn push_rest_of_text(out: &mut Vec<u8>, text: &str) {
    let is_escaped = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    // All bytes are looked at, with no way out: the compiler takes many at once.
    if !text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    out.pop();
    // Writing a string into memory cannot fail.
    let _infallible = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_files_of_every_version_decode_and_the_newest_encodes_to_the_same_bytes() {
        let cases = [
            include_str!("../../golden/envelope-v1-track.json"),
            include_str!("../../golden/envelope-v1-campaign.json"),
            include_str!("../../golden/envelope-v1-integration.json"),
        ];
        for golden in cases {
            let golden = golden.trim_end();
            let envelope = Envelope::decode(golden.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(envelope.encode()).unwrap(), golden);
        }
    }

    #[test]
    fn the_quick_way_reads_what_serde_reads() {
        let goldens = [
            include_str!("../../golden/envelope-v1-track.json"),
            include_str!("../../golden/envelope-v1-campaign.json"),
            include_str!("../../golden/envelope-v1-integration.json"),
        ];
        for golden in goldens.map(str::trim_end).map(str::as_bytes) {
            assert_eq!(canonical::decode(golden), Envelope::decode_any(golden).ok());
            let mut read = 0;
            for at in 0..golden.len() {
                for byte in [b'"', b'\\', b' ', b'{', b'}', b',', b'0', b'x', 0, 0xff] {
                    let changed = [&golden[..at], &[byte], &golden[at + 1..]].concat();
                    let longer = [&golden[..at], &[byte], &golden[at..]].concat();
                    let shorter = [&golden[..at], &golden[at + 1..]].concat();
                    for bytes in [changed, longer, shorter] {
                        let Some(quick) = canonical::decode(&bytes) else { continue };
                        assert_eq!(
                            Some(quick),
                            Envelope::decode_any(&bytes).ok(),
                            "{:?}",
                            String::from_utf8_lossy(&bytes)
                        );
                        read += 1;
                    }
                }
            }
            assert!(read > 500, "{read}");
        }
    }

    #[test]
    fn headers_say_what_the_value_says_also_where_it_is_escaped() {
        let golden = include_str!("../../golden/envelope-v1-track.json");
        for (workspace, message_id) in
            [("acme", "m-1"), ("a\"b", "m-1"), ("acme", "\\m\n"), ("\u{1}", "\u{7f}é"), ("", "")]
        {
            let mut event = Envelope::decode(golden.as_bytes()).unwrap();
            (event.workspace, event.message_id) = (workspace.into(), message_id.into());
            let record = event.to_raw_record();
            assert_eq!(record.headers.get(header::WORKSPACE).unwrap(), workspace);
            assert_eq!(record.headers.get(header::MESSAGE_ID).unwrap(), message_id);
            let value = record.value.unwrap();
            assert_eq!(Envelope::decode(&value).unwrap(), event);
        }
    }

    #[test]
    fn newer_versions_and_wrong_families_are_refused() {
        let golden = include_str!("../../golden/envelope-v1-track.json");
        let newer = golden.replacen("\"schema\":1", "\"schema\":2", 1);
        assert!(matches!(Envelope::decode(newer.as_bytes()), Err(DecodeError::Newer { found: 2 })));
        let mixed = golden.replacen("\"source\":\"behavior\"", "\"source\":\"campaign\"", 1);
        assert!(matches!(Envelope::decode(mixed.as_bytes()), Err(DecodeError::Mismatch { .. })));
    }

    #[test]
    fn the_key_is_never_empty() {
        let golden = include_str!("../../golden/envelope-v1-track.json");
        let mut envelope = Envelope::decode(golden.as_bytes()).unwrap();
        assert_eq!(envelope.key(), "acme|anon-1");
        envelope.anonymous_id = None;
        assert_eq!(envelope.key(), "acme|user-1");
        envelope.user_id = Some("".into());
        assert_eq!(envelope.key(), "acme|m-1");
    }
}
