//! Pure: no I/O, no clock, no async.
//!
//! Acceptance: the bytes of a request become envelopes, or say why not. Nothing here panics on outside bytes, and
//! strings are borrowed from the body where JSON allows.

mod behavior;
mod body;
mod campaign;
mod dead_letters;
mod event;
mod instant;
mod integration;
mod members;
mod object;
mod pixel;
mod rejection;
mod text;
mod value;
mod walk;
mod webhook;

use neonhub_schemas::{Envelope, Kind};

pub use body::Body;
pub use dead_letters::{DeadLetters, STAGE};
pub use pixel::{PixelCall, pixel_body};
pub(crate) use rejection::shortened;
pub use rejection::{EventRejection, Reason, Refusal};

use crate::config::Limits;

/// Which door a request came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `POST /v1/track` and its five sisters: one behaviour event, its kind given by the path.
    Call(Kind),
    /// `POST /v1/batch`: behaviour events, each with its own `type`.
    Batch,
    /// `POST /v1/import`: as `Batch`, but historical: timestamps are taken as given.
    Import,
    /// `POST /v1/campaigns/events`: one event, an array, or a batch.
    Campaign,
    /// `POST /v1/integrations/{platform}/events`: one event, an array, or a batch.
    Integration { platform: &'a str },
    /// `POST /v1/integrations/{platform}/webhook`: one event as the platform sent and signed it.
    Webhook { platform: &'a str, message_id: &'a str, sent_at_ms: i64 },
}

impl Route<'_> {
    /// Whether a list of events may come by this door.
    pub(crate) fn takes_lists(self) -> bool {
        !matches!(self, Self::Call(_) | Self::Webhook { .. })
    }
}

/// Whose request it is, and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    pub workspace: &'a str,
    pub received_at_ms: i64,
}

/// What became of each event of a request that could be read.
#[derive(Debug)]
pub struct Acceptance<'a> {
    pub events: Vec<Envelope<'a>>,
    pub rejections: Vec<EventRejection<'a>>,
}

/// Reads a whole request. `random` gives the random bits of message ids for events that came without one.
///
/// # Errors
/// Nothing in the request can be used: it is not JSON, its batch is empty or too large.
pub fn accept<'a>(
    route: Route<'a>,
    bytes: &'a [u8],
    sender: Sender<'a>,
    limits: &Limits,
    random: &mut dyn FnMut() -> u128,
) -> Result<Acceptance<'a>, Refusal> {
    let body = Body::parse(route, bytes)?;
    accept_body(route, &body, sender, limits, random)
}

/// As [`accept`], for a body that was parsed before its sender was known (the write key may be inside it).
///
/// # Errors
/// As [`accept`].
pub fn accept_body<'a>(
    route: Route<'a>,
    body: &Body<'a>,
    sender: Sender<'a>,
    limits: &Limits,
    random: &mut dyn FnMut() -> u128,
) -> Result<Acceptance<'a>, Refusal> {
    let shared = event::Shared::read(route, body, sender, limits)?;
    let mut acceptance = Acceptance { events: Vec::with_capacity(body.event_count()), rejections: Vec::new() };
    for (index, (place, raw)) in body.events().enumerate() {
        match event::read_event(&shared, body, place, raw, random) {
            Ok(envelope) => acceptance.events.push(envelope),
            Err(fault) => acceptance.rejections.push(EventRejection {
                index,
                reason: fault.reason,
                field: place.field(&fault.field),
                detail: fault.detail,
                original: raw,
            }),
        }
    }
    Ok(acceptance)
}

#[cfg(test)]
mod tests;
