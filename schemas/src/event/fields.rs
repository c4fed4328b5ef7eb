//! Pure: no I/O, no clock, no async.
//!
//! Fields of an event by name: `user_id`, `properties.cart.total`, `context.userAgent`. Raw JSON is walked once for all
//! the fields a program names; nothing else of it is built.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::Envelope;
use crate::micros::Micros;

/// A field's name, checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FieldPath {
    Kind,
    Name,
    MessageId,
    UserId,
    AnonymousId,
    GroupId,
    SessionId,
    Campaign,
    Platform,
    Value,
    /// The anonymous id, else the user, else the message.
    Actor,
    Property(Vec<String>),
    Context(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a field: use kind, name, message_id, user_id, anonymous_id, group_id, session_id, campaign, platform, \
     value, actor, properties.… or context.…"
)]
pub struct FieldPathError(pub String);

impl std::str::FromStr for FieldPath {
    type Err = FieldPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nested = |path: &str| -> Option<Vec<String>> {
            let steps: Vec<String> = path.split('.').map(str::to_owned).collect();
            (steps.len() <= 8 && steps.iter().all(|step| !step.is_empty() && step.len() <= 128)).then_some(steps)
        };
        let path = match text {
            "kind" => Self::Kind,
            "name" | "event" => Self::Name,
            "message_id" => Self::MessageId,
            "user_id" => Self::UserId,
            "anonymous_id" => Self::AnonymousId,
            "group_id" => Self::GroupId,
            "session_id" => Self::SessionId,
            "campaign" => Self::Campaign,
            "platform" => Self::Platform,
            "value" => Self::Value,
            "actor" => Self::Actor,
            _ => {
                let place = text.strip_prefix("properties.").and_then(nested).map(Self::Property);
                let place = place.or_else(|| {
                    let path = text.strip_prefix("traits.").and_then(nested);
                    path.map(Self::Property)
                });
                let place = place.or_else(|| text.strip_prefix("context.").and_then(nested).map(Self::Context));
                return place.ok_or_else(|| FieldPathError(text.to_owned()));
            }
        };
        Ok(path)
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Name => "name",
            Self::MessageId => "message_id",
            Self::UserId => "user_id",
            Self::AnonymousId => "anonymous_id",
            Self::GroupId => "group_id",
            Self::SessionId => "session_id",
            Self::Campaign => "campaign",
            Self::Platform => "platform",
            Self::Value => "value",
            Self::Actor => "actor",
            Self::Property(path) => return write!(f, "properties.{}", path.join(".")),
            Self::Context(path) => return write!(f, "context.{}", path.join(".")),
        })
    }
}

impl FieldPath {
    /// The name it is queried by: its last word.
    #[must_use]
    pub fn last_word(&self) -> String {
        match self {
            Self::Property(path) | Self::Context(path) => path.last().cloned().unwrap_or_default(),
            other => other.to_string(),
        }
    }
}

/// A field's value in an event.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue<'a> {
    Text(Cow<'a, str>),
    /// The number as it stands in the JSON.
    Number(&'a str),
    Decimal(Micros),
    Bool(bool),
    /// An array or object, raw.
    Nested(&'a str),
}

impl<'a> FieldValue<'a> {
    fn from_raw(raw: &'a RawValue) -> Option<Self> {
        let text = raw.get();
        match text.as_bytes().first()? {
            b'"' => {
                let inner = &text[1..text.len() - 1];
                if memchr_backslash(inner) {
                    serde_json::from_str::<String>(text).ok().map(|owned| Self::Text(Cow::Owned(owned)))
                } else {
                    Some(Self::Text(Cow::Borrowed(inner)))
                }
            }
            b't' => Some(Self::Bool(true)),
            b'f' => Some(Self::Bool(false)),
            b'n' => None,
            b'{' | b'[' => Some(Self::Nested(text)),
            _ => Some(Self::Number(text)),
        }
    }

    /// The value as text: what dimensions and filters compare.
    #[must_use]
    pub fn to_text(&self) -> Cow<'a, str> {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(text) | Self::Nested(text) => Cow::Borrowed(*text),
            Self::Decimal(value) => Cow::Owned(value.to_string()),
            Self::Bool(true) => Cow::Borrowed("true"),
            Self::Bool(false) => Cow::Borrowed("false"),
        }
    }

    /// The value as a decimal, where it is a number or reads as one.
    #[must_use]
    pub fn to_decimal(&self) -> Option<Micros> {
        match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(text) => text.parse().ok(),
            Self::Decimal(value) => Some(*value),
            Self::Bool(_) | Self::Nested(_) => None,
        }
    }
}

fn memchr_backslash(text: &str) -> bool {
    text.as_bytes().contains(&b'\\')
}

/// The fields a program reads, each with a slot; built once, used for every event.
#[derive(Clone, Debug, Default)]
pub struct FieldSet {
    paths: Vec<FieldPath>,
    properties: PathTree,
    context: PathTree,
}

/// The raw values found, by slot.
pub struct Extracted<'a> {
    slots: SmallVec<[Option<&'a RawValue>; 8]>,
}

impl FieldSet {
    /// The slot of `path`, added when it is new.
    pub fn slot(&mut self, path: &FieldPath) -> usize {
        if let Some(slot) = self.paths.iter().position(|known| known == path) {
            return slot;
        }
        let slot = self.paths.len();
        self.paths.push(path.clone());
        match path {
            FieldPath::Property(steps) => self.properties.insert(steps, slot),
            FieldPath::Context(steps) => self.context.insert(steps, slot),
            _ => {}
        }
        slot
    }

    /// Walks the raw parts once.
    #[must_use]
    pub fn extract<'a>(&self, event: &'a Envelope<'_>) -> Extracted<'a> {
        let mut slots: SmallVec<[Option<&'a RawValue>; 8]> = SmallVec::new();
        slots.resize(self.paths.len(), None);
        self.properties.fill(&event.properties, &mut slots);
        self.context.fill(&event.context, &mut slots);
        Extracted { slots }
    }

    /// The value in `slot`; `None` for a field that is absent, null or empty text.
    #[must_use]
    pub fn value<'a>(&self, slot: usize, event: &'a Envelope<'_>, extracted: &Extracted<'a>) -> Option<FieldValue<'a>> {
        let text = |value: &'a str| (!value.is_empty()).then_some(FieldValue::Text(Cow::Borrowed(value)));
        let optional = |value: &'a Option<Cow<'_, str>>| value.as_deref().and_then(text);
        match self.paths.get(slot)? {
            FieldPath::Kind => text(event.kind.as_str()),
            FieldPath::Name => text(&event.name),
            FieldPath::MessageId => text(&event.message_id),
            FieldPath::UserId => optional(&event.user_id),
            FieldPath::AnonymousId => optional(&event.anonymous_id),
            FieldPath::GroupId => optional(&event.group_id),
            FieldPath::SessionId => optional(&event.session_id),
            FieldPath::Campaign => optional(&event.campaign),
            FieldPath::Platform => optional(&event.platform),
            FieldPath::Value => event.value.map(FieldValue::Decimal),
            FieldPath::Actor => text(event.actor()),
            FieldPath::Property(_) | FieldPath::Context(_) => {
                extracted.slots.get(slot).copied().flatten().and_then(FieldValue::from_raw)
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct PathTree {
    children: Vec<(String, PathTree)>,
    slot: Option<usize>,
}

impl PathTree {
    fn insert(&mut self, steps: &[String], slot: usize) {
        let Some((first, rest)) = steps.split_first() else {
            self.slot = Some(slot);
            return;
        };
        let place = match self.children.iter().position(|(name, _)| name == first) {
            Some(place) => place,
            None => {
                self.children.push((first.clone(), Self::default()));
                self.children.len() - 1
            }
        };
        self.children[place].1.insert(rest, slot);
    }

    fn fill<'a>(&self, raw: &'a str, slots: &mut [Option<&'a RawValue>]) {
        if self.children.is_empty() || raw.len() <= 2 {
            return;
        }
        let mut deserializer = serde_json::Deserializer::from_str(raw);
        // Anything but an object holds none of the fields.
        let _not_an_object = Walk { tree: self, slots }.deserialize(&mut deserializer);
    }
}

struct Walk<'t, 's, 'a> {
    tree: &'t PathTree,
    slots: &'s mut [Option<&'a RawValue>],
}

impl<'a> DeserializeSeed<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(BorrowedKey)? {
            let Some((_, child)) = self.tree.children.iter().find(|(known, _)| *known == name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw: &'a RawValue = map.next_value()?;
            if let Some(slot) = child.slot {
                self.slots[slot] = Some(raw);
            }
            if raw.get().starts_with('{') {
                child.fill(raw.get(), self.slots);
            }
        }
        Ok(())
    }
}

/// A key without a copy, but for one that is escaped.
struct BorrowedKey;

impl<'a> DeserializeSeed<'a> for BorrowedKey {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for BorrowedKey {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_nested_fields_in_one_walk() {
        let golden = include_str!("../../golden/envelope-v1-track.json");
        let mut event = Envelope::decode(golden.as_bytes()).unwrap();
        event.properties = r#"{"a":{"b":1.50,"c":"x\ny"},"a2":null,"a":{"b":2},"z":[1]}"#.into();
        let mut fields = FieldSet::default();
        let mut read = |path: &str| {
            let slot = fields.slot(&path.parse().unwrap());
            let extracted = fields.extract(&event);
            fields.value(slot, &event, &extracted).map(|value| value.to_text().into_owned())
        };
        // JSON with a name twice: the last one counts, as everywhere.
        assert_eq!(read("properties.a.b").as_deref(), Some("2"));
        assert_eq!(read("properties.a.c").as_deref(), Some("x\ny"));
        assert_eq!(read("properties.a2"), None);
        assert_eq!(read("properties.z").as_deref(), Some("[1]"));
        assert_eq!(read("context.userAgent").as_deref(), Some("Mozilla/5.0"));
        assert_eq!(read("user_id").as_deref(), Some("user-1"));
        assert_eq!(read("value").as_deref(), Some("19.99"));
        assert_eq!(read("group_id"), None);
    }

    #[test]
    fn paths_are_checked() {
        for text in ["", "properties", "properties.", "properties..a", "user", "context."] {
            assert!(text.parse::<FieldPath>().is_err(), "{text}");
        }
        assert_eq!("properties.cart.country".parse::<FieldPath>().unwrap().last_word(), "country");
    }
}
