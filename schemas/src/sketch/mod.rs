//! Pure: no I/O, no clock, no async.
//!
//! Sketches with stable bytes whose merge is associative, commutative and, for distinct counts, idempotent: any order
//! of merging gives the same bytes.

mod ddsketch;
mod hyperloglog;

pub use ddsketch::{DdSketch, RELATIVE_ACCURACY};
pub use hyperloglog::{EXACT_UP_TO, HyperLogLog, STANDARD_ERROR};

/// Why bytes are not a sketch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    #[error("sketch bytes end early or have a rest")]
    Length,
    #[error("unknown sketch format {0}")]
    Format(u8),
    #[error("sketch bytes hold a value out of range")]
    Range,
}
