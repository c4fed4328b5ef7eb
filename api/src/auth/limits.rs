//! Requests a minute, by key or token (GCRA), and the headers that tell of them (draft-ietf-httpapi-ratelimit-headers).

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use governor::clock::Clock as GovernorClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use neonhub_schemas::over_limit::OverLimit;

use crate::problem::Problem;
use crate::state::Elapsed;

/// Callers that are remembered at one time; beyond them those are forgotten whose quota is whole.
const MOST_CALLERS: usize = 100_000;
const MINUTE: Duration = Duration::from_secs(60);

/// The shell's clock as governor wants it.
#[derive(Clone)]
struct LimitClock(Elapsed);

impl GovernorClock for LimitClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from((self.0)())
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, LimitClock, StateInformationMiddleware>;

struct Seen {
    limiter: Limiter,
    per_minute: NonZeroU32,
    last: Duration,
}

/// What a request leaves of its caller's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    per_minute: NonZeroU32,
    requests: u32,
}

/// In a request's extensions: where the one who takes from a quota leaves word for the answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeftOfQuota(Arc<OnceLock<Left>>);

impl LeftOfQuota {
    pub(crate) fn tell(&self, left: Left) {
        // A request takes once.
        let _first = self.0.set(left);
    }

    /// Nothing where there is no quota, or the answer says it already.
    pub(crate) fn write_headers(&self, headers: &mut HeaderMap) {
        let Some(Left { per_minute, requests }) = self.0.get().copied() else { return };
        for (name, value) in told(per_minute, requests, MINUTE.as_secs()) {
            headers.entry(name).or_insert(value);
        }
    }
}

pub struct RateLimits {
    elapsed: Elapsed,
    callers: Mutex<HashMap<String, Seen>>,
}

impl RateLimits {
    #[must_use]
    pub fn new(elapsed: Elapsed) -> Self {
        Self { elapsed, callers: Mutex::new(HashMap::new()) }
    }

    /// Takes one request of a caller that may make so many a minute, all of them at once. `None`: there is no limit.
    ///
    /// # Errors
    /// 429 with `Retry-After` and `RateLimit-Policy`.
    pub fn take(&self, whose: &str, per_minute: u32) -> Result<Option<Left>, Problem> {
        let Some(per_minute) = NonZeroU32::new(per_minute) else { return Ok(None) };
        let now = (self.elapsed)();
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= MOST_CALLERS && !callers.contains_key(whose) {
            // After a minute without a request the whole quota is there again: nothing is lost.
            callers.retain(|_, seen| now.saturating_sub(seen.last) < MINUTE);
        }
        let clock = LimitClock(self.elapsed.clone());
        let fresh = || Seen {
            limiter: RateLimiter::direct_with_clock(Quota::per_minute(per_minute), clock.clone()).with_middleware(),
            per_minute,
            last: now,
        };
        let seen = callers.entry(whose.to_owned()).or_insert_with(fresh);
        if seen.per_minute != per_minute {
            *seen = fresh();
        }
        seen.last = now;
        match seen.limiter.check() {
            Ok(quota) => Ok(Some(Left { per_minute, requests: quota.remaining_burst_capacity() })),
            Err(not_until) => Err(too_many(not_until.wait_time_from(clock.now()), per_minute, "a minute")),
        }
    }
}

/// The same for an address, whose requests are counted before they come here.
pub(crate) fn over_limit(over: &OverLimit) -> Problem {
    too_many(over.wait, over.per_minute, "a minute from this address")
}

fn too_many(wait: Duration, per_minute: NonZeroU32, per: &str) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let detail = format!("more than {per_minute} requests {per}");
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    told(per_minute, 0, seconds.max(1)).fold(problem, |problem, (name, value)| problem.with_header(name, value))
}

/// The quota, and what is left of it for so many seconds.
fn told(per_minute: NonZeroU32, left: u32, seconds: u64) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let policy = HeaderValue::try_from(format!("\"requests\";q={per_minute};w={}", MINUTE.as_secs()));
    let state = HeaderValue::try_from(format!("\"requests\";r={left};t={seconds}"));
    let names = ["ratelimit-policy", "ratelimit"].map(HeaderName::from_static);
    names.into_iter().zip([policy, state]).filter_map(|(name, value)| Some((name, value.ok()?)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn each_caller_has_its_own_quota_and_gets_it_back() {
        let now = Arc::new(AtomicU64::new(0));
        let of_clock = Arc::clone(&now);
        let limits = RateLimits::new(Arc::new(move || Duration::from_millis(of_clock.load(Ordering::SeqCst))));
        for _ in 0..3 {
            assert!(limits.take("a", 3).is_ok());
        }
        let refused = limits.take("a", 3).unwrap_err();
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(limits.take("b", 3).is_ok());
        now.fetch_add(20_000, Ordering::SeqCst);
        assert!(limits.take("a", 3).is_ok());
        assert!(limits.take("a", 3).is_err());
        assert!(limits.take("a", 10).is_ok(), "a changed quota counts at once");
        assert!(limits.take("c", 0).is_ok(), "0: no limit");
    }
}
