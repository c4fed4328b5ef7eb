//! The embedded stack: the log, the ClickHouse front, the local store, and what makes them the other crates' ports.

pub mod control;
pub mod engine;
pub mod feed;
pub mod log;
pub mod olap;
pub mod sink;
pub mod state;
pub mod store;
