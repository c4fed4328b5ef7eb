//! The engine: source → stage → one atomic commit.
//!
//! A [`Worker`] owns one source, the tasks of its partitions and one committer. It takes its ports and its clock as
//! arguments and is stepped from outside: a thread in production, the simulation's scheduler in tests.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod local_state;
mod memory_states;
mod outputs;
mod ports;
mod stage;
mod telemetry;
mod worker;

pub mod kafka;

pub use local_state::{LocalState, Marker};
pub use memory_states::MemoryStates;
pub use outputs::Outputs;
pub use ports::{
    Change, CommitUnit, Committer, EngineError, LogReader, Part, Ports, Source, SourceEvent, StateStore, StateStores,
};
pub use stage::{Restore, Stage};
pub use telemetry::EngineMetrics;
pub use worker::{OBSERVE_MS, Progress, Worker, WorkerConfig};

use std::sync::Arc;

/// Wall or virtual clock: milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;
