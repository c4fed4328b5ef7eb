//! Pure: no I/O, no clock, no async.

use crate::micros::Micros;
use crate::sketch::{DdSketch, HyperLogLog};

/// What one event adds to a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// The event itself.
    One,
    /// A number to be summed, with its minimum and maximum.
    Number(Micros),
    /// A number whose distribution is kept too.
    Distribution(Micros),
    /// The hash of a value whose distinct ones are counted.
    Distinct(u64),
}

/// The whole state of a window. Adding is associative and commutative: any order gives the same state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aggregate {
    pub count: u64,
    pub sum: Micros,
    /// Least and greatest number seen; most windows only count.
    pub range: Option<Box<(Micros, Micros)>>,
    pub distinct: Option<Box<HyperLogLog>>,
    pub distribution: Option<Box<DdSketch>>,
}

/// A sum left the range of 38 digits, or a count that of 64 bits. The aggregate is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sum leaves the range of 38 digits, or the count that of 64 bits")]
pub struct Overflow;

impl Aggregate {
    /// # Errors
    /// The sum would overflow; nothing was added.
    pub fn add(&mut self, sample: Sample) -> Result<(), Overflow> {
        match sample {
            Sample::One => {}
            Sample::Number(value) | Sample::Distribution(value) => {
                self.sum = self.sum.checked_add(value).ok_or(Overflow)?;
                self.widen(value, value);
                if matches!(sample, Sample::Distribution(_)) {
                    self.distribution.get_or_insert_default().insert(value);
                }
            }
            Sample::Distinct(hash) => self.distinct.get_or_insert_default().insert_hash(hash),
        }
        self.count += 1;
        Ok(())
    }

    /// # Errors
    /// The sum or the count would overflow; nothing was merged.
    pub fn merge(&mut self, other: &Self) -> Result<(), Overflow> {
        let sum = self.sum.checked_add(other.sum).ok_or(Overflow)?;
        self.count = self.count.checked_add(other.count).ok_or(Overflow)?;
        self.sum = sum;
        if let Some(range) = &other.range {
            self.widen(range.0, range.1);
        }
        if let Some(theirs) = &other.distinct {
            self.distinct.get_or_insert_default().merge(theirs);
        }
        if let Some(theirs) = &other.distribution {
            self.distribution.get_or_insert_default().merge(theirs);
        }
        Ok(())
    }

    fn widen(&mut self, least: Micros, greatest: Micros) {
        match &mut self.range {
            None => self.range = Some(Box::new((least, greatest))),
            Some(range) => **range = (range.0.min(least), range.1.max(greatest)),
        }
    }

    #[must_use]
    pub fn min(&self) -> Option<Micros> {
        self.range.as_ref().map(|range| range.0)
    }

    #[must_use]
    pub fn max(&self) -> Option<Micros> {
        self.range.as_ref().map(|range| range.1)
    }

    /// Bytes held, for the memory gauge.
    #[must_use]
    pub fn heap_size(&self) -> usize {
        self.range.as_ref().map_or(0, |_| size_of::<(Micros, Micros)>())
            + self.distinct.as_ref().map_or(0, |sketch| sketch.heap_size() + size_of::<HyperLogLog>())
            + self.distribution.as_ref().map_or(0, |sketch| sketch.heap_size() + size_of::<DdSketch>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_parts_equals_adding_all() {
        let samples = |offset: i128| (0..50).map(move |i| Sample::Distribution(Micros::from_raw(i * 7 - 20 + offset)));
        let mut whole = Aggregate::default();
        samples(0).chain(samples(3)).for_each(|sample| whole.add(sample).unwrap());
        let mut parts = [Aggregate::default(), Aggregate::default()];
        samples(0).for_each(|sample| parts[0].add(sample).unwrap());
        samples(3).for_each(|sample| parts[1].add(sample).unwrap());
        let [mut first, second] = parts;
        first.merge(&second).unwrap();
        assert_eq!(first, whole);
        assert_eq!(whole.count, 100);
        assert_eq!(whole.min(), Some(Micros::from_raw(-20)));
    }

    #[test]
    fn an_overflow_changes_nothing() {
        let mut aggregate = Aggregate { sum: Micros::from_raw(i128::MAX), count: 1, ..Aggregate::default() };
        let before = aggregate.clone();
        assert_eq!(aggregate.add(Sample::Number(Micros::from_raw(1))), Err(Overflow));
        assert_eq!(aggregate, before);
    }

    #[test]
    fn only_ranges_and_sketches_are_on_the_heap() {
        let mut aggregate = Aggregate::default();
        aggregate.add(Sample::One).unwrap();
        assert_eq!(aggregate.heap_size(), 0);
        aggregate.add(Sample::Number(Micros::from_raw(1))).unwrap();
        let range = 2 * size_of::<Micros>();
        assert_eq!(aggregate.heap_size(), range);
        aggregate.add(Sample::Distinct(1)).unwrap();
        let distinct = range + aggregate.distinct.as_ref().unwrap().heap_size() + size_of::<HyperLogLog>();
        assert_eq!(aggregate.heap_size(), distinct);
        aggregate.add(Sample::Distribution(Micros::from_raw(1))).unwrap();
        let distribution = aggregate.distribution.as_ref().unwrap().heap_size() + size_of::<DdSketch>();
        assert_eq!(aggregate.heap_size(), distinct + distribution);
    }
}
