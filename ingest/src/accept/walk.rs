//! Pure: no I/O, no clock, no async.
//!
//! One walk over an object that is stored as it is, so that nothing downstream stumbles over it: depth, strings,
//! numbers and names are checked; members that somebody wants are picked up on the way.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::members::Names;
use super::rejection::{Fault, Reason};
use super::text::BorrowedText;

/// Deepest nesting of an event's properties, traits, payload or context; the object itself is level 1.
pub(super) const DEEPEST: usize = 32;

/// The raw values of the wanted names, in their order.
pub(super) type Found<'a> = SmallVec<[Option<&'a RawValue>; 8]>;

/// Checks an object; its fault's field counts from the object's top.
pub(super) fn check_object<'a>(object: &'a str, wanted: &[Cow<'_, str>]) -> Result<Found<'a>, Fault> {
    let mut found = Found::new();
    found.resize(wanted.len(), None);
    if object == "{}" {
        return Ok(found);
    }
    let mut state = State::default();
    let mut json = serde_json::Deserializer::from_str(object);
    let outcome = Object { state: &mut state, depth: 1, wanted, found: &mut found }.deserialize(&mut json);
    state.verdict(outcome, object)?;
    Ok(found)
}

/// Checks any value that stands at `depth`; its syntax is known to be sound.
pub(super) fn check_value(value: &str, depth: usize) -> Result<(), Fault> {
    if is_plain(value) {
        return Ok(());
    }
    let mut state = State::default();
    let mut json = serde_json::Deserializer::from_str(value);
    let outcome = Value { state: &mut state, depth }.deserialize(&mut json);
    state.verdict(outcome, value)
}

/// Most values are: text without escapes, which can hold nothing wrong, literals, and numbers that are short.
fn is_plain(value: &str) -> bool {
    match value.as_bytes() {
        [b'"', text @ ..] => !text.contains(&b'\\'),
        [b't' | b'f' | b'n', ..] => true,
        [b'-' | b'0'..=b'9', ..] => value.len() <= 18 && value.bytes().all(|byte| !matches!(byte, b'e' | b'E')),
        _ => false,
    }
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// A number was seen that may be an integer too wide for 64 bits: serde_json hands those over as floats.
    wide_number: bool,
}

impl State {
    fn fail<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.fault = Some(fault);
        E::custom("refused")
    }

    /// Gives the fault, which the reader's error cannot carry, one more level of its path.
    fn at<E: fmt::Display>(&mut self, name: &str, error: &E) {
        let fault = self.fault.take().unwrap_or_else(|| from_reader(error));
        self.fault = Some(fault.inside(name));
    }

    fn verdict<E: fmt::Display>(self, outcome: Result<(), E>, json: &str) -> Result<(), Fault> {
        if let Err(error) = outcome {
            return Err(self.fault.unwrap_or_else(|| from_reader(&error)));
        }
        if self.wide_number && has_wide_integer(json) {
            return Err(Fault::new(Reason::NumberOutOfRange, "", "an integer does not fit 64 bits"));
        }
        Ok(())
    }
}

/// The syntax was checked when the body was split, so what the reader still minds is an escape or a number's size.
fn from_reader<E: fmt::Display>(error: &E) -> Fault {
    let text = error.to_string();
    if text.contains("number out of range") {
        Fault::new(Reason::NumberOutOfRange, "", "a number is too large")
    } else if text.contains("expected an object") {
        Fault::new(Reason::InvalidField, "", "must be an object")
    } else {
        Fault::new(Reason::InvalidString, "", format!("is not valid text: {text}"))
    }
}

struct Object<'s, 'w, 'a> {
    state: &'s mut State,
    depth: usize,
    wanted: &'w [Cow<'w, str>],
    found: &'s mut Found<'a>,
}

impl<'a> DeserializeSeed<'a> for Object<'_, '_, 'a> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = Names::default();
        while let Some(name) = map.next_key_seed(BorrowedText)? {
            let slot = self.wanted.iter().position(|wanted| *wanted == name);
            let outcome = match slot {
                None => map.next_value_seed(Value { state: self.state, depth: self.depth + 1 }),
                Some(slot) => {
                    let raw: &'a RawValue = map.next_value()?;
                    self.found[slot] = Some(raw);
                    let depth = self.depth + 1;
                    check_value(raw.get(), depth).map_err(|fault| self.state.fail::<A::Error>(fault))
                }
            };
            if let Err(error) = outcome {
                self.state.at(&name, &error);
                return Err(error);
            }
            if let Err(fault) = names.insert(name) {
                return Err(self.state.fail(fault));
            }
        }
        Ok(())
    }
}

struct Value<'s> {
    state: &'s mut State,
    depth: usize,
}

impl Value<'_> {
    fn check_depth<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth > DEEPEST {
            let detail = format!("nested deeper than {DEEPEST} levels");
            return Err(self.state.fail(Fault::new(Reason::TooDeep, "", detail)));
        }
        Ok(())
    }
}

impl<'a> DeserializeSeed<'a> for Value<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        if !number.is_finite() {
            return Err(E::custom("number out of range"));
        }
        self.state.wide_number |= number.abs() >= 9.2e18;
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if text.contains('\0') {
            return Err(self.state.fail(Fault::new(Reason::NulCharacter, "", "contains the NUL character")));
        }
        Ok(())
    }

    /// Borrowed text had no escape, and a bare control character is bad JSON: there can be no NUL in it.
    fn visit_borrowed_str<E>(self, _: &'a str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut seq: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let mut index: usize = 0;
        loop {
            match seq.next_element_seed(Value { state: self.state, depth: self.depth + 1 }) {
                Ok(Some(())) => index += 1,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.state.at(&format!("[{index}]"), &error);
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'a>>(mut self, map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let mut nothing = Found::new();
        Object { state: self.state, depth: self.depth, wanted: &[], found: &mut nothing }.visit_map(map)
    }
}

/// The slow second look, taken only after a number of at least 19 digits or a large exponent.
fn has_wide_integer(json: &str) -> bool {
    let mut in_string = false;
    let mut escaped = false;
    let outside = json.split(|character: char| {
        if in_string {
            in_string = escaped || character != '"';
            escaped = !escaped && character == '\\';
            return true;
        }
        in_string = character == '"';
        !matches!(character, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')
    });
    let is_integer = |token: &&str| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    outside.filter(is_integer).any(|token| token.parse::<i64>().is_err() && token.parse::<u64>().is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(object: &str) -> (&'static str, String) {
        let fault = check_object(object, &[]).unwrap_err();
        (fault.reason.code(), fault.field)
    }

    #[test]
    fn faults_are_named_with_their_place() {
        let cases = [
            (r#"{"a":{"b":["x","y\u0000"]}}"#, "nul_character", "a.b[1]"),
            (r#"{"a":"\ud800"}"#, "invalid_string", "a"),
            (r#"{"a":[{"b":1e400}]}"#, "number_out_of_range", "a[0].b"),
            (r#"{"a":{"b":1,"b":2}}"#, "duplicate_name", "a.b"),
            (r#"{"a":1,"a":2}"#, "duplicate_name", "a"),
            (r#"{"a":18446744073709551616}"#, "number_out_of_range", ""),
            (r#"{"q":"\"18446744073709551616","a":-9223372036854775809}"#, "number_out_of_range", ""),
            ("[1]", "invalid_field", ""),
            ("3", "invalid_field", ""),
        ];
        for (object, code, field) in cases {
            assert_eq!(reason(object), (code, field.to_owned()), "{object}");
        }
    }

    #[test]
    fn what_is_sound_passes() {
        let cases = [
            r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1e300,"d":-0.0}"#,
            r#"{"a":1e300,"b":"18446744073709551616","c":"\\\"18446744073709551616"}"#,
            r#"{"a":"\ud83d\ude00","b":[],"c":{}}"#,
            r#"{"a":18446744073709551616.5}"#,
        ];
        for object in cases {
            assert_eq!(check_object(object, &[]).map(|_| ()), Ok(()), "{object}");
        }
    }

    #[test]
    fn depth_is_counted_from_the_object() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        assert!(check_object(&nested(DEEPEST), &[]).is_ok());
        assert_eq!(reason(&nested(DEEPEST + 1)).0, "too_deep");
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(DEEPEST - 1), "]".repeat(DEEPEST - 1));
        assert!(check_object(&lists, &[]).is_ok());
        let lists = format!("{{\"a\":{}{}}}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert_eq!(reason(&lists).0, "too_deep");
    }

    #[test]
    fn wanted_members_are_checked_too() {
        let wanted = [Cow::Borrowed("revenue"), Cow::Borrowed("value")];
        let found = check_object(r#"{"x":1,"value":[2],"y":3}"#, &wanted).unwrap();
        assert!(found[0].is_none());
        assert_eq!(found[1].unwrap().get(), "[2]");
        let fault = check_object(r#"{"value":["\u0000"]}"#, &wanted).unwrap_err();
        assert_eq!(fault.field, "value[0]");
    }

    #[test]
    fn a_very_wide_object_takes_no_quadratic_time() {
        let members: Vec<String> = (0..20_000).map(|number| format!("\"n{number}\":0")).collect();
        assert!(check_object(&format!("{{{}}}", members.join(",")), &[]).is_ok());
        let twice = format!("{{{},\"n19999\":1}}", members.join(","));
        assert_eq!(reason(&twice), ("duplicate_name", "n19999".to_owned()));
    }
}
