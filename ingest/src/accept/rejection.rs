//! Pure: no I/O, no clock, no async.
//!
//! Why events and requests are refused: stable codes for programs, sentences for people.

use std::borrow::Cow;

/// A stable code; it is the dead letter's `reason` and a metric's label, so a new one is added and none renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    InvalidUtf8,
    InvalidJson,
    InvalidEncoding,
    NotAnObject,
    EmptyBatch,
    TooManyEvents,
    BodyTooLarge,
    EventTooLarge,
    MissingField,
    InvalidField,
    UnknownType,
    TooDeep,
    InvalidString,
    NulCharacter,
    DuplicateName,
    NumberOutOfRange,
    InvalidTimestamp,
    TooEarly,
    FromTheFuture,
    UnknownWriteKey,
    MissingHeader,
    InvalidHeader,
    InvalidSignature,
}

impl Reason {
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::InvalidUtf8 => "invalid_utf8",
            Self::InvalidJson => "invalid_json",
            Self::InvalidEncoding => "invalid_encoding",
            Self::NotAnObject => "not_an_object",
            Self::EmptyBatch => "empty_batch",
            Self::TooManyEvents => "too_many_events",
            Self::BodyTooLarge => "body_too_large",
            Self::EventTooLarge => "event_too_large",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::UnknownType => "unknown_type",
            Self::TooDeep => "too_deep",
            Self::InvalidString => "invalid_string",
            Self::NulCharacter => "nul_character",
            Self::DuplicateName => "duplicate_name",
            Self::NumberOutOfRange => "number_out_of_range",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::TooEarly => "too_early",
            Self::FromTheFuture => "from_the_future",
            Self::UnknownWriteKey => "unknown_write_key",
            Self::MissingHeader => "missing_header",
            Self::InvalidHeader => "invalid_header",
            Self::InvalidSignature => "invalid_signature",
        }
    }

    /// Whether the sender should send less at once, rather than something else.
    #[must_use]
    pub fn is_size(self) -> bool {
        matches!(self, Self::TooManyEvents | Self::BodyTooLarge | Self::EventTooLarge)
    }
}

/// The whole request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    pub reason: Reason,
    pub field: Option<String>,
    pub detail: String,
}

impl Refusal {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into() }
    }

    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

/// One event of the request is refused; the others stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRejection<'a> {
    /// Place in the batch, 0 for a single event.
    pub index: usize,
    pub reason: Reason,
    /// From the body's top: `batch[3].properties.revenue`. `None` when the event as a whole is at fault.
    pub field: Option<String>,
    pub detail: String,
    pub original: &'a str,
}

/// What is wrong with an event, its field counted from the event's top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: Reason,
    /// Empty: the event as a whole.
    pub(super) field: String,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(reason: Reason, field: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, field: field.into(), detail: detail.into().into_owned() }
    }

    pub(super) fn missing(field: &str) -> Self {
        Self::new(Reason::MissingField, field, format!("`{field}` is required"))
    }

    /// The same fault seen from one level further up.
    pub(super) fn inside(mut self, name: &str) -> Self {
        if self.field.is_empty() {
            self.field = shortened(name);
        } else if self.field.starts_with('[') {
            self.field.insert_str(0, &shortened(name));
        } else {
            self.field = format!("{}.{}", shortened(name), self.field);
        }
        self
    }
}

/// Names come from outside and go into answers and logs: bounded, and without control characters.
pub(crate) fn shortened(name: &str) -> String {
    const LONGEST: usize = 64;
    let visible = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    let mut out: String = name.chars().take(LONGEST).map(visible).collect();
    if name.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}
