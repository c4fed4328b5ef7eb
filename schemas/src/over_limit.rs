//! Pure: no I/O, no clock, no async.
//!
//! What the process tells its services about a request whose address has used up its limit.

use std::num::NonZeroU32;
use std::time::Duration;

/// In a request's extensions: answer it 429, and do no more for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OverLimit {
    /// Until the next request of the address is let in.
    pub wait: Duration,
    pub per_minute: NonZeroU32,
}
