//! Pure: no I/O, no clock, no async.
//!
//! The objects of an event that are stored raw: properties, traits, payload, context. Members stated elsewhere in the
//! request are added to them where they do not have them themselves.

use std::borrow::Cow;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::rejection::{Fault, Reason};
use super::walk::{Found, check_object, check_value};

/// Members that an object gets unless it has them: name and checked value.
pub(super) type Defaults<'a> = [(Cow<'a, str>, &'a RawValue)];

/// An object, checked and completed.
pub(super) struct StoredObject<'a> {
    pub(super) text: Cow<'a, str>,
    /// The wanted members, the defaults counted in.
    pub(super) found: Found<'a>,
}

/// Reads the object under `field`; absent and null count as empty.
pub(super) fn stored_object<'a>(
    raw: Option<&'a RawValue>,
    field: &str,
    defaults: &Defaults<'a>,
    wanted: &[&'static str],
) -> Result<StoredObject<'a>, Fault> {
    let text = raw.map_or("{}", RawValue::get);
    if !text.starts_with('{') {
        return Err(Fault::new(Reason::InvalidField, field, "must be an object"));
    }
    if text == "{}" {
        let of_name = |name: &&'static str| defaults.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        let text = if defaults.is_empty() { Cow::Borrowed("{}") } else { Cow::Owned(completed(text, defaults.iter())) };
        return Ok(StoredObject { text, found: wanted.iter().map(of_name).collect() });
    }
    let mut names: SmallVec<[Cow<'_, str>; 8]> = wanted.iter().map(|name| Cow::Borrowed(*name)).collect();
    let extra = defaults.iter().filter(|(name, _)| !wanted.contains(&name.as_ref()));
    names.extend(extra.map(|(name, _)| Cow::Borrowed(name.as_ref())));
    let mut found = check_object(text, &names).map_err(|fault| fault.inside(field))?;

    let mut added: SmallVec<[&(Cow<'a, str>, &'a RawValue); 8]> = SmallVec::new();
    for default in defaults {
        let slot = names.iter().position(|name| *name == default.0);
        let Some(value) = slot.and_then(|slot| found.get_mut(slot)) else { continue };
        if value.is_none() {
            *value = Some(default.1);
            added.push(default);
        }
    }
    found.truncate(wanted.len());
    let text = if added.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(completed(text, added.into_iter())) };
    Ok(StoredObject { text, found })
}

/// Checks the value of a default, once for all the objects that get it.
pub(super) fn check_default(name: &str, value: &RawValue) -> Result<(), Fault> {
    check_value(value.get(), 2).map_err(|fault| fault.inside(name))
}

fn completed<'d, 'a: 'd>(
    object: &str,
    added: impl Iterator<Item = &'d (Cow<'a, str>, &'a RawValue)> + Clone,
) -> String {
    let inner = object[1..object.len() - 1].trim();
    let extra: usize = added.clone().map(|(name, value)| name.len() + value.get().len() + 8).sum();
    let mut out = String::with_capacity(object.len() + extra);
    out.push('{');
    out.push_str(inner);
    for (name, value) in added {
        if out.len() > 1 {
            out.push(',');
        }
        push_name(&mut out, name);
        out.push(':');
        out.push_str(value.get());
    }
    out.push('}');
    out
}

#[expect(clippy::ptr_arg, reason = "only a borrowed name is known to stand in the text without an escape")]
fn push_name(out: &mut String, name: &Cow<'_, str>) {
    match name {
        // It stood in the text as it is, without an escape.
        Cow::Borrowed(name) => {
            out.push('"');
            out.push_str(name);
            out.push('"');
        }
        // A string always has a JSON form.
        Cow::Owned(name) => out.push_str(&serde_json::to_string(name).unwrap_or_default()),
    }
}
