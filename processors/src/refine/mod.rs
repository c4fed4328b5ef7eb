//! Pure: no I/O, no clock, no async.
//!
//! Refine: per actor, in this order, dedup → identity → session → enrichment. Downstream of it every message exists once.

mod enrichment;
mod identity;
mod seen;
mod session;
mod stage;

pub use stage::{Refine, RefineConfig, RefineTask};
