//! Pure: no I/O, no clock, no async.
//!
//! Segment's six calls.

use std::borrow::Cow;

use neonhub_schemas::{Envelope, Kind};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::members::Members;
use super::object::{check_default, stored_object};
use super::rejection::Fault;
use super::text;
use super::value::{value_fields, value_of};

pub(super) fn complete<'a>(mut event: Envelope<'a>, kind: Kind, members: &Members<'a>) -> Result<Envelope<'a>, Fault> {
    event.kind = kind;
    event.name = Cow::Borrowed(kind.as_str());
    if kind == Kind::Alias {
        event.previous_id = Some(text::required_id(members, "previousId")?);
        if event.user_id.is_none() {
            return Err(Fault::missing("userId"));
        }
    }
    if event.user_id.is_none() && event.anonymous_id.is_none() {
        let mut fault = Fault::missing("userId");
        fault.detail = "`userId` or `anonymousId` is required".to_owned();
        return Err(fault);
    }
    let mut stated_outside: SmallVec<[(Cow<'a, str>, &'a RawValue); 2]> = SmallVec::new();
    let object = match kind {
        Kind::Identify | Kind::Group => "traits",
        _ => "properties",
    };
    match kind {
        Kind::Track => event.name = text::required_name(members, "event")?,
        Kind::Group => event.group_id = Some(text::required_id(members, "groupId")?),
        Kind::Page | Kind::Screen => {
            if let Some(name) = text::name(members, "name")? {
                event.name = name;
            }
            for field in ["name", "category"] {
                if let Some(raw) = members.get(field) {
                    check_default(field, raw)?;
                    stated_outside.push((Cow::Borrowed(field), raw));
                }
            }
        }
        _ => {}
    }
    let stored = stored_object(members.get(object), object, &stated_outside, value_fields(kind))?;
    event.value = value_of(kind, &stored.found)?;
    event.properties = stored.text;
    Ok(event)
}
