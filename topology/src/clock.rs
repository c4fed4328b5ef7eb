//! The wall clock and the source of random bits: read here and handed in everywhere else.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now_ms() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[must_use]
pub fn wall() -> Clock {
    Arc::new(now_ms)
}

/// 128 random bits from the operating system.
#[must_use]
pub fn random() -> u128 {
    let mut bytes = [0; 16];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // Ids made of the time alone still differ by the millisecond and the counter of the caller.
        tracing::error!(%error, "the operating system gives no random bits");
        return now_ms().cast_unsigned().into();
    }
    u128::from_le_bytes(bytes)
}
