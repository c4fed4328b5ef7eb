//! Pure: no I/O, no clock, no async.
//!
//! The form that [`Envelope::encode`] writes, read without looking each name up: members in their order, no blanks, no
//! escapes in the strings before `properties`. Anything else is left to serde; what is read here is what serde would read.

use std::borrow::Cow;

use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::envelope::Envelope;
use super::kind::Kind;
use crate::time;

/// `None`: not this form, or not an event.
pub(super) fn decode(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut scanner = Scanner { rest: std::str::from_utf8(bytes).ok()? };
    scanner.literal("{\"schema\":1,\"workspace\":\"")?;
    let workspace = scanner.string()?;
    scanner.literal(",\"message_id\":\"")?;
    let message_id = scanner.string()?;
    scanner.literal(",\"source\":\"")?;
    let source = scanner.string()?;
    scanner.literal(",\"kind\":\"")?;
    let text = scanner.string()?;
    let kind = Kind::behavior_from(text).or_else(|| Kind::campaign_from(text)).or_else(|| integration(text))?;
    if kind.source().as_str() != source {
        return None;
    }
    scanner.literal(",\"name\":\"")?;
    let name = scanner.string()?;
    let user_id = scanner.optional(",\"user_id\":\"")?;
    let anonymous_id = scanner.optional(",\"anonymous_id\":\"")?;
    let group_id = scanner.optional(",\"group_id\":\"")?;
    let previous_id = scanner.optional(",\"previous_id\":\"")?;
    let session_id = scanner.optional(",\"session_id\":\"")?;
    let campaign = scanner.optional(",\"campaign\":\"")?;
    let platform = scanner.optional(",\"platform\":\"")?;
    let value = match scanner.optional(",\"value\":\"")? {
        None => None,
        Some(text) => Some(text.parse().ok()?),
    };
    scanner.literal(",\"timestamp\":\"")?;
    let timestamp_ms = time::parse_canonical_ms(scanner.string()?)?;
    scanner.literal(",\"received_at\":\"")?;
    let received_at_ms = time::parse_canonical_ms(scanner.string()?)?;
    scanner.literal(",\"properties\":")?;
    let properties = scanner.value()?;
    scanner.literal(",\"context\":")?;
    let context = scanner.value()?;
    if scanner.rest != "}" {
        return None;
    }
    let owned = |text: Option<_>| text.map(Cow::Borrowed);
    Some(Envelope {
        workspace: Cow::Borrowed(workspace),
        message_id: Cow::Borrowed(message_id),
        kind,
        name: Cow::Borrowed(name),
        user_id: owned(user_id),
        anonymous_id: owned(anonymous_id),
        group_id: owned(group_id),
        previous_id: owned(previous_id),
        session_id: owned(session_id),
        campaign: owned(campaign),
        platform: owned(platform),
        value,
        timestamp_ms,
        received_at_ms,
        properties: Cow::Borrowed(properties),
        context: Cow::Borrowed(context),
    })
}

fn integration(text: &str) -> Option<Kind> {
    (text == Kind::Integration.as_str()).then_some(Kind::Integration)
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn literal(&mut self, literal: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    /// To the closing quote. A string with an escape, or with what ought to be one, is not read here.
    fn string(&mut self) -> Option<&'a str> {
        let end = self.rest.bytes().position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)?;
        if self.rest.as_bytes()[end] != b'"' {
            return None;
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Some(text)
    }

    #[expect(clippy::option_option, reason = "absent is no failure")]
    fn optional(&mut self, member: &str) -> Option<Option<&'a str>> {
        match self.rest.strip_prefix(member) {
            None => Some(None),
            Some(rest) => {
                self.rest = rest;
                self.string().map(Some)
            }
        }
    }

    /// Any JSON value, as it stands.
    fn value(&mut self) -> Option<&'a str> {
        let mut values = serde_json::Deserializer::from_str(self.rest);
        let raw = <&'a RawValue>::deserialize(&mut values).ok()?;
        let text = raw.get();
        // serde drops the blanks in front of a value; this form has none.
        self.rest = self.rest.strip_prefix(text)?;
        Some(text)
    }
}
