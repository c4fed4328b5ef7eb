//! Pure: no I/O, no clock, no async.
//!
//! The columns of an event, by name.

use neonhub_schemas::event::FieldPath;

/// Text columns of the table `events`, as they are asked for.
pub const TEXTS: [&str; 12] = [
    "message_id",
    "source",
    "kind",
    "name",
    "user_id",
    "anonymous_id",
    "group_id",
    "previous_id",
    "session_id",
    "campaign",
    "platform",
    "value",
];

/// Something an event has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Column {
    /// Index into [`TEXTS`].
    Text(usize),
    /// The anonymous id, else the user, else the message.
    Actor,
    Timestamp,
    ReceivedAt,
    Properties,
    Context,
    Property(Vec<String>),
    InContext(Vec<String>),
}

impl Column {
    /// # Errors
    /// Says what columns there are.
    pub fn read(name: &str) -> Result<Self, String> {
        if let Some(index) = TEXTS.iter().position(|known| *known == name) {
            return Ok(Self::Text(index));
        }
        match name {
            "timestamp" => return Ok(Self::Timestamp),
            "received_at" => return Ok(Self::ReceivedAt),
            "properties" => return Ok(Self::Properties),
            "context" => return Ok(Self::Context),
            "actor" => return Ok(Self::Actor),
            _ => {}
        }
        match name.parse() {
            Ok(FieldPath::Property(path)) => Ok(Self::Property(path)),
            Ok(FieldPath::Context(path)) => Ok(Self::InContext(path)),
            _ => Err(format!(
                "`{name}` is no column: use {}, timestamp, received_at, actor, properties, context, properties.… or context.…",
                TEXTS.join(", ")
            )),
        }
    }
}

/// The columns of an answer that names none.
pub const DEFAULTS: [&str; 10] = [
    "timestamp",
    "message_id",
    "source",
    "kind",
    "name",
    "user_id",
    "anonymous_id",
    "session_id",
    "campaign",
    "properties",
];
