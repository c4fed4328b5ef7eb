//! Pure: no I/O, no clock, no async.
//!
//! The members of a JSON object, each value still raw text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::rejection::{Fault, Reason, shortened};
use super::text::BorrowedText;

/// Objects up to this many members are searched for duplicates without a hash set.
const FEW: usize = 24;

#[derive(Debug, Default)]
pub(super) struct Members<'a>(SmallVec<[(Cow<'a, str>, &'a RawValue); 16]>);

impl<'a> Members<'a> {
    /// Reads an object whose syntax is known to be sound.
    pub(super) fn parse(object: &'a str) -> Result<Self, Fault> {
        let members: Self = serde_json::from_str(object).map_err(|error| {
            if object.trim_start().starts_with('{') {
                Fault::new(Reason::InvalidString, "", format!("a name is not valid text: {error}"))
            } else {
                Fault::new(Reason::NotAnObject, "", "an event is a JSON object")
            }
        })?;
        members.check_names()?;
        Ok(members)
    }

    pub(super) fn push(&mut self, name: Cow<'a, str>, value: &'a RawValue) {
        self.0.push((name, value));
    }

    pub(super) fn check_names(&self) -> Result<(), Fault> {
        let mut names = Names::default();
        self.0.iter().try_for_each(|(name, _)| names.insert(Cow::Borrowed(name)))
    }

    /// The value under `name`; `None` where it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        (value.get() != "null").then_some(*value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Cow<'a, str>, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (name, *value))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Members::default();
                while let Some(name) = map.next_key_seed(BorrowedText)? {
                    members.push(name, map.next_value()?);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The names seen in one object: a name twice would mean one thing to one reader and another to the next.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// A bit for each name, of 64: a name whose bit is not there is new.
    bits: u64,
    few: SmallVec<[Cow<'a, str>; FEW]>,
    many: HashSet<Cow<'a, str>>,
}

/// Names of one object mostly differ in length, first or last letter.
fn bit_of(name: &str) -> u64 {
    let letter = |byte: Option<&u8>| usize::from(*byte.unwrap_or(&0));
    let (first, last) = (letter(name.as_bytes().first()), letter(name.as_bytes().last()));
    1 << ((name.len() * 5 + first * 3 + last * 11) % 64)
}

impl<'a> Names<'a> {
    pub(super) fn insert(&mut self, name: Cow<'a, str>) -> Result<(), Fault> {
        if name.contains('\0') {
            return Err(Fault::new(Reason::NulCharacter, shortened(&name), "a name contains the NUL character"));
        }
        let bit = bit_of(&name);
        let may_be_known = self.bits & bit != 0;
        self.bits |= bit;
        if may_be_known && (self.few.contains(&name) || self.many.contains(&name)) {
            return Err(Fault::new(Reason::DuplicateName, shortened(&name), "the name is there twice"));
        }
        if self.few.len() < FEW {
            self.few.push(name);
        } else {
            self.many.insert(name);
        }
        Ok(())
    }
}
