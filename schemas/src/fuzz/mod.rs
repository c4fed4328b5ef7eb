//! Pure: no I/O, no clock, no async.
//!
//! What must hold for any bytes, one function a decoder: it panics where a promise is broken. `make fuzz` looks for such
//! bytes, and the tests run every function over its corpus.

mod envelope;
mod metrics;
mod records;
#[cfg(test)]
mod replay;
mod sketches;
mod texts;

/// A decoder's name, which is its corpus's, too, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 6] = [
    ("envelope", envelope::check),
    ("records", records::check),
    ("sketches", sketches::check),
    ("definition", metrics::check_definition),
    ("expression", metrics::check_expression),
    ("texts", texts::check),
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpora_break_no_promise() {
        super::replay::replay(&super::TARGETS);
    }
}
