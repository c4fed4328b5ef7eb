//! Pure: no I/O, no clock, no async.
//!
//! The JSON records of the other topics. The first byte says which.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::control::{Activation, DefinitionRecord, Heartbeat, IdentityLink, UpstreamWatermarks};
use crate::dead_letter::DeadLetter;
use crate::window::{Aggregate, Partial, WindowState, WindowUpsert, window_key};

pub(super) fn check(bytes: &[u8]) {
    let Some((which, json)) = bytes.split_first() else { return };
    match which % 8 {
        0 => check_partial(json),
        1 => check_upsert(json),
        2 => drop(round_trip::<DefinitionRecord>(json)),
        3 => drop(round_trip::<Activation>(json)),
        4 => drop(round_trip::<UpstreamWatermarks>(json)),
        5 => drop(round_trip::<IdentityLink>(json)),
        6 => drop(round_trip::<Heartbeat>(json)),
        _ => drop(round_trip::<DeadLetter>(json)),
    }
}

/// What was read is written and read again as the same.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(json: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(json).ok()?;
    let written = serde_json::to_vec(&value);
    assert!(written.is_ok(), "{value:?} has no JSON form");
    let again: Option<T> = serde_json::from_slice(&written.unwrap_or_default()).ok();
    assert_eq!(again.as_ref(), Some(&value), "a record is not what it was after a round trip");
    again
}

fn check_partial(json: &[u8]) {
    let partial = round_trip::<Partial>(json);
    assert_eq!(Partial::decode(json).ok(), partial, "the quick reader sees another partial than serde");
    let Some(partial) = partial else { return };
    assert_eq!(
        Some(partial.encode()),
        serde_json::to_vec(&partial).ok(),
        "the quick writer writes what serde does not"
    );
    let mut total = Aggregate::default();
    for delta in &partial.deltas {
        if let Some(aggregate) = check_state(&delta.state) {
            let before = total.clone();
            if total.merge(&aggregate).is_err() {
                assert_eq!(total, before, "a merge that fails changes nothing");
            }
        }
    }
}

fn check_upsert(json: &[u8]) {
    let upsert = round_trip::<WindowUpsert>(json);
    assert_eq!(WindowUpsert::decode(json).ok(), upsert, "the quick reader sees another window than serde");
    let Some(upsert) = upsert else { return };
    assert_eq!(Some(upsert.encode()), serde_json::to_vec(&upsert).ok(), "the quick writer writes what serde does not");
    let key = window_key(&upsert.key, upsert.grain, &upsert.zone, upsert.window_start, upsert.epoch);
    assert!(!key.is_empty());
    check_state(&upsert.state);
}

fn check_state(state: &WindowState) -> Option<Aggregate> {
    let aggregate = state.to_aggregate().ok()?;
    let written = WindowState::of(&aggregate);
    assert_eq!(written.to_aggregate().as_ref(), Ok(&aggregate), "a window's state is another after a round trip");
    Some(aggregate)
}
