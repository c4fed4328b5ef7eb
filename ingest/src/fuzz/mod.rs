//! What must hold for any bytes that a client sends, one function a decoder: it panics where a promise is broken.
//! `make fuzz` looks for such bytes, and the tests run every function over its corpus.

mod bodies;
mod encodings;
mod heads;
mod pixels;
#[cfg(test)]
#[path = "../../../schemas/src/fuzz/replay.rs"]
mod replay;
mod signatures;

/// A decoder's name, which is its corpus's, too, and what must hold.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 5] = [
    ("body", bodies::check),
    ("encoding", encodings::check),
    ("head", heads::check),
    ("pixel", pixels::check),
    ("signature", signatures::check),
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpora_break_no_promise() {
        super::replay::replay(&super::TARGETS);
    }
}
