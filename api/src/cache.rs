//! Answers to metric queries, kept for a moment, so that a hundred people who look at one dashboard cost ClickHouse one.
//!
//! Two levels: this process's memory, and, where there is one, a cache that all processes of the query API share. Requests
//! for one plan at one time wait for the first of them. Nothing is invalidated: an answer is at most as old as its lifetime,
//! which is short for time that is open, and longer where late events alone can still change it; and as the query takes.

pub mod memory;
pub mod redis;
pub mod shared;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
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
    /// How old an answer about open time may be when it is given to another request.
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
    /// Before ClickHouse was asked, on the clock that is never set.
    made_at: Duration,
    /// The same, Unix milliseconds.
    made_at_ms: i64,
    is_closed: bool,
    is_shared: bool,
}

/// Failures are told to whoever waits for them, and not kept.
type Outcome = Result<Kept, Problem>;

/// When an entry leaves memory. Whether it may still be given out is decided by [`AnswerCache::is_old`].
struct Residence(Duration);

impl Residence {
    fn of(&self, outcome: &Outcome) -> Duration {
        if outcome.is_ok() { self.0 } else { Duration::ZERO }
    }
}

impl Expiry<Fingerprint, Outcome> for Residence {
    fn expire_after_create(&self, _: &Fingerprint, outcome: &Outcome, _: Instant) -> Option<Duration> {
        Some(self.of(outcome))
    }

    fn expire_after_update(
        &self,
        _: &Fingerprint,
        outcome: &Outcome,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(self.of(outcome))
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
        let residence = Residence(config.open.max(config.closed) + REST);
        let kept = (config.bytes > 0)
            .then(|| Cache::builder().max_capacity(config.bytes).weigher(size).expire_after(residence).build());
        let shared = shared.filter(|_| kept.is_some());
        Self { config, kept, shared, rests_until: AtomicU64::new(0), clock, elapsed, telemetry }
    }

    /// The answer that is kept, or what `compute` makes of ClickHouse's rows. `anew` asks for one of no earlier than now.
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
            let computed = compute.await?;
            self.count("clickhouse");
            return Ok(Answered { body: computed.body, age: None });
        };
        let asked_at = (self.elapsed)();
        let mut loading = pin!(self.load(plan, anew, compute));
        let entry = loop {
            let is_old = |outcome: &Outcome| self.is_old(outcome, asked_at, anew);
            let entry = kept.entry(plan).or_insert_with_if(loading.as_mut(), is_old).await;
            // Whoever waited for another's is given it whenever that was begun, unless it is to be a new one.
            let is_too_old = |kept: &Kept| anew && kept.made_at < asked_at;
            if entry.is_fresh() || !entry.value().as_ref().is_ok_and(is_too_old) {
                break entry;
            }
        };
        let is_own = entry.is_fresh();
        match entry.into_value() {
            Ok(answer) if is_own && !answer.is_shared => {
                self.count("clickhouse");
                self.share(plan, &answer).await;
                Ok(Answered { body: answer.body, age: None })
            }
            Ok(answer) => {
                self.count(if is_own { "redis" } else { "memory" });
                Ok(Answered { age: Some((self.elapsed)().saturating_sub(answer.made_at)), body: answer.body })
            }
            Err(problem) if is_own => {
                kept.invalidate(&plan).await;
                Err(problem)
            }
            // The cause stands in the log beside another request's id.
            Err(problem) if problem.status == StatusCode::INTERNAL_SERVER_ERROR => {
                Err(Problem::internal(&"the same query of another request failed, for which this one waited"))
            }
            Err(problem) => Err(problem),
        }
    }

    fn is_old(&self, outcome: &Outcome, now: Duration, anew: bool) -> bool {
        outcome.as_ref().map_or(true, |kept| anew || now.saturating_sub(kept.made_at) >= self.lifetime(kept.is_closed))
    }

    fn lifetime(&self, is_closed: bool) -> Duration {
        if is_closed { self.config.closed } else { self.config.open }
    }

    /// From the shared cache, or computed.
    async fn load(
        &self,
        plan: Fingerprint,
        anew: bool,
        compute: impl Future<Output = Result<Computed, Problem>> + Send,
    ) -> Outcome {
        if !anew && let Some(kept) = self.shared_answer(plan).await {
            return Ok(kept);
        }
        // Before it is computed: what comes meanwhile may be missing.
        let (made_at, made_at_ms) = ((self.elapsed)(), (self.clock)());
        let Computed { body, is_closed } = compute.await?;
        Ok(Kept { body, made_at, made_at_ms, is_closed, is_shared: false })
    }

    async fn shared_answer(&self, plan: Fingerprint) -> Option<Kept> {
        let key = shared::key(&self.config.namespace, &plan);
        let value = self.ask_shared(|shared| shared.get(&key)).await??;
        let Some(Stored { made_at_ms, is_closed, body }) = Stored::decode(value) else {
            // It is written over by the answer that is computed now.
            self.telemetry.shared_cache_failures.inc();
            return None;
        };
        // One of the future was made by a clock that is ahead of ours.
        let age = Duration::from_millis(u64::try_from((self.clock)().checked_sub(made_at_ms)?).ok()?);
        let made_at = (self.elapsed)().checked_sub(age)?;
        let kept = Kept { body, made_at, made_at_ms, is_closed, is_shared: true };
        Some(kept).filter(|_| age < self.lifetime(is_closed))
    }

    /// What is not taken there the next process asks ClickHouse for.
    async fn share(&self, plan: Fingerprint, kept: &Kept) {
        let lifetime = self.lifetime(kept.is_closed);
        if kept.body.len() <= MOST_SHARED && !lifetime.is_zero() {
            let stored = Stored { made_at_ms: kept.made_at_ms, is_closed: kept.is_closed, body: kept.body.clone() };
            let key = shared::key(&self.config.namespace, &plan);
            let _unanswered = self.ask_shared(|shared| shared.put(&key, stored.encode(), lifetime)).await;
        }
    }

    /// `None`: there is none, it rests, or it failed.
    async fn ask_shared<'a, T, Asking>(&'a self, ask: impl FnOnce(&'a dyn SharedCache) -> Asking) -> Option<T>
    where
        Asking: Future<Output = Result<T, SharedCacheError>>,
    {
        let shared = self.shared.as_deref()?;
        if whole_ms((self.elapsed)()) < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        ask(shared).await.inspect_err(|error| self.failed(error)).ok()
    }

    fn failed(&self, error: &SharedCacheError) {
        self.telemetry.shared_cache_failures.inc();
        self.rests_until.store(whole_ms((self.elapsed)() + REST), Ordering::Relaxed);
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

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, AtomicUsize};

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
    async fn a_new_answer_is_none_that_was_begun_before_it_was_asked_for() {
        let now = at(5_000);
        let process = process(&now, None);
        let (begun, go_on) = (tokio::sync::Notify::new(), tokio::sync::Notify::new());
        let slow = process.cache.answer(PLAN, false, async {
            begun.notify_one();
            go_on.notified().await;
            Ok(Computed { body: Bytes::from_static(b"slow"), is_closed: false })
        });
        let others = async {
            begun.notified().await;
            now.store(9_000, Ordering::SeqCst);
            let (mut waits, mut anew) = (pin!(process.ask(PLAN, false, false)), pin!(process.ask(PLAN, true, false)));
            assert!(futures::poll!(waits.as_mut()).is_pending() && futures::poll!(anew.as_mut()).is_pending());
            go_on.notify_one();
            (waits.await, anew.await)
        };
        let (slow, (waited, anew)) = tokio::join!(slow, others);
        assert_eq!((slow.unwrap().age, waited.age), (None, Some(Duration::from_secs(4))));
        assert_eq!((waited.body.as_ref(), anew.body.as_ref(), anew.age), (b"slow".as_slice(), b"0".as_slice(), None));
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
        assert_eq!((process.answers("clickhouse"), process.answers("memory")), (0, 0));
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
        // Made by a clock that is ahead: not taken.
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
        assert_eq!(shared.asked(), 7, "each was written over");
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
