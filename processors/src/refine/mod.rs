//! Pure but for the local state: no clock, no async.
//!
//! Refine: per actor, in this order, dedup → identity → session → enrichment. Downstream of it every message exists once.

mod enrichment;
mod filter;
mod identity;
mod kept;
mod runs;
mod seen;
mod session;
mod stage;
mod state;
mod stored;

pub use stage::{Refine, RefineConfig, RefineTask};
