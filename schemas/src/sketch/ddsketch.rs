//! Pure: no I/O, no clock, no async.
//!
//! Quantiles with a relative error: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees" (VLDB 2019, arXiv 1908.10693). Values are bounded ([`Micros`]), so that the buckets are
//! too (about 3,500 a sign), none is ever collapsed, and merging is exact.

use std::collections::BTreeMap;

use super::SketchError;
use crate::micros::Micros;

/// α: an estimate is within 1 % of a value at the asked rank.
pub const RELATIVE_ACCURACY: f64 = 0.01;

const FORMAT: u8 = 1;
/// ln of γ = (1 + α) / (1 − α).
const LN_GAMMA: f64 = 0.020_000_666_706_669_435;
const LARGEST_BUCKET: i32 = 4_000;
/// More values than anything will ever count; ranks and sums of two such counts still fit.
const LARGEST_COUNT: u64 = u64::MAX / 4;

/// Counts of values in logarithmic buckets: bucket i holds the magnitudes in (γ^(i−1), γ^i] millionths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DdSketch {
    negative: BTreeMap<i32, u64>,
    zeros: u64,
    positive: BTreeMap<i32, u64>,
}

impl DdSketch {
    pub fn insert(&mut self, value: Micros) {
        let raw = value.raw();
        if raw == 0 {
            self.zeros += 1;
            return;
        }
        let buckets = if raw < 0 { &mut self.negative } else { &mut self.positive };
        *buckets.entry(bucket_of(raw.unsigned_abs())).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        // No stream is so long that its counts saturate; a damaged record may say anything.
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (ours, theirs) in [(&mut self.negative, &other.negative), (&mut self.positive, &other.positive)] {
            for (bucket, count) in theirs {
                let ours = ours.entry(*bucket).or_default();
                *ours = ours.saturating_add(*count);
            }
        }
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        let buckets = self.negative.values().chain(self.positive.values());
        buckets.fold(self.zeros, |total, count| total.saturating_add(*count))
    }

    /// The value at rank ⌊q·(n−1)⌋, within [`RELATIVE_ACCURACY`]; `None` when nothing was counted. `q` in 0..=1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank")]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        // A double may round the last rank up.
        let mut rank = ((q * (count - 1) as f64).floor() as u64).min(count - 1);
        for (bucket, in_bucket) in self.negative.iter().rev() {
            if rank < *in_bucket {
                return Some(-middle_of(*bucket));
            }
            rank -= in_bucket;
        }
        if rank < self.zeros {
            return Some(0.0);
        }
        rank -= self.zeros;
        for (bucket, in_bucket) in &self.positive {
            if rank < *in_bucket {
                return Some(middle_of(*bucket));
            }
            rank -= in_bucket;
        }
        None
    }

    /// Bytes held, for memory gauges (a B-tree node's share of about 20 bytes an entry).
    #[must_use]
    pub fn heap_size(&self) -> usize {
        (self.negative.len() + self.positive.len()) * 20
    }

    /// Format byte, zeros, then both signs: number of buckets, and for each its number (i32) and count (u64), all
    /// little-endian, in ascending order.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(17 + (self.negative.len() + self.positive.len()) * 12);
        out.push(FORMAT);
        out.extend_from_slice(&self.zeros.to_le_bytes());
        for buckets in [&self.negative, &self.positive] {
            out.extend_from_slice(&u32::try_from(buckets.len()).unwrap_or(0).to_le_bytes());
            for (bucket, count) in buckets {
                out.extend_from_slice(&bucket.to_le_bytes());
                out.extend_from_slice(&count.to_le_bytes());
            }
        }
        out
    }

    /// # Errors
    /// The bytes are not what [`Self::to_bytes`] writes. Empty bytes are the empty sketch.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SketchError> {
        let Some((format, mut rest)) = bytes.split_first() else { return Ok(Self::default()) };
        if *format != FORMAT {
            return Err(SketchError::Format(*format));
        }
        let mut sketch = Self { zeros: u64::from_le_bytes(take(&mut rest)?), ..Self::default() };
        for buckets in [&mut sketch.negative, &mut sketch.positive] {
            let length = u32::from_le_bytes(take(&mut rest)?);
            for _ in 0..length {
                let bucket = i32::from_le_bytes(take(&mut rest)?);
                let count = u64::from_le_bytes(take(&mut rest)?);
                let is_next = buckets.last_key_value().is_none_or(|(last, _)| bucket > *last);
                if !(0..=LARGEST_BUCKET).contains(&bucket) || !is_next || count == 0 {
                    return Err(SketchError::Range);
                }
                buckets.insert(bucket, count);
            }
        }
        if sketch.count() > LARGEST_COUNT {
            return Err(SketchError::Range);
        }
        if rest.is_empty() { Ok(sketch) } else { Err(SketchError::Length) }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], SketchError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(SketchError::Length)?;
    *rest = tail;
    Ok(*head)
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "buckets are a logarithm")]
fn bucket_of(magnitude: u128) -> i32 {
    ((magnitude as f64).ln() / LN_GAMMA).ceil() as i32
}

/// 2γ^i / (γ + 1) millionths, in units: the value whose relative distance to both ends of the bucket is α.
fn middle_of(bucket: i32) -> f64 {
    let gamma = LN_GAMMA.exp();
    (f64::from(bucket) * LN_GAMMA).exp() * 2.0 / (gamma + 1.0) / 1e6
}

#[cfg(test)]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks")]
mod tests {
    use super::*;

    /// A deterministic spread of values over nine decades, both signs and zero.
    fn values(count: u64) -> Vec<Micros> {
        (0..count)
            .map(|i| {
                let x = xxhash_rust::xxh3::xxh3_64(&i.to_le_bytes());
                let magnitude = 10_f64.powf((x % 9_000) as f64 / 1_000.0);
                let raw = magnitude as i128;
                Micros::from_raw(match x % 7 {
                    0 => -raw,
                    1 => 0,
                    _ => raw,
                })
            })
            .collect()
    }

    #[test]
    fn gamma_is_that_of_the_accuracy() {
        let gamma: f64 = (1.0 + RELATIVE_ACCURACY) / (1.0 - RELATIVE_ACCURACY);
        assert!((gamma.ln() - LN_GAMMA).abs() < 1e-15, "{}", gamma.ln());
    }

    #[test]
    fn every_quantile_is_within_the_relative_accuracy() {
        let mut sorted = values(20_000);
        let mut sketch = DdSketch::default();
        sorted.iter().for_each(|value| sketch.insert(*value));
        sorted.sort();
        for step in 0..=1_000 {
            let q = f64::from(step) / 1_000.0;
            let exact = sorted[(q * (sorted.len() - 1) as f64).floor() as usize].to_f64();
            let estimate = sketch.quantile(q).unwrap();
            assert!((estimate - exact).abs() <= exact.abs() * RELATIVE_ACCURACY * 1.000_001, "{q}: {estimate} {exact}");
        }
        assert_eq!(DdSketch::default().quantile(0.5), None);
        assert_eq!(sketch.quantile(1.1), None);
    }

    #[test]
    fn merging_in_any_order_gives_the_same_bytes_and_bytes_round_trip() {
        let values = values(3_000);
        let mut whole = DdSketch::default();
        values.iter().for_each(|value| whole.insert(*value));
        let mut merged = DdSketch::default();
        for chunk in values.rchunks(700) {
            let mut part = DdSketch::default();
            chunk.iter().for_each(|value| part.insert(*value));
            merged.merge(&part);
        }
        assert_eq!(merged.to_bytes(), whole.to_bytes());
        assert_eq!(DdSketch::from_bytes(&whole.to_bytes()).unwrap(), whole);
        let mut cut = whole.to_bytes();
        cut.pop();
        assert_eq!(DdSketch::from_bytes(&cut), Err(SketchError::Length));
        assert_eq!(DdSketch::from_bytes(&[7]), Err(SketchError::Format(7)));
    }

    #[test]
    fn bytes_that_no_sketch_writes_are_refused() {
        let sketch = |zeros: u64, buckets: [(i32, u64); 2]| {
            let mut bytes = vec![FORMAT];
            bytes.extend_from_slice(&zeros.to_le_bytes());
            bytes.extend_from_slice(&0_u32.to_le_bytes());
            bytes.extend_from_slice(&2_u32.to_le_bytes());
            for (bucket, count) in buckets {
                bytes.extend_from_slice(&bucket.to_le_bytes());
                bytes.extend_from_slice(&count.to_le_bytes());
            }
            DdSketch::from_bytes(&bytes).map(|sketch| sketch.count())
        };
        assert_eq!(sketch(1, [(3, 1), (4, 1)]), Ok(3));
        for buckets in [[(4, 1), (3, 1)], [(3, 1), (3, 1)], [(3, 0), (4, 1)], [(3, u64::MAX), (4, 2)]] {
            assert_eq!(sketch(1, buckets), Err(SketchError::Range), "{buckets:?}");
        }
        assert_eq!(sketch(u64::MAX, [(3, 1), (4, 1)]), Err(SketchError::Range));
    }

    #[test]
    fn the_largest_value_has_a_bucket() {
        let largest: Micros = "1e18".parse().unwrap();
        assert!(bucket_of(largest.raw().unsigned_abs()) < LARGEST_BUCKET);
        assert_eq!(bucket_of(1), 0);
    }

    #[test]
    fn the_least_of_positive_values_is_not_zero() {
        let mut sketch = DdSketch::default();
        assert_eq!((sketch.quantile(0.0), sketch.heap_size()), (None, 0));
        sketch.insert(Micros::from_raw(2_000_000));
        assert!((sketch.quantile(0.0).unwrap() / 2.0 - 1.0).abs() <= RELATIVE_ACCURACY);
        sketch.insert(Micros::from_raw(-2_000_000));
        sketch.insert(Micros::from_raw(0));
        sketch.insert(Micros::from_raw(4_000_000));
        assert_eq!(sketch.heap_size(), 60, "three buckets");
        assert_eq!(sketch.quantile(0.4), Some(0.0));
    }

    #[test]
    fn buckets_and_counts_out_of_range_are_refused() {
        let bytes_of = |bucket: i32, count: u64| {
            let sketch = DdSketch { positive: [(bucket, count)].into(), ..DdSketch::default() };
            DdSketch::from_bytes(&sketch.to_bytes())
        };
        for (bucket, count) in [(0, 1), (LARGEST_BUCKET, u64::MAX / 4)] {
            assert!(bytes_of(bucket, count).is_ok(), "{bucket} {count}");
        }
        for (bucket, count) in [(-1, 1), (LARGEST_BUCKET + 1, 1), (0, 0), (0, u64::MAX / 4 + 1)] {
            assert_eq!(bytes_of(bucket, count), Err(SketchError::Range), "{bucket} {count}");
        }
    }
}
