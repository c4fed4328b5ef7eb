#![doc = include_str!("../README.md")]

pub mod accept;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod http;
pub mod sink;

pub use config::{IngestConfig, Limits, WebhookSecret, WriteKey};
pub use http::{IngestState, router, serve};
pub use sink::{EventSink, SinkError, SinkFuture};
