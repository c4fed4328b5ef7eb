//! Answers to metric queries, kept for a moment, so that a hundred people who look at one dashboard cost ClickHouse one.
//!
//! Two levels: this process's memory, and, where there is one, a cache that all processes of the query API share. Requests
//! for one plan at one time wait for the first of them. Nothing is invalidated: an answer is at most as old as its lifetime,
//! which is short for time that is open, and longer where late events alone can still change it.

pub mod memory;
pub mod redis;
pub mod shared;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::future::Cache;

use crate::problem::Problem;
use crate::state::{Clock, Elapsed};
use crate::telemetry::Telemetry;
use shared::{SharedCache, SharedCacheError, Stored};

/// See [`crate::query::plan::Plan::fingerprint`].
pub type Fingerprint = [u8; 32];

#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Of answers in memory; 0: nothing is kept, and nothing shared.
    pub bytes: u64,
    /// How old an answer about open time may be.
    pub open: Duration,
    /// How old an answer may be whose windows are all final.
    pub closed: Duration,
    /// Tells the data of this deployment from others' in the shared cache.
    pub namespace: String,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            bytes: 64 << 20,
            open: Duration::from_secs(1),
            closed: Duration::from_secs(60),
            namespace: String::new(),
        }
    }
}

/// What ClickHouse's rows came to.
#[derive(Clone, Debug)]
pub struct Computed {
    pub body: Bytes,
    /// Every window is final.
    pub is_closed: bool,
}

/// An answer on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    pub body: Bytes,
    /// Since it was computed; `None`: just now, for this request.
    pub age: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Kept {
    body: Bytes,
    /// On the clock that is never set.
    made_at: Duration,
    lifetime: Duration,
}

/// Failures are told to whoever waits for them, and not kept.
type Outcome = Result<Kept, Problem>;

struct Lifetime;

impl Lifetime {
    fn of(outcome: &Outcome) -> Duration {
        outcome.as_ref().map_or(Duration::ZERO, |kept| kept.lifetime)
    }
}

impl Expiry<Fingerprint, Outcome> for Lifetime {
    fn expire_after_create(&self, _: &Fingerprint, outcome: &Outcome, _: Instant) -> Option<Duration> {
        Some(Self::of(outcome))
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        outcome: &Outcome,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(Self::of(outcome))
    }
}

/// How long a shared cache that failed is left alone.
const REST: Duration = Duration::from_secs(2);
/// What an entry takes beside its body.
const OVERHEAD: usize = 256;
/// Larger answers are not shared: they would hold up the others on the connection.
const MOST_SHARED: usize = 1 << 20;

pub struct AnswerCache {
    config: CacheConfig,
    /// `None`: it is switched off.
    kept: Option<Cache<Fingerprint, Outcome>>,
    shared: Option<Arc<dyn SharedCache>>,
    /// Milliseconds of `elapsed`: until then the shared cache is left alone.
    rests_until: AtomicU64,
    clock: Clock,
    elapsed: Elapsed,
    telemetry: Arc<Telemetry>,
}

impl AnswerCache {
    #[must_use]
    pub fn new(
        config: CacheConfig,
        shared: Option<Arc<dyn SharedCache>>,
        clock: Clock,
        elapsed: Elapsed,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let size = |_: &Fingerprint, outcome: &Outcome| {
            let body = outcome.as_ref().map_or(0, |kept| kept.body.len());
            u32::try_from(body + OVERHEAD).unwrap_or(u32::MAX)
        };
        let kept = (config.bytes > 0)
            .then(|| Cache::builder().max_capacity(config.bytes).weigher(size).expire_after(Lifetime).build());
        let shared = shared.filter(|_| kept.is_some());
        Self { config, kept, shared, rests_until: AtomicU64::new(0), clock, elapsed, telemetry }
    }

    /// The answer that is kept, or what `compute` makes of ClickHouse's rows. `anew` asks for the latter.
    ///
    /// # Errors
    /// Those of `compute`; requests that waited for it are told the same.
    pub async fn answer(
        &self,
        plan: Fingerprint,
        anew: bool,
        compute: impl Future<Output = Result<Computed, Problem>> + Send,
    ) -> Result<Answered, Problem> {
        let Some(kept) = &self.kept else {
            self.count("clickhouse");
            return Ok(Answered { body: compute.await?.body, age: None });
        };
        let mut is_own = false;
        let loading = async {
            let (outcome, computed) = self.load(plan, anew, compute).await;
            is_own = computed;
            outcome
        };
        let now = (self.elapsed)();
        let is_old = |outcome: &Outcome| match outcome {
            Ok(kept) => anew || now.saturating_sub(kept.made_at) >= kept.lifetime,
            Err(_) => true,
        };
        let entry = kept.entry(plan).or_insert_with_if(loading, is_old).await;
        if !entry.is_fresh() {
            self.count("memory");
        }
        match entry.into_value() {
            Ok(kept) => {
                let age = (!is_own).then(|| (self.elapsed)().saturating_sub(kept.made_at));
                Ok(Answered { body: kept.body, age })
            }
            Err(problem) => {
                kept.invalidate(&plan).await;
                Err(problem)
            }
        }
    }

    /// From the shared cache, or computed; and whether it was computed.
    async fn load(
        &self,
        plan: Fingerprint,
        anew: bool,
        compute: impl Future<Output = Result<Computed, Problem>> + Send,
    ) -> (Outcome, bool) {
        let key = shared::key(&self.config.namespace, &plan);
        if !anew && let Some(kept) = self.shared_answer(&key).await {
            self.count("redis");
            return (Ok(kept), false);
        }
        // Before it is computed: what comes meanwhile may be missing.
        let (made_at, made_at_ms) = ((self.elapsed)(), (self.clock)());
        self.count("clickhouse");
        let computed = match compute.await {
            Ok(computed) => computed,
            Err(problem) => return (Err(problem), true),
        };
        let lifetime = if computed.is_closed { self.config.closed } else { self.config.open };
        let stored = Stored { made_at_ms, lifetime, body: computed.body };
        self.share(&key, &stored).await;
        (Ok(Kept { body: stored.body, made_at, lifetime }), true)
    }

    async fn shared_answer(&self, key: &str) -> Option<Kept> {
        let value = self.ask_shared(|shared| shared.get(key)).await??;
        let Some(stored) = Stored::decode(value) else {
            self.failed(&SharedCacheError("a value is damaged".to_owned()));
            return None;
        };
        let age = stored.age((self.clock)())?;
        let lifetime = stored.lifetime.min(self.config.open.max(self.config.closed));
        Some(Kept { made_at: (self.elapsed)().checked_sub(age)?, body: stored.body, lifetime })
            .filter(|_| age < lifetime)
    }

    async fn share(&self, key: &str, stored: &Stored) {
        if stored.body.len() <= MOST_SHARED && !stored.lifetime.is_zero() {
            // If it is not taken, the next process asks ClickHouse again.
            let _unanswered = self.ask_shared(|shared| shared.put(key, stored.encode(), stored.lifetime)).await;
        }
    }

    /// `None`: there is none, it rests, or it failed.
    async fn ask_shared<'a, T, Asking>(&'a self, ask: impl FnOnce(&'a dyn SharedCache) -> Asking) -> Option<T>
    where
        Asking: Future<Output = Result<T, SharedCacheError>>,
    {
        let shared = self.shared.as_deref()?;
        let now_ms = u64::try_from((self.elapsed)().as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        ask(shared).await.inspect_err(|error| self.failed(error)).ok()
    }

    fn failed(&self, error: &SharedCacheError) {
        self.telemetry.shared_cache_failures.inc();
        let until = (self.elapsed)() + REST;
        self.rests_until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        tracing::warn!(%error, "the shared cache failed; answers come without it for two seconds");
    }

    fn count(&self, from: &str) {
        self.telemetry.metric_answers.with_label_values(&[from]).inc();
    }

    /// `None`: there is no shared cache.
    pub async fn ping_shared(&self) -> Option<Result<(), SharedCacheError>> {
        match &self.shared {
            Some(shared) => Some(shared.ping().await),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize};

    use axum::http::StatusCode;
    use futures::future::join_all;

    use super::memory::MemoryShared;
    use super::*;

    const PLAN: Fingerprint = [7; 32];

    /// A process of the query API, and a ClickHouse whose every answer is another.
    struct Process {
        cache: AnswerCache,
        telemetry: Arc<Telemetry>,
        asked: AtomicUsize,
    }

    /// Milliseconds, of both clocks.
    type Now = Arc<AtomicI64>;

    fn process(now: &Now, shared: Option<&Arc<MemoryShared>>) -> Process {
        let telemetry = Arc::new(Telemetry::new().unwrap());
        let (wall, elapsed) = (now.clone(), now.clone());
        let shared = shared.map(|shared| shared.clone() as Arc<dyn SharedCache>);
        let cache = AnswerCache::new(
            CacheConfig::default(),
            shared,
            Arc::new(move || wall.load(Ordering::SeqCst)),
            Arc::new(move || Duration::from_millis(elapsed.load(Ordering::SeqCst).unsigned_abs())),
            telemetry.clone(),
        );
        Process { cache, telemetry, asked: AtomicUsize::new(0) }
    }

    impl Process {
        async fn ask(&self, plan: Fingerprint, anew: bool, is_closed: bool) -> Answered {
            let compute = async {
                tokio::task::yield_now().await;
                let number = self.asked.fetch_add(1, Ordering::SeqCst);
                Ok(Computed { body: Bytes::from(number.to_string()), is_closed })
            };
            self.cache.answer(plan, anew, compute).await.unwrap()
        }

        async fn body(&self) -> String {
            String::from_utf8(self.ask(PLAN, false, false).await.body.to_vec()).unwrap()
        }

        fn answers(&self, from: &str) -> u64 {
            self.telemetry.metric_answers.with_label_values(&[from]).get()
        }
    }

    fn at(ms: i64) -> Now {
        Arc::new(AtomicI64::new(ms))
    }

    #[tokio::test]
    async fn one_plan_at_one_time_is_computed_once() {
        let process = process(&at(5_000), None);
        let answers = join_all((0..50).map(|_| process.ask(PLAN, false, false))).await;
        assert!(answers.iter().all(|answer| answer.body == "0"), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.age.is_none()).count(), 1);
        assert_eq!(process.ask([8; 32], false, false).await.body, "1", "another plan");
        assert_eq!((process.answers("clickhouse"), process.answers("memory")), (2, 49));
    }

    #[tokio::test]
    async fn an_answer_is_as_old_as_it_may_be_and_no_older() {
        let now = at(5_000);
        let process = process(&now, None);
        process.ask(PLAN, false, false).await;
        process.ask([8; 32], false, true).await;
        now.store(5_999, Ordering::SeqCst);
        let answer = process.ask(PLAN, false, false).await;
        assert_eq!((answer.body.as_ref(), answer.age), (b"0".as_slice(), Some(Duration::from_millis(999))));
        now.store(6_000, Ordering::SeqCst);
        assert_eq!(process.body().await, "2");
        assert_eq!(process.ask([8; 32], false, true).await.body, "1", "closed time is kept for longer");
        let anew = process.ask([8; 32], true, true).await;
        assert_eq!((anew.body.as_ref(), anew.age), (b"3".as_slice(), None));
        assert_eq!(process.ask([8; 32], false, true).await.body, "3", "and what came anew is kept");
        now.store(65_999, Ordering::SeqCst);
        assert_eq!(process.ask([8; 32], false, true).await.body, "3");
        now.store(66_000, Ordering::SeqCst);
        assert_eq!(process.ask([8; 32], false, true).await.body, "4");
    }

    #[tokio::test]
    async fn failures_are_told_to_all_who_waited_and_not_kept() {
        let process = process(&at(5_000), None);
        let fail = || {
            let compute = async {
                tokio::task::yield_now().await;
                process.asked.fetch_add(1, Ordering::SeqCst);
                Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "too slow"))
            };
            process.cache.answer(PLAN, false, compute)
        };
        let failures = join_all((0..9).map(|_| fail())).await;
        assert!(failures.iter().all(|failure| failure.as_ref().unwrap_err().status == StatusCode::GATEWAY_TIMEOUT));
        assert_eq!(process.asked.load(Ordering::SeqCst), 1);
        assert_eq!(process.body().await, "1");
    }

    #[tokio::test]
    async fn whoever_goes_away_leaves_the_work_to_those_who_wait() {
        let process = process(&at(5_000), None);
        {
            let first = process.cache.answer(PLAN, false, std::future::pending());
            let mut first = std::pin::pin!(first);
            assert!(futures::poll!(first.as_mut()).is_pending());
        }
        assert_eq!(process.body().await, "0");
    }

    #[tokio::test]
    async fn processes_share_what_is_fresh() {
        let (now, shared) = (at(5_000), Arc::new(MemoryShared::default()));
        let (first, second) = (process(&now, Some(&shared)), process(&now, Some(&shared)));
        first.ask(PLAN, false, false).await;
        now.store(5_400, Ordering::SeqCst);
        let answer = second.ask(PLAN, false, false).await;
        assert_eq!((answer.body.as_ref(), answer.age), (b"0".as_slice(), Some(Duration::from_millis(400))));
        assert_eq!((second.answers("redis"), second.answers("clickhouse")), (1, 0));
        // Its age goes with it from process to process.
        now.store(6_000, Ordering::SeqCst);
        second.asked.store(70, Ordering::SeqCst);
        assert_eq!(second.body().await, "70");
        // Of another deployment, or made by a clock that is ahead: not taken.
        now.store(5_900, Ordering::SeqCst);
        let third = process(&now, Some(&shared));
        third.asked.store(80, Ordering::SeqCst);
        assert_eq!(third.body().await, "80");
    }

    #[tokio::test]
    async fn a_shared_cache_that_fails_rests_and_nobody_notices() {
        let (now, shared) = (at(5_000), Arc::new(MemoryShared::default()));
        let process = process(&now, Some(&shared));
        shared.is_away(true);
        assert_eq!(process.body().await, "0");
        assert_eq!(shared.asked(), 1, "not again for the answer's sake");
        now.store(6_999, Ordering::SeqCst);
        assert_eq!(process.body().await, "1");
        assert_eq!((shared.asked(), process.telemetry.shared_cache_failures.get()), (1, 1));
        shared.is_away(false);
        now.store(8_000, Ordering::SeqCst);
        assert_eq!(process.body().await, "2");
        assert_eq!(shared.asked(), 3, "looked up and kept");
        for (damaged, failures) in [(b"".as_slice(), 2), (b"short", 3)] {
            shared.overwrite(damaged);
            now.fetch_add(3_000, Ordering::SeqCst);
            process.body().await;
            assert_eq!((process.answers("redis"), process.telemetry.shared_cache_failures.get()), (0, failures));
        }
    }

    #[tokio::test]
    async fn it_may_be_switched_off() {
        let now = at(0);
        let mut process = process(&now, None);
        process.cache = AnswerCache::new(
            CacheConfig { bytes: 0, ..CacheConfig::default() },
            Some(Arc::new(MemoryShared::default())),
            Arc::new(|| 0),
            Arc::new(|| Duration::ZERO),
            process.telemetry.clone(),
        );
        assert_eq!((process.body().await, process.body().await), ("0".to_owned(), "1".to_owned()));
        assert!(process.cache.ping_shared().await.is_none());
    }
}
