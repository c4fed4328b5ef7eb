//! What must hold for any bytes that come from outside or from a damaged disk, one function a decoder: it panics where a
//! promise is broken. `make fuzz` looks for such bytes, and the tests run every function over its corpus.

use crate::commands::replay;
use crate::embedded::{log, olap};

#[cfg(test)]
#[path = "../../schemas/src/fuzz/replay.rs"]
mod corpora;

/// A decoder's name, which is its corpus's, too, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("log_integrity", log::fuzz::integrity::check),
    ("log_journal", log::fuzz::journals::check),
    ("log_record", log::fuzz::records::check),
    ("log_recovery", log::fuzz::recovery::check),
    ("olap_statement", olap::fuzz::statements::check),
    ("olap_request", olap::fuzz::requests::check),
    ("olap_body", olap::fuzz::bodies::check),
    ("replay_cell", replay::fuzz::cells::check),
    ("replay_lines", replay::fuzz::lines::check),
    ("replay_table", replay::fuzz::tables::check),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn the_corpora_break_no_promise() {
        super::corpora::replay(&super::TARGETS);
    }

    #[test]
    fn names_are_told_apart() {
        let names: BTreeSet<&str> = super::TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), super::TARGETS.len());
    }
}
