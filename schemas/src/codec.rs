//! Pure: no I/O, no clock, no async.

/// Names of record headers.
pub mod header {
    /// Version of the value's schema, decimal.
    pub const SCHEMA: &str = "schema";
    pub const WORKSPACE: &str = "workspace";
    /// The event's `message_id`, so that a reader that needs only identity parses no JSON.
    pub const MESSAGE_ID: &str = "mid";
    /// The session the event belongs to, with the event time in milliseconds: `id@ms`.
    pub const SESSION: &str = "session";
    /// What the record is, where a topic carries more than one thing: `heartbeat` on `events.*`, where the key says so, too.
    pub const TYPE: &str = "type";
    /// Why a dead letter was rejected.
    pub const REASON: &str = "reason";

    /// The span that the record follows from (W3C Trace Context); only where that is sampled.
    pub const TRACE_PARENT: &str = "traceparent";

    pub const ALL: [&str; 7] = [SCHEMA, WORKSPACE, MESSAGE_ID, SESSION, TYPE, REASON, TRACE_PARENT];

    /// The interned name of a header read from the wire; unknown ones are not ours and are dropped.
    #[must_use]
    pub fn known(name: &str) -> Option<&'static str> {
        ALL.into_iter().find(|known| *known == name)
    }
}

/// The key of heartbeats on `events.*`. Keys of events have a `|` in them.
pub const HEARTBEAT_KEY: &[u8] = b"heartbeat";
