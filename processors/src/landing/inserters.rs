//! Who inserts while the landing reads on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use neonhub_schemas::record::TopicPartition;

use super::insertion::Insertion;
use super::{InsertError, Tables};

/// An insertion that has ended.
#[derive(Debug)]
pub struct Ended {
    pub place: TopicPartition,
    pub outcome: Result<(), InsertError>,
}

/// Runs insertions beside the landing's own work. When it is dropped, what it runs may still go in.
pub trait Inserters: Send {
    /// How many insertions may begin now.
    fn free(&self) -> usize;

    /// Begins one; does not wait for it.
    fn begin(&mut self, insertion: Insertion);

    /// What has ended since the last call; waits for one at most this long, if any is being run.
    fn ended(&mut self, wait: Duration) -> Vec<Ended>;
}

/// Runs each insertion at once, on the caller's thread: for tools and tests.
pub struct InlineInserter {
    tables: Box<dyn Tables>,
    ended: Option<Ended>,
}

impl InlineInserter {
    #[must_use]
    pub fn new(tables: Box<dyn Tables>) -> Self {
        Self { tables, ended: None }
    }
}

impl Inserters for InlineInserter {
    fn free(&self) -> usize {
        usize::from(self.ended.is_none())
    }

    fn begin(&mut self, insertion: Insertion) {
        self.ended = Some(Ended { place: insertion.place, outcome: insertion.run(&mut *self.tables) });
    }

    fn ended(&mut self, _wait: Duration) -> Vec<Ended> {
        self.ended.take().into_iter().collect()
    }
}

/// A thread for each connection to the tables. Dropping it waits for what is being inserted, so that whoever comes next
/// does not repeat a batch that is still on its way.
pub struct InsertThreads {
    begin: Option<Sender<Insertion>>,
    ended: Receiver<Ended>,
    threads: Vec<JoinHandle<()>>,
    busy: usize,
}

impl InsertThreads {
    /// # Errors
    /// The system gives no threads.
    pub fn start(name: &str, tables: Vec<Box<dyn Tables>>) -> std::io::Result<Self> {
        let (begin, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let begun = Arc::new(Mutex::new(begun));
        let mut threads = Vec::with_capacity(tables.len());
        for (number, tables) in tables.into_iter().enumerate() {
            let (begun, end) = (Arc::clone(&begun), end.clone());
            let thread = std::thread::Builder::new().name(format!("{name}-insert-{number}"));
            threads.push(thread.spawn(move || run(&begun, &end, tables))?);
        }
        Ok(Self { begin: Some(begin), ended, threads, busy: 0 })
    }
}

fn run(begun: &Mutex<Receiver<Insertion>>, end: &Sender<Ended>, mut tables: Box<dyn Tables>) {
    loop {
        // One thread waits for the next insertion, the others for their turn to wait.
        let next = begun.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(insertion) = next else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| insertion.run(&mut *tables)));
        let outcome = outcome.unwrap_or_else(|_| Err(InsertError::Transient("the insert panicked".to_owned())));
        if end.send(Ended { place: insertion.place, outcome }).is_err() {
            return;
        }
    }
}

impl Inserters for InsertThreads {
    fn free(&self) -> usize {
        self.threads.len().saturating_sub(self.busy)
    }

    fn begin(&mut self, insertion: Insertion) {
        // The receiver lives as long as the threads, and they as long as this.
        if let Some(begin) = &self.begin
            && begin.send(insertion).is_ok()
        {
            self.busy += 1;
        }
    }

    fn ended(&mut self, wait: Duration) -> Vec<Ended> {
        let mut ended = Vec::new();
        if self.busy > 0 && !wait.is_zero() {
            ended.extend(self.ended.recv_timeout(wait).ok());
        }
        ended.extend(self.ended.try_iter());
        self.busy -= ended.len();
        ended
    }
}

impl Drop for InsertThreads {
    fn drop(&mut self) {
        self.begin = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an inserting thread panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc::SyncSender;

    use super::*;
    use crate::engine::EngineMetrics;
    use crate::landing::{BatchLimits, Block, PartitionBuffer};
    use bytes::Bytes;
    use neonhub_schemas::record::{Headers, Record};
    use neonhub_schemas::topics::Topic;

    /// Says that it was called, then waits to be let go.
    struct Gate {
        called: SyncSender<()>,
        go: Arc<Mutex<Receiver<bool>>>,
    }

    impl Tables for Gate {
        fn insert(&mut self, _rows: &Block, _token: &str) -> Result<(), InsertError> {
            self.called.send(()).unwrap();
            let go = self.go.lock().unwrap().recv();
            assert!(go.unwrap(), "told to panic");
            Ok(())
        }

        fn landed_offsets(&mut self, _rows: &Block) -> Result<Option<BTreeSet<u64>>, InsertError> {
            Ok(None)
        }
    }

    fn insertion(partition: u32) -> Insertion {
        let place = TopicPartition { topic: Topic::EventsBehavior, partition };
        let limits = BatchLimits { max_rows: 1, max_bytes: 1 };
        let mut buffer = PartitionBuffer::open(place, None, limits);
        let record = Record {
            topic: place.topic,
            partition,
            offset: 0,
            timestamp_ms: 0,
            key: Bytes::new(),
            value: Some(Bytes::from_static(b"no event")),
            headers: Headers::new(),
        };
        buffer.push(&record, 0);
        buffer.plan(0).unwrap();
        let metrics = EngineMetrics::register(&prometheus::Registry::new()).unwrap();
        Insertion { place, batch: buffer.begin().unwrap(), token: "t".to_owned(), is_repeated: false, metrics }
    }

    #[test]
    fn insertions_run_side_by_side_and_a_panic_is_a_failure() {
        let (called, calls) = mpsc::sync_channel(10);
        let (go, gates) = mpsc::channel();
        let gates = Arc::new(Mutex::new(gates));
        let gate = || Box::new(Gate { called: called.clone(), go: Arc::clone(&gates) }) as Box<dyn Tables>;
        let mut inserters = InsertThreads::start("test", vec![gate(), gate()]).unwrap();
        assert_eq!(inserters.free(), 2);
        inserters.begin(insertion(0));
        inserters.begin(insertion(1));
        let limit = Duration::from_secs(10);
        (0..2).for_each(|_| calls.recv_timeout(limit).unwrap());
        assert_eq!((inserters.free(), inserters.ended(Duration::ZERO).len()), (0, 0));
        go.send(true).unwrap();
        let mut ended = inserters.ended(limit);
        assert_eq!((ended.len(), inserters.free()), (1, 1));
        go.send(false).unwrap();
        ended.extend(inserters.ended(limit));
        assert_eq!(ended.iter().map(|ended| ended.place.partition).collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]));
        assert_eq!(ended.iter().filter(|ended| ended.outcome.is_ok()).count(), 1);
        assert_eq!(inserters.free(), 2);
        drop(inserters);
        assert_eq!(Arc::strong_count(&gates), 1, "its threads have ended");
    }

    #[test]
    fn who_inserts_on_the_callers_thread_is_free_again_when_its_outcome_was_taken() {
        let (called, calls) = mpsc::sync_channel(1);
        let (go, gates) = mpsc::channel();
        go.send(true).unwrap();
        let mut inserter = InlineInserter::new(Box::new(Gate { called, go: Arc::new(Mutex::new(gates)) }));
        assert_eq!(inserter.free(), 1);
        inserter.begin(insertion(0));
        assert!(calls.try_recv().is_ok(), "it has been inserted");
        assert_eq!(inserter.free(), 0);
        assert_eq!((inserter.ended(Duration::ZERO).len(), inserter.free()), (1, 1));
    }
}
