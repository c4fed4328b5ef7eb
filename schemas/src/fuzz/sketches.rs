//! Pure: no I/O, no clock, no async.
//!
//! Bytes of sketches. The first byte says which sketch, the second where the bytes of one end and the other's begin.

use crate::sketch::{DdSketch, HyperLogLog};

pub(super) fn check(bytes: &[u8]) {
    let [which, cut, rest @ ..] = bytes else { return };
    let (left, right) = rest.split_at(usize::from(*cut).saturating_mul(16).min(rest.len()));
    if which % 2 == 0 {
        check_distinct(left, right);
    } else {
        check_distribution(left, right);
    }
}

fn check_distinct(left: &[u8], right: &[u8]) {
    let (Ok(left), Ok(right)) = (HyperLogLog::from_bytes(left), HyperLogLog::from_bytes(right)) else { return };
    assert_eq!(HyperLogLog::from_bytes(&left.to_bytes()).as_ref(), Ok(&left));
    let (mut forward, mut backward) = (left.clone(), right.clone());
    forward.merge(&right);
    backward.merge(&left);
    assert_eq!(forward.to_bytes(), backward.to_bytes(), "merging depends on the order");
    let merged = forward.clone();
    forward.merge(&right);
    assert_eq!(forward, merged, "merging twice counts twice");
    let _estimate = merged.estimate();
}

fn check_distribution(left: &[u8], right: &[u8]) {
    let (Ok(left), Ok(right)) = (DdSketch::from_bytes(left), DdSketch::from_bytes(right)) else { return };
    assert_eq!(DdSketch::from_bytes(&left.to_bytes()).as_ref(), Ok(&left), "a sketch is another after a round trip");
    let (mut forward, mut backward) = (left.clone(), right.clone());
    forward.merge(&right);
    backward.merge(&left);
    assert_eq!(forward.to_bytes(), backward.to_bytes(), "merging depends on the order");
    let mut last = f64::NEG_INFINITY;
    for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
        let Some(quantile) = forward.quantile(q) else {
            assert_eq!(forward.count(), 0, "{q} has no quantile");
            continue;
        };
        assert!(quantile >= last && quantile.is_finite(), "quantile {q} is {quantile} after {last}");
        last = quantile;
    }
}
