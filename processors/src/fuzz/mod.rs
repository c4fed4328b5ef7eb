//! What must hold for any bytes that a processor finds where it left them, one function a decoder: it panics where a promise
//! is broken. `make fuzz` looks for such bytes, and the tests run every function over its corpus.

mod committed;
#[cfg(test)]
#[path = "../../../schemas/src/fuzz/replay.rs"]
mod replay;

use crate::{engine, metrics};

/// A decoder's name, which is its corpus's, too, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 4] = [
    ("committed", committed::check),
    ("local_marker", engine::fuzz::check),
    ("local_windows", metrics::fuzz::records::check),
    ("local_state", metrics::fuzz::state::check),
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpora_break_no_promise() {
        super::replay::replay(&super::TARGETS);
    }
}
