//! Pure: no I/O, no clock, no async.
//!
//! What an event is worth or costs.

use neonhub_schemas::{Kind, Micros};
use serde_json::value::RawValue;

use super::rejection::{Fault, Reason};
use super::text::string_of;

/// The properties that state an event's value, the first that is there winning.
pub(super) fn value_fields(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Track => &["revenue"],
        Kind::Conversion => &["revenue", "value", "amount"],
        Kind::Spend => &["spend", "cost", "amount", "value"],
        _ => &[],
    }
}

/// A track event's revenue is an SDK's free field, so what is no number there is just no value. A campaign's money must
/// be readable, or sums would silently miss it.
pub(super) fn value_of(kind: Kind, found: &[Option<&RawValue>]) -> Result<Option<Micros>, Fault> {
    for (field, raw) in value_fields(kind).iter().zip(found) {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else { continue };
        let place = format!("properties.{field}");
        let text = string_of(raw, &place)?;
        return match text.as_deref().unwrap_or(raw.get()).parse::<Micros>() {
            Ok(value) => Ok(Some(value)),
            Err(_) if kind == Kind::Track => Ok(None),
            Err(error) => Err(Fault::new(Reason::InvalidField, place, error.to_string())),
        };
    }
    Ok(None)
}
