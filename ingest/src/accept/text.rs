//! Pure: no I/O, no clock, no async.
//!
//! Texts and ids out of raw JSON, without a copy where there is no escape.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::members::Members;
use super::rejection::{Fault, Reason};

/// Ids and names longer than this are no ids and names.
pub(super) const LONGEST_ID: usize = 512;

/// A string without a copy, but for one that is escaped.
pub(super) struct BorrowedText;

impl<'a> DeserializeSeed<'a> for BorrowedText {
    type Value = Cow<'a, str>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for BorrowedText {
    type Value = Cow<'a, str>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A JSON string's text; `None` when the value is no string.
pub(super) fn string_of<'a>(raw: &'a RawValue, field: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    let json = raw.get();
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(None);
    };
    if !inner.as_bytes().contains(&b'\\') {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    let text: String = serde_json::from_str(json)
        .map_err(|error| Fault::new(Reason::InvalidString, field, format!("is not valid text: {error}")))?;
    if text.contains('\0') {
        return Err(Fault::new(Reason::NulCharacter, field, "contains the NUL character"));
    }
    Ok(Some(Cow::Owned(text)))
}

/// An id: a string, or a number taken as its text. Empty and null count as absent.
pub(super) fn id<'a>(members: &Members<'a>, field: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    let Some(raw) = members.get(field) else { return Ok(None) };
    let text = match string_of(raw, field)? {
        Some(text) => text,
        None if raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()) => Cow::Borrowed(raw.get()),
        None => return Err(Fault::new(Reason::InvalidField, field, "must be a string or a number")),
    };
    bounded(text, field)
}

/// A name: a string. Empty and null count as absent.
pub(super) fn name<'a>(members: &Members<'a>, field: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    let Some(raw) = members.get(field) else { return Ok(None) };
    match string_of(raw, field)? {
        Some(text) => bounded(text, field),
        None => Err(Fault::new(Reason::InvalidField, field, "must be a string")),
    }
}

pub(super) fn required_id<'a>(members: &Members<'a>, field: &str) -> Result<Cow<'a, str>, Fault> {
    id(members, field)?.ok_or_else(|| Fault::missing(field))
}

pub(super) fn required_name<'a>(members: &Members<'a>, field: &str) -> Result<Cow<'a, str>, Fault> {
    name(members, field)?.ok_or_else(|| Fault::missing(field))
}

fn bounded<'a>(text: Cow<'a, str>, field: &str) -> Result<Option<Cow<'a, str>>, Fault> {
    if text.len() > LONGEST_ID {
        let detail = format!("is {} bytes long; at most {LONGEST_ID} are allowed", text.len());
        return Err(Fault::new(Reason::InvalidField, field, detail));
    }
    Ok((!text.is_empty()).then_some(text))
}
