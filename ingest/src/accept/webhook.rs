//! Pure: no I/O, no clock, no async.
//!
//! What a platform reports by webhook, in the shape that Standard Webhooks 1.0.0 asks for: `type`, `timestamp`, `data`.

use std::borrow::Cow;

use neonhub_schemas::{Envelope, Kind};

use super::members::Members;
use super::object::stored_object;
use super::rejection::{Fault, Reason};
use super::walk::check_object;
use super::{instant, text};

/// What the request's path and headers say of the event.
pub(super) struct Delivery<'a> {
    pub(super) platform: &'a str,
    pub(super) message_id: &'a str,
    pub(super) sent_at_ms: i64,
}

/// `whole` is the body's text, which is the payload where there is no `data` object.
pub(super) fn complete<'a>(
    mut event: Envelope<'a>,
    delivery: Delivery<'a>,
    members: &Members<'a>,
    whole: &'a str,
) -> Result<Envelope<'a>, Fault> {
    if delivery.message_id.len() > text::LONGEST_ID {
        let detail = format!("at most {} bytes are allowed", text::LONGEST_ID);
        return Err(Fault::new(Reason::InvalidHeader, "webhook-id", detail));
    }
    event.kind = Kind::Integration;
    event.name = text::required_name(members, "type")?;
    event.platform = Some(Cow::Borrowed(delivery.platform));
    event.message_id = Cow::Borrowed(delivery.message_id);
    event.timestamp_ms = match members.get("timestamp") {
        Some(raw) => instant::in_range(instant::instant(raw, "timestamp")?, "timestamp", event.received_at_ms)?,
        None => delivery.sent_at_ms,
    };
    event.properties = match members.get("data") {
        Some(data) if data.get().starts_with('{') => stored_object(Some(data), "data", &[], &[])?.text,
        _ => {
            check_object(whole, &[])?;
            Cow::Borrowed(whole)
        }
    };
    Ok(event)
}
