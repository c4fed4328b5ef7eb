//! Pure: no I/O, no clock, no async.
//!
//! The form that [`Envelope::encode`] writes, read without looking each name up: members in their order, no blanks, no
//! escapes in the strings before `properties`. Anything else is left to serde; what is read here is what serde would read.

use std::borrow::Cow;

use super::envelope::Envelope;
use super::kind::Kind;
use crate::scanner::Scanner;
use crate::time;

/// `None`: not this form, or not an event.
pub(crate) fn decode(bytes: &[u8]) -> Option<Envelope<'_>> {
    let mut scanner = Scanner::new(bytes)?;
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
    scanner.end()?;
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
