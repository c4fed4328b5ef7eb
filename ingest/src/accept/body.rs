//! Pure: no I/O, no clock, no async.
//!
//! A request's body, split into events. The whole text is checked for syntax here; the events stay raw.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Route;
use super::event::EventPlace;
use super::members::Members;
use super::rejection::{Fault, Reason, Refusal};
use super::text::{BorrowedText, id};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The body is the event.
    Single,
    /// The body is a list of events.
    Array,
    /// The body has a `batch` of events.
    Batch,
}

/// A body whose syntax is sound.
#[derive(Debug)]
pub struct Body<'a> {
    shape: Shape,
    /// The whole text; the event itself in a `Single`.
    text: &'a str,
    /// The top's members: of the event in a `Single`, none in an `Array`.
    members: Members<'a>,
    batch: Vec<&'a RawValue>,
}

impl<'a> Body<'a> {
    /// # Errors
    /// The bytes are not UTF-8, not JSON, or have no events where the route expects them.
    pub fn parse(route: Route<'_>, bytes: &'a [u8]) -> Result<Self, Refusal> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Refusal::new(Reason::InvalidUtf8, format!("the body is not UTF-8: {error}")))?
            .trim_ascii();
        let invalid = |error: serde_json::Error| {
            Refusal::new(Reason::InvalidJson, format!("the body is not JSON: {error}")).at("body")
        };
        if text.starts_with('[') && route.takes_lists() {
            let batch: Vec<&'a RawValue> = serde_json::from_str(text).map_err(invalid)?;
            return Ok(Self { shape: Shape::Array, text, members: Members::default(), batch });
        }
        if !text.starts_with('{') {
            // Bad syntax is the better message where there is any.
            serde_json::from_str::<IgnoredAny>(text).map_err(invalid)?;
            return Err(Refusal::new(Reason::NotAnObject, "the body must be a JSON object").at("body"));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let with_batch = route.takes_lists();
        let Top { members, batch } = TopSeed { with_batch }.deserialize(&mut json).map_err(invalid)?;
        json.end().map_err(invalid)?;
        members.check_names().map_err(|fault: Fault| Refusal {
            reason: fault.reason,
            field: Some(fault.field),
            detail: fault.detail,
        })?;
        match (batch, route) {
            (BatchField::Events(batch), _) => Ok(Self { shape: Shape::Batch, text, members, batch }),
            (BatchField::NotAList, _) => {
                Err(Refusal::new(Reason::InvalidField, "`batch` must be a list of events").at("batch"))
            }
            (BatchField::Twice, _) => Err(Refusal::new(Reason::DuplicateName, "the name is there twice").at("batch")),
            (BatchField::Absent, Route::Batch | Route::Import) => {
                Err(Refusal::new(Reason::MissingField, "`batch` is required").at("batch"))
            }
            (BatchField::Absent, _) => Ok(Self { shape: Shape::Single, text, members, batch: Vec::new() }),
        }
    }

    /// The write key stated in the body: at the top, or in the first event.
    #[must_use]
    pub fn write_key(&self) -> Option<Cow<'a, str>> {
        let at_top = id(&self.members, "writeKey").ok().flatten();
        at_top.or_else(|| {
            let first = self.batch.first()?;
            let members = Members::parse(first.get()).ok()?;
            id(&members, "writeKey").ok().flatten()
        })
    }

    #[must_use]
    pub fn event_count(&self) -> usize {
        match self.shape {
            Shape::Single => 1,
            Shape::Array | Shape::Batch => self.batch.len(),
        }
    }

    /// Whether the body is one event, not a list of them.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.shape == Shape::Single
    }

    pub(super) fn shape(&self) -> Shape {
        self.shape
    }

    pub(super) fn members(&self) -> &Members<'a> {
        &self.members
    }

    pub(super) fn events(&self) -> impl Iterator<Item = (EventPlace, &'a str)> {
        let single = (self.shape == Shape::Single).then_some(self.text);
        let texts = single.into_iter().chain(self.batch.iter().map(|raw| raw.get()));
        texts.enumerate().map(|(index, text)| (EventPlace { shape: self.shape, index }, text))
    }
}

#[derive(Default)]
enum BatchField<'a> {
    #[default]
    Absent,
    Events(Vec<&'a RawValue>),
    NotAList,
    Twice,
}

#[derive(Default)]
struct Top<'a> {
    members: Members<'a>,
    batch: BatchField<'a>,
}

/// Reads the top object, and with it the list under `batch`, in one pass.
struct TopSeed {
    with_batch: bool,
}

impl<'a> DeserializeSeed<'a> for TopSeed {
    type Value = Top<'a>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for TopSeed {
    type Value = Top<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut top = Top::default();
        while let Some(name) = map.next_key_seed(BorrowedText)? {
            if self.with_batch && name == "batch" {
                let batch = map.next_value_seed(BatchSeed)?;
                top.batch = if matches!(top.batch, BatchField::Absent) { batch } else { BatchField::Twice };
            } else {
                top.members.push(name, map.next_value()?);
            }
        }
        Ok(top)
    }
}

struct BatchSeed;

impl<'a> DeserializeSeed<'a> for BatchSeed {
    type Value = BatchField<'a>;
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for BatchSeed {
    type Value = BatchField<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = seq.next_element()? {
            events.push(event);
        }
        Ok(BatchField::Events(events))
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(BatchField::NotAList)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(BatchField::NotAList)
    }
}
