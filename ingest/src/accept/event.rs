//! Pure: no I/O, no clock, no async.
//!
//! What every event has, whatever its family: size, ids, time, context.

use std::borrow::Cow;

use neonhub_schemas::{Envelope, Kind, ids};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::body::{Body, Shape};
use super::members::Members;
use super::object::{check_default, stored_object};
use super::rejection::{Fault, Reason, Refusal};
use super::{Route, Sender, behavior, campaign, instant, integration, text, webhook};
use crate::config::Limits;

/// Where an event stands in its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventPlace {
    pub(super) shape: Shape,
    pub(super) index: usize,
}

impl EventPlace {
    /// The event's field, counted from the body's top.
    pub(super) fn field(self, field: &str) -> Option<String> {
        let event = match self.shape {
            Shape::Single => String::new(),
            Shape::Array => format!("[{}]", self.index),
            Shape::Batch => format!("batch[{}]", self.index),
        };
        match (event.is_empty(), field.is_empty()) {
            (true, true) => None,
            (true, false) => Some(field.to_owned()),
            (false, true) => Some(event),
            (false, false) => Some(format!("{event}.{field}")),
        }
    }
}

/// What the events of a request share.
pub(super) struct Shared<'a, 'l> {
    route: Route<'a>,
    sender: Sender<'a>,
    limits: &'l Limits,
    sent_at_ms: Option<i64>,
    context: SmallVec<[(Cow<'a, str>, &'a RawValue); 8]>,
}

impl<'a, 'l> Shared<'a, 'l> {
    pub(super) fn read(
        route: Route<'a>,
        body: &Body<'a>,
        sender: Sender<'a>,
        limits: &'l Limits,
    ) -> Result<Self, Refusal> {
        let count = body.event_count();
        if count == 0 {
            return Err(Refusal::new(Reason::EmptyBatch, "the batch holds no event").at("batch"));
        }
        if count > limits.max_batch_events {
            let detail = format!("{count} events; at most {} are allowed in a request", limits.max_batch_events);
            return Err(Refusal::new(Reason::TooManyEvents, detail).at("batch"));
        }
        let mut shared = Self { route, sender, limits, sent_at_ms: None, context: SmallVec::new() };
        if body.shape() == Shape::Single {
            return Ok(shared);
        }
        let whole = |fault: Fault| Refusal { reason: fault.reason, field: Some(fault.field), detail: fault.detail };
        if let Some(raw) = body.members().get("sentAt") {
            shared.sent_at_ms = Some(instant::instant(raw, "sentAt").map_err(whole)?);
        }
        if let Some(raw) = body.members().get("context") {
            // It is written into every event, so a small request must not become a huge one.
            if raw.get().len().saturating_mul(count) > limits.max_body_bytes.saturating_mul(8) {
                let detail = "the batch's context is too large for so many events";
                return Err(Refusal::new(Reason::BodyTooLarge, detail).at("context"));
            }
            let inside = |fault: Fault| whole(fault.inside("context"));
            if !raw.get().starts_with('{') {
                return Err(Refusal::new(Reason::InvalidField, "must be an object").at("context"));
            }
            for (name, value) in Members::parse(raw.get()).map_err(inside)?.iter() {
                check_default(name, value).map_err(inside)?;
                shared.context.push((name.clone(), value));
            }
        }
        Ok(shared)
    }
}

pub(super) fn read_event<'a>(
    shared: &Shared<'a, '_>,
    body: &Body<'a>,
    place: EventPlace,
    raw: &'a str,
    random: &mut dyn FnMut() -> u128,
) -> Result<Envelope<'a>, Fault> {
    let longest = shared.limits.max_event_bytes;
    if raw.len() > longest {
        let detail = format!("the event is {} bytes long; at most {longest} are allowed", raw.len());
        return Err(Fault::new(Reason::EventTooLarge, "", detail));
    }
    let own_members;
    let members = if place.shape == Shape::Single {
        body.members()
    } else {
        own_members = Members::parse(raw)?;
        &own_members
    };
    if let Route::Webhook { platform, message_id, sent_at_ms } = shared.route {
        // Its members are the platform's own: a `userId` or a `context` there need not mean what it means here.
        let envelope = blank(shared, &Members::default(), random)?;
        return webhook::complete(envelope, webhook::Delivery { platform, message_id, sent_at_ms }, members, raw);
    }
    let envelope = blank(shared, members, random)?;
    match shared.route {
        Route::Call(kind) => behavior::complete(envelope, kind, members),
        Route::Batch | Route::Import => {
            let kind_name = text::required_name(members, "type")?;
            let kind = Kind::behavior_from(&kind_name).ok_or_else(|| unknown_type(&Kind::BEHAVIOR))?;
            behavior::complete(envelope, kind, members)
        }
        Route::Campaign => {
            let kind_name = text::required_name(members, "type")?;
            let kind = Kind::campaign_from(&kind_name).ok_or_else(|| unknown_type(&Kind::CAMPAIGN))?;
            campaign::complete(envelope, kind, members)
        }
        Route::Integration { platform } => integration::complete(envelope, platform, members),
        Route::Webhook { .. } => Ok(envelope),
    }
}

/// An envelope with all that does not depend on the event's kind.
fn blank<'a>(
    shared: &Shared<'a, '_>,
    members: &Members<'a>,
    random: &mut dyn FnMut() -> u128,
) -> Result<Envelope<'a>, Fault> {
    let received_at_ms = shared.sender.received_at_ms;
    let message_id = match text::id(members, "messageId")? {
        Some(id) => id,
        None => Cow::Owned(ids::message_id(received_at_ms, random())),
    };
    let as_given = shared.route == Route::Import;
    Ok(Envelope {
        workspace: Cow::Borrowed(shared.sender.workspace),
        message_id,
        kind: Kind::Integration,
        name: Cow::Borrowed(""),
        user_id: text::id(members, "userId")?,
        anonymous_id: text::id(members, "anonymousId")?,
        group_id: None,
        previous_id: None,
        session_id: None,
        campaign: None,
        platform: None,
        value: None,
        timestamp_ms: instant::event_time(members, shared.sent_at_ms, as_given, received_at_ms)?,
        received_at_ms,
        properties: Cow::Borrowed("{}"),
        context: stored_object(members.get("context"), "context", &shared.context, &[])?.text,
    })
}

fn unknown_type(known: &[Kind]) -> Fault {
    let names: Vec<&str> = known.iter().map(|kind| kind.as_str()).collect();
    Fault::new(Reason::UnknownType, "type", format!("must be one of {}", names.join(", ")))
}
