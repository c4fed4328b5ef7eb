//! Pure: no I/O, no clock, no async.
//!
//! What must hold for any bytes that a client sends, one function a decoder: it panics where a promise is broken.
//! `make fuzz` looks for such bytes, and the tests run every function over its corpus.

mod definitions;
mod events;
mod live;
mod metrics;
#[cfg(test)]
#[path = "../../../schemas/src/fuzz/replay.rs"]
mod replay;

use crate::olap::SqlStatement;

/// A decoder's name, which is its corpus's, too, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 4] = [
    ("metrics_query", metrics::check),
    ("events_query", events::check),
    ("live", live::check),
    ("derived", definitions::check),
];

/// Every parameter is bound once under its name, and `outside` stands nowhere in the text of the statement.
fn check_statement(statement: &SqlStatement, outside: &[&str]) {
    for (index, (name, _)) in statement.params.iter().enumerate() {
        assert_eq!(*name, format!("p{index}"));
        assert!(statement.sql.contains(&format!("{{{name}:")), "{name} is bound and not used: {}", statement.sql);
    }
    assert!(statement.sql.is_ascii(), "{}", statement.sql);
    // Names of columns and functions are shorter, or come from nowhere but here.
    for text in outside.iter().filter(|text| text.len() >= 4 && text.contains(['\'', '"', '\\', ';', '`', '{'])) {
        assert!(!statement.sql.contains(*text), "{text:?} stands in the statement: {}", statement.sql);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpora_break_no_promise() {
        super::replay::replay(&super::TARGETS);
    }
}
