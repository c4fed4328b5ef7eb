//! Pure: no I/O, no clock, no async.
//!
//! What a client may take for itself: time, bytes, a connection.

use std::time::Duration;

/// The largest head of an HTTP/1 request; a larger one is answered 431.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The same for HTTP/2, where a head is counted after decompression.
pub const MAX_HEADER_LIST_BYTES: u32 = 64 * 1024;

/// Requests of one HTTP/2 connection at one time.
pub const MAX_STREAMS: u32 = 100;

/// What an HTTP/2 client may send of a body, and of all bodies of its connection, before somebody reads it.
pub const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
pub const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;

/// What waits of one HTTP/2 answer for its client's window.
pub const STREAM_SEND_BYTES: usize = 64 * 1024;

/// Limits of one service's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at one time.
    pub max_open: usize,
    /// From the first byte of a request's head to its last.
    pub head_timeout: Duration,
    /// The longest pause in a body, and the longest that an answer waits for its client to read on.
    pub stall_timeout: Duration,
    /// Between two requests, and before the first one.
    pub idle_timeout: Duration,
    /// Bytes a second that a body must have come with on the whole, once `stall_timeout` is over; 0: any.
    pub min_body_rate: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_open: 20_000,
            head_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            min_body_rate: 4 * 1024,
        }
    }
}

impl ConnectionLimits {
    /// Of an address that only the operator knows: a few scrapers and probes.
    #[must_use]
    pub fn for_operators() -> Self {
        Self { max_open: 256, ..Self::default() }
    }

    /// Of the embedded ClickHouse: official clients stream inserts as slowly as their rows are made, and keep connections
    /// for longer than others; ClickHouse's own time-outs are these.
    #[must_use]
    pub fn for_clickhouse() -> Self {
        let patience = Duration::from_secs(300);
        Self { max_open: 4_096, stall_timeout: patience, idle_timeout: patience, min_body_rate: 0, ..Self::default() }
    }

    /// Nothing that waits for long.
    #[must_use]
    pub fn for_testing() -> Self {
        let short = Duration::from_millis(700);
        Self { max_open: 100, head_timeout: short, stall_timeout: short, idle_timeout: short, ..Self::default() }
    }

    /// How long a body may take by now, from the first time that it was waited for.
    #[must_use]
    pub fn body_time(&self, received: u64) -> Option<Duration> {
        let rate = u64::from(self.min_body_rate);
        (rate > 0).then(|| self.stall_timeout + Duration::from_millis(received.saturating_mul(1_000) / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_earns_its_time() {
        let limits = ConnectionLimits { min_body_rate: 1_000, ..ConnectionLimits::default() };
        assert_eq!(limits.body_time(0), Some(limits.stall_timeout));
        assert_eq!(limits.body_time(2_500), Some(limits.stall_timeout + Duration::from_millis(2_500)));
        assert_eq!(ConnectionLimits::for_clickhouse().body_time(u64::MAX), None);
    }
}
