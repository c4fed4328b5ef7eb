#![doc = include_str!("../README.md")]

pub mod access;
pub mod audit;
pub mod codec;
pub mod control;
pub mod dead_letter;
pub mod event;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod ids;
pub mod json_schema;
pub mod metric;
pub mod micros;
pub mod migrations;
pub mod over_limit;
pub mod record;
mod scanner;
pub mod sketch;
pub mod time;
pub mod topics;
pub mod trace;
pub mod window;

/// The names most other modules use.
pub use event::{Envelope, Kind, Source};
pub use micros::Micros;
pub use record::{CommittedOffset, Headers, NewRecord, Record, TopicPartition};
pub use topics::Topic;
