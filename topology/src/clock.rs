//! The clocks and the source of random bits: read here and handed in everywhere else.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

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

/// Time since this call, on a clock that is never set.
#[must_use]
pub fn elapsed() -> Arc<dyn Fn() -> Duration + Send + Sync> {
    let begun = Instant::now();
    Arc::new(move || begun.elapsed())
}

/// So many are asked for at once: the system call takes longer than all else about an id.
const DRAWN_AT_ONCE: usize = 64;

thread_local! {
    static DRAWN: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// Random bits for secrets, which are never made of anything less.
///
/// # Errors
/// The operating system gives none.
pub fn secret_bits() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; size_of::<u128>()];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}

/// 128 random bits from the operating system, for ids.
#[must_use]
pub fn random() -> u128 {
    DRAWN.with_borrow_mut(|drawn| {
        if drawn.is_empty() {
            let mut bytes = [0; DRAWN_AT_ONCE * size_of::<u128>()];
            match getrandom::fill(&mut bytes) {
                Ok(()) => drawn.extend(bytes.as_chunks().0.iter().copied().map(u128::from_le_bytes)),
                // Ids made of the time alone still differ by the millisecond and the counter of the caller.
                Err(error) => tracing::error!(%error, "the operating system gives no random bits"),
            }
        }
        drawn.pop().unwrap_or_else(|| now_ms().cast_unsigned().into())
    })
}
