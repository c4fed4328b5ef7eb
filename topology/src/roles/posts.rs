//! Workers' posts: a thread each. A worker that fails begins again from what is committed. One whose commit never ends is left
//! behind, and another takes its post: librdkafka's transactional calls may wait for ever, whatever time they were given
//! (librdkafka #4420, #5456, #5511). Kafka fences the one left behind, since the other has its transactional id and its
//! member's id; a commit of its that ends after all tells it so.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use neonhub_processors::engine::{Clock, CommitUnit, Committer, EngineError};
use prometheus::IntCounter;

use super::Stop;

/// A commit has three waits of at most 10 s each (reports, offsets, the commit itself).
const LONGEST_COMMIT_MS: i64 = 40_000;

/// What a worker does until it is told to stop, or fails.
pub type Work = Arc<dyn Fn(&Watch) -> Result<(), EngineError> + Send + Sync>;

/// What is known of a worker from outside. Clones share it.
#[derive(Clone)]
pub struct Watch(Arc<Watched>);

struct Watched {
    clock: Clock,
    is_at_work: AtomicBool,
    is_left_behind: AtomicBool,
    /// [`NEVER`] while it does not commit.
    commits_since_ms: AtomicI64,
}

const NEVER: i64 = i64::MAX;

impl Watch {
    fn new(clock: &Clock) -> Self {
        Self(Arc::new(Watched {
            clock: Arc::clone(clock),
            is_at_work: AtomicBool::new(false),
            is_left_behind: AtomicBool::new(false),
            commits_since_ms: AtomicI64::new(NEVER),
        }))
    }

    /// Tells of the commits that go through it.
    pub fn over(&self, committer: Box<dyn Committer>) -> Box<dyn Committer> {
        Box::new(WatchedCommitter { inner: committer, watch: self.clone() })
    }

    /// At work until what is returned is dropped.
    pub fn at_work(&self) -> AtWork {
        self.0.is_at_work.store(true, Ordering::Relaxed);
        AtWork(self.clone())
    }

    fn is_left_behind(&self) -> bool {
        self.0.is_left_behind.load(Ordering::Acquire)
    }

    fn commits_for_ever(&self) -> bool {
        let since_ms = self.0.commits_since_ms.load(Ordering::Acquire);
        since_ms != NEVER && (self.0.clock)().saturating_sub(since_ms) > LONGEST_COMMIT_MS
    }
}

pub struct AtWork(Watch);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.is_at_work.store(false, Ordering::Relaxed);
    }
}

struct WatchedCommitter {
    inner: Box<dyn Committer>,
    watch: Watch,
}

impl Committer for WatchedCommitter {
    fn commit(&mut self, unit: CommitUnit) -> Result<(), EngineError> {
        let since_ms = &self.watch.0.commits_since_ms;
        since_ms.store((self.watch.0.clock)(), Ordering::Release);
        let outcome = self.inner.commit(unit);
        since_ms.store(NEVER, Ordering::Release);
        if self.watch.is_left_behind() {
            return Err(EngineError::Fenced("the commit took so long that another worker has the post".to_owned()));
        }
        outcome
    }
}

/// What every worker of a post needs.
struct Place {
    name: String,
    work: Work,
    stop: Stop,
    clock: Clock,
    restarts: IntCounter,
}

pub struct Post {
    place: Arc<Place>,
    worker: Mutex<Worker>,
}

struct Worker {
    watch: Watch,
    thread: Option<JoinHandle<()>>,
}

impl Post {
    /// # Errors
    /// The system gives no thread.
    pub fn fill(name: String, work: Work, stop: Stop, clock: Clock, restarts: IntCounter) -> std::io::Result<Self> {
        let place = Arc::new(Place { name, work, stop, clock, restarts });
        let worker = Mutex::new(place.begin()?);
        Ok(Self { place, worker })
    }

    fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Not waiting to be made anew.
    pub fn is_at_work(&self) -> bool {
        self.worker().watch.0.is_at_work.load(Ordering::Relaxed)
    }

    /// Gives the post to another worker when this one's commit does not end.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn look_after(&self) -> std::io::Result<()> {
        let mut worker = self.worker();
        if self.place.stop.is_stopped() || !worker.watch.commits_for_ever() {
            return Ok(());
        }
        tracing::error!(processor = self.place.name, "a commit does not end: another worker takes the post");
        self.place.restarts.inc();
        worker.watch.0.is_left_behind.store(true, Ordering::Release);
        *worker = self.place.begin()?;
        Ok(())
    }

    /// Waits for the worker, which ends when it is told to stop, but not for a commit that never ends.
    pub fn join(&self) {
        let (watch, thread) = {
            let mut worker = self.worker();
            (worker.watch.clone(), worker.thread.take())
        };
        let Some(thread) = thread else { return };
        while !thread.is_finished() {
            if watch.commits_for_ever() {
                tracing::error!(processor = self.place.name, "a commit does not end: its worker is left behind");
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        if thread.join().is_err() {
            tracing::error!(processor = self.place.name, "a worker's thread panicked");
        }
    }
}

impl Place {
    fn begin(self: &Arc<Self>) -> std::io::Result<Worker> {
        let watch = Watch::new(&self.clock);
        let (place, of_thread) = (Arc::clone(self), watch.clone());
        let thread = std::thread::Builder::new().name(self.name.clone()).spawn(move || place.hold(&of_thread))?;
        Ok(Worker { watch, thread: Some(thread) })
    }

    /// Works until it is told to stop; after an error it begins again, later each time.
    fn hold(&self, watch: &Watch) {
        let mut backoff = Duration::from_millis(100);
        while !self.stop.is_stopped() && !watch.is_left_behind() {
            let began_ms = (self.clock)();
            // A panic is a bug, but one that must not stop the others' events for good.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.work)(watch)));
            let outcome = outcome.unwrap_or_else(|_| Err(EngineError::Fatal("the worker panicked".to_owned())));
            let Err(error) = outcome else { break };
            let processor = &self.name;
            if watch.is_left_behind() {
                tracing::warn!(processor, %error, "the worker that was left behind has ended");
                break;
            }
            self.restarts.inc();
            if (self.clock)() - began_ms > 30_000 {
                backoff = Duration::from_millis(100);
            }
            let backoff_ms = backoff.as_millis();
            if matches!(error, EngineError::Fatal(_)) {
                tracing::error!(processor, %error, backoff_ms, "worker begins again, but this needs a person");
            } else {
                tracing::warn!(processor, %error, backoff_ms, "worker begins again from what is committed");
            }
            if self.stop.wait(backoff) {
                break;
            }
            backoff = (backoff * 2).min(Duration::from_secs(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Its first commit waits until somebody lets it go.
    struct Hanging(Receiver<()>);

    impl Committer for Hanging {
        fn commit(&mut self, _: CommitUnit) -> Result<(), EngineError> {
            let _ended = self.0.recv();
            Ok(())
        }
    }

    /// A post whose first worker hangs in its commit, what it says, and how to let the commit end.
    struct Scene {
        post: Post,
        stop: Stop,
        now_ms: Arc<AtomicI64>,
        said: Receiver<String>,
        let_go: Sender<()>,
    }

    fn scene() -> Scene {
        let (say, said) = channel();
        let (let_go, held) = channel();
        let (stop, now_ms) = (Stop::default(), Arc::new(AtomicI64::new(1_000)));
        let hanging = Mutex::new(Some(Hanging(held)));
        let of_work = stop.clone();
        let work: Work = Arc::new(move |watch: &Watch| {
            let _at_work = watch.at_work();
            let first = hanging.lock().unwrap().take();
            if let Some(first) = first {
                say.send("first".to_owned()).unwrap();
                let outcome = watch.over(Box::new(first)).commit(CommitUnit::default());
                say.send(format!("{outcome:?}")).unwrap();
                return outcome;
            }
            say.send("another".to_owned()).unwrap();
            while !of_work.wait(Duration::from_secs(60)) {}
            Ok(())
        });
        let of_clock = Arc::clone(&now_ms);
        let clock: Clock = Arc::new(move || of_clock.load(Ordering::Relaxed));
        let restarts = IntCounter::new("restarts", "of the test").unwrap();
        let post = Post::fill("test".to_owned(), work, stop.clone(), clock, restarts).unwrap();
        Scene { post, stop, now_ms, said, let_go }
    }

    impl Scene {
        fn hears(&self) -> String {
            self.said.recv_timeout(Duration::from_secs(60)).unwrap()
        }

        fn wait_until_it_commits(&self) {
            assert_eq!(self.hears(), "first");
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while self.post.worker().watch.0.commits_since_ms.load(Ordering::Acquire) == NEVER {
                assert!(std::time::Instant::now() < deadline, "it does not commit");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_worker_whose_commit_never_ends_is_replaced_and_told_when_it_comes_back() {
        let scene = scene();
        scene.wait_until_it_commits();
        scene.now_ms.fetch_add(LONGEST_COMMIT_MS, Ordering::Relaxed);
        scene.post.look_after().unwrap();
        assert!(scene.said.try_recv().is_err(), "it still has time");
        scene.now_ms.fetch_add(1, Ordering::Relaxed);
        scene.post.look_after().unwrap();
        assert_eq!(scene.hears(), "another");
        assert!(scene.post.is_at_work());
        assert_eq!(scene.post.place.restarts.get(), 1);
        scene.let_go.send(()).unwrap();
        assert!(scene.hears().starts_with("Err(Fenced("), "the first commit's outcome must not count");
        scene.post.look_after().unwrap();
        assert_eq!(scene.post.place.restarts.get(), 1);
        scene.stop.stop();
        scene.post.join();
    }

    #[test]
    fn stopping_does_not_wait_for_a_commit_that_never_ends() {
        let scene = scene();
        scene.wait_until_it_commits();
        scene.stop.stop();
        scene.now_ms.fetch_add(LONGEST_COMMIT_MS + 1, Ordering::Relaxed);
        scene.post.look_after().unwrap();
        scene.post.join();
    }
}
