//! Pure: no I/O, no clock, no async.
//!
//! Bodies at every door. The first byte says which.

use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::{Envelope, Kind, NewRecord};
use serde_json::Value;

use crate::accept::{Body, DeadLetters, Route, Sender, accept};
use crate::config::Limits;

const SENDER: Sender<'static> = Sender { workspace: "acme", received_at_ms: 1_600_000_000_000 };
/// What a broker takes by default.
const LARGEST_RECORD: usize = 1_000_000;

pub(super) fn check(bytes: &[u8]) {
    let Some((door, body)) = bytes.split_first() else { return };
    check_at(route(*door), body);
}

fn route(door: u8) -> Route<'static> {
    match door % 11 {
        0 => Route::Batch,
        1 => Route::Import,
        2 => Route::Campaign,
        3 => Route::Integration { platform: "crm" },
        4 => Route::Webhook { platform: "crm", message_id: "msg_1", sent_at_ms: SENDER.received_at_ms },
        number => Route::Call(Kind::BEHAVIOR[usize::from(number - 5)]),
    }
}

pub(super) fn check_at(route: Route<'_>, body: &[u8]) {
    let limits = Limits { max_batch_events: 50, ..Limits::default() };
    let letters = DeadLetters::new(SENDER, body);
    let acceptance = match accept(route, body, SENDER, &limits, &mut || 7) {
        Ok(acceptance) => acceptance,
        Err(refusal) => {
            assert!(!refusal.detail.is_empty());
            check_letter(&letters.whole(&refusal));
            check_letter(&letters.excerpt(&refusal, 16));
            return;
        }
    };
    let count = Body::parse(route, body).map(|parsed| parsed.event_count()).ok();
    assert_eq!(count, Some(acceptance.events.len() + acceptance.rejections.len()), "an event has no verdict");
    for event in &acceptance.events {
        check_event(event);
    }
    for rejection in &acceptance.rejections {
        check_letter(&letters.event(rejection));
    }
}

/// What is accepted can be stored, and everybody downstream reads the same in it.
fn check_event(event: &Envelope<'_>) {
    let record = event.to_raw_record();
    let value = record.value.unwrap_or_default();
    assert!(value.len() <= LARGEST_RECORD && !record.key.is_empty());
    assert_eq!(Envelope::decode(&value).ok().as_ref(), Some(event), "an accepted event is another on the log");
    for object in [&event.properties, &event.context] {
        let parsed = serde_json::from_str::<Value>(object);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{object} is no JSON object");
    }
    for text in [Some(&event.message_id), event.user_id.as_ref(), event.anonymous_id.as_ref(), Some(&event.name)] {
        assert!(text.is_none_or(|text| !text.contains('\0') && text.len() <= 512), "{text:?}");
    }
}

fn check_letter(record: &NewRecord) {
    let value = record.value.as_deref().unwrap_or_default();
    assert!(value.len() <= LARGEST_RECORD && !record.key.is_empty());
    assert!(serde_json::from_slice::<DeadLetter>(value).is_ok(), "a dead letter that cannot be read");
}
