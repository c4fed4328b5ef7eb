//! The metric stages by themselves, stepped by hand.

mod bench_log;
mod merge;
mod partial;
