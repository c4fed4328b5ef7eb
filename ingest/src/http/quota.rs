//! Quotas by write key: events per second with a burst (GCRA), and the headers that tell of them
//! (draft-ietf-httpapi-ratelimit-headers).

use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock as GovernorClock, Reference as _};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use neonhub_schemas::over_limit::OverLimit;

use super::state::Elapsed;

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The shell's clock as governor wants it.
#[derive(Clone)]
struct QuotaClock(Elapsed);

impl GovernorClock for QuotaClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from((self.0)())
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, QuotaClock, StateInformationMiddleware>;

pub(super) struct KeyQuota {
    limiter: Limiter,
    clock: QuotaClock,
    /// Seconds in which an empty quota fills up again.
    window: u64,
    /// The same in every answer.
    policy: Option<HeaderValue>,
}

/// What the quota says to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted {
        remaining: u32,
    },
    Later {
        wait: Duration,
    },
    /// More than the quota will ever allow at once.
    Never {
        burst: u32,
        remaining: u32,
    },
}

impl KeyQuota {
    pub(super) fn new(events_per_second: u32, burst: u32, elapsed: &Elapsed) -> Self {
        let rate = NonZeroU32::new(events_per_second).unwrap_or(NonZeroU32::MIN);
        let at_once = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let clock = QuotaClock(elapsed.clone());
        let limiter = RateLimiter::direct_with_clock(Quota::per_second(rate).allow_burst(at_once), clock.clone());
        let window = u64::from(at_once.get().div_ceil(rate.get()));
        let policy = format!("\"events\";q={at_once};w={window}");
        let policy = HeaderValue::from_str(&policy).ok();
        Self { limiter: limiter.with_middleware(), clock, window, policy }
    }

    pub(super) fn take(&self, events: usize) -> Verdict {
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        let events = NonZeroU32::new(events).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(events) {
            Ok(Ok(snapshot)) => Verdict::Granted { remaining: snapshot.remaining_burst_capacity() },
            Ok(Err(until)) => {
                let wait = until.earliest_possible().duration_since(self.clock.now());
                Verdict::Later { wait: wait.into() }
            }
            Err(capacity) => {
                // What is left is told only to one who takes, so asking for too much costs an event.
                let remaining = self.limiter.check().map_or(0, |snapshot| snapshot.remaining_burst_capacity());
                Verdict::Never { burst: capacity.0, remaining }
            }
        }
    }

    pub(super) fn write_headers(&self, verdict: Verdict, headers: &mut HeaderMap) {
        let (remaining, reset) = match verdict {
            Verdict::Granted { remaining } | Verdict::Never { remaining, .. } => (remaining, self.window),
            Verdict::Later { wait } => (0, whole_seconds(wait)),
        };
        let mut state = String::with_capacity(48);
        // Writing into memory cannot fail.
        let _infallible = write!(state, "\"events\";r={remaining};t={reset}");
        insert(headers, self.policy.clone(), HeaderValue::try_from(state).ok());
    }
}

fn insert(headers: &mut HeaderMap, policy: Option<HeaderValue>, state: Option<HeaderValue>) {
    for (name, value) in [(RATELIMIT_POLICY, policy), (RATELIMIT, state)] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// The same for the limit of an address.
pub(super) fn write_over_limit(over: &OverLimit, headers: &mut HeaderMap) {
    let policy = format!("\"requests\";q={};w=60", over.per_minute);
    let state = format!("\"requests\";r=0;t={}", whole_seconds(over.wait));
    insert(headers, HeaderValue::try_from(policy).ok(), HeaderValue::try_from(state).ok());
}

/// Rounded up, and never 0: a client that waits so long is let in.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    let rest = u64::from(wait.subsec_nanos() > 0);
    (wait.as_secs() + rest).max(1)
}

/// Dead letters of senders that are not known are rationed, or anybody could fill the log.
pub(super) struct StrangerLimit(Limiter);

impl StrangerLimit {
    pub(super) fn new(elapsed: &Elapsed) -> Self {
        const PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
        let limiter = RateLimiter::direct_with_clock(Quota::per_second(PER_SECOND), QuotaClock(elapsed.clone()));
        Self(limiter.with_middleware())
    }

    pub(super) fn allows(&self) -> bool {
        self.0.check().is_ok()
    }
}
