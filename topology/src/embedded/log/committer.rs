//! Group commit: a bounded queue, and one thread that takes all that waits, writes it at once, and answers everyone.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Shared;
use super::error::LogError;
use super::unit::{Appended, PreparedUnit};

type Outcome = Result<Appended, LogError>;

/// Whom to answer. A receiver that went away is no error: the commit stands.
pub enum Answer {
    Task(oneshot::Sender<Outcome>),
    Thread(mpsc::SyncSender<Outcome>),
}

impl Answer {
    pub fn send(self, outcome: Outcome) {
        match self {
            Self::Task(sender) => drop(sender.send(outcome)),
            Self::Thread(sender) => drop(sender.send(outcome)),
        }
    }
}

struct Waiting {
    unit: PreparedUnit,
    answer: Answer,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    closed: bool,
}

pub struct CommitQueue {
    line: Mutex<Line>,
    arrived: Condvar,
    left: Condvar,
    limit_bytes: usize,
    group_bytes: usize,
    unit_bytes: usize,
}

/// What to do with a unit that finds the queue full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    Refuse,
    Wait,
}

impl CommitQueue {
    pub fn new(limit_bytes: usize, group_bytes: usize, unit_bytes: usize) -> Self {
        Self {
            line: Mutex::default(),
            arrived: Condvar::new(),
            left: Condvar::new(),
            limit_bytes,
            group_bytes,
            unit_bytes,
        }
    }

    /// A look before the work of encoding; `push` decides.
    pub fn is_full(&self) -> bool {
        self.line.lock().bytes >= self.limit_bytes
    }

    /// Answers at once if the unit cannot be queued.
    pub fn push(&self, unit: PreparedUnit, answer: Answer, when_full: WhenFull) {
        if unit.bytes > self.unit_bytes {
            return answer.send(Err(LogError::TooLarge { bytes: unit.bytes, limit: self.unit_bytes }));
        }
        let mut line = self.line.lock();
        // One that is larger than the queue has it to itself.
        while !line.closed && line.bytes > 0 && line.bytes + unit.bytes > self.limit_bytes {
            if when_full == WhenFull::Refuse {
                drop(line);
                return answer.send(Err(LogError::QueueFull));
            }
            self.left.wait(&mut line);
        }
        if line.closed {
            drop(line);
            return answer.send(Err(LogError::Closed));
        }
        line.bytes += unit.bytes;
        line.waiting.push_back(Waiting { unit, answer });
        drop(line);
        self.arrived.notify_one();
    }

    /// Refuses newcomers; what is queued is still written.
    pub fn close(&self) {
        self.line.lock().closed = true;
        self.arrived.notify_all();
        self.left.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.line.lock().closed
    }

    /// The next group; `None` when the queue is closed and empty.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut line = self.line.lock();
        while line.waiting.is_empty() {
            if line.closed {
                return None;
            }
            self.arrived.wait(&mut line);
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(waiting) = line.waiting.pop_front() {
            if !group.is_empty() && bytes + waiting.unit.bytes > self.group_bytes {
                line.waiting.push_front(waiting);
                break;
            }
            bytes += waiting.unit.bytes;
            group.push(waiting);
        }
        line.bytes -= bytes;
        drop(line);
        self.left.notify_all();
        Some(group)
    }
}

/// Owns the thread: dropping it writes what is queued and ends the thread.
pub struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new().name("log-committer".into()).spawn(move || run(&of_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.shared.signal.notify();
        if let Some(thread) = self.thread.take() {
            // A panic in the thread was already reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// However the thread ends, nobody is left waiting for it.
struct ClosesQueue<'a>(&'a CommitQueue);

impl Drop for ClosesQueue<'_> {
    fn drop(&mut self) {
        self.0.close();
        // Their senders go with them, which answers `Closed`.
        self.0.line.lock().waiting.clear();
    }
}

fn run(shared: &Shared) {
    let _closes_queue = ClosesQueue(&shared.queue);
    while let Some(group) = shared.queue.next_group() {
        let (units, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.unit, waiting.answer)).unzip();
        let outcomes = shared.writer.commit(shared, units);
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            answer.send(outcome);
        }
    }
}
