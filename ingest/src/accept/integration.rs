//! Pure: no I/O, no clock, no async.
//!
//! What connected platforms report, payload as they sent it.

use std::borrow::Cow;

use neonhub_schemas::{Envelope, Kind};

use super::members::Members;
use super::object::stored_object;
use super::rejection::Fault;
use super::text;

pub(super) fn complete<'a>(
    mut event: Envelope<'a>,
    platform: &'a str,
    members: &Members<'a>,
) -> Result<Envelope<'a>, Fault> {
    event.kind = Kind::Integration;
    event.name = text::required_name(members, "type")?;
    event.platform = Some(Cow::Borrowed(platform));
    event.properties = stored_object(members.get("payload"), "payload", &[], &[])?.text;
    Ok(event)
}
