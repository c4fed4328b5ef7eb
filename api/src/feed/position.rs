//! Pure: no I/O, no clock, no async.
//!
//! A subscriber's place in the log: the next offset of every partition, `12.0.7.3` on the wire. It is the `id` of an SSE
//! message, so that `Last-Event-ID` says exactly what was seen.

use std::fmt;
use std::str::FromStr;

use super::Bounds;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(pub Vec<u64>);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no event id: offsets by partition, like `12.0.7.3`")]
pub struct PositionError(pub String);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, offset) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            write!(f, "{offset}")?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let offsets = text.split('.').map(str::parse).collect::<Result<Vec<u64>, _>>();
        offsets.map(Self).map_err(|_| PositionError(text.chars().take(100).collect()))
    }
}

impl Position {
    /// Whether the record at `offset` is new; if so, it is now seen.
    pub fn advance(&mut self, partition: u32, offset: u64) -> bool {
        let Some(next) = self.0.get_mut(partition as usize) else { return false };
        let is_new = offset >= *next;
        if is_new {
            *next = offset + 1;
        }
        is_new
    }

    /// Moves forward to `other` where that is further.
    pub fn pass_over(&mut self, other: &[u64]) {
        for (ours, theirs) in self.0.iter_mut().zip(other) {
            *ours = (*ours).max(*theirs);
        }
    }

    #[must_use]
    pub fn has_reached(&self, target: &[u64]) -> bool {
        self.0.iter().zip(target).all(|(ours, theirs)| ours >= theirs)
    }

    /// Where to go on instead, when this place is not in the log any more (or never was).
    #[must_use]
    pub fn corrected(&self, bounds: &[Bounds]) -> Option<Self> {
        let earliest = || Some(Self(bounds.iter().map(|bound| bound.start).collect()));
        if self.0.len() != bounds.len() {
            return earliest();
        }
        let is_outside = |(next, bound): (&u64, &Bounds)| *next < bound.start || *next > bound.end;
        if !self.0.iter().zip(bounds).any(is_outside) {
            return None;
        }
        // Partitions that are still readable go on from where they were: nothing of them is seen twice.
        let next = self.0.iter().zip(bounds);
        Some(Self(next.map(|(next, bound)| if is_outside((next, bound)) { bound.start } else { *next }).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_damaged_ones_are_refused() {
        assert_eq!("12.0.7.3".parse::<Position>().unwrap().to_string(), "12.0.7.3");
        for text in ["", ".", "1.", "a", "1,2", "-1", "99999999999999999999999"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_record_is_new_once() {
        let mut position = Position(vec![5, 0]);
        assert!(!position.advance(0, 4));
        assert!(position.advance(0, 5));
        assert!(!position.advance(0, 5));
        assert!(position.advance(0, 9));
        assert!(!position.advance(7, 9));
        assert_eq!(position.to_string(), "10.0");
        assert!(position.has_reached(&[10, 0]));
        assert!(!position.has_reached(&[10, 1]));
    }

    #[test]
    fn what_is_gone_is_corrected_by_partition() {
        let bounds = [Bounds { start: 10, end: 20 }, Bounds { start: 0, end: 5 }];
        assert_eq!(Position(vec![10, 5]).corrected(&bounds), None);
        assert_eq!(Position(vec![9, 3]).corrected(&bounds), Some(Position(vec![10, 3])));
        assert_eq!(Position(vec![12, 6]).corrected(&bounds), Some(Position(vec![12, 0])));
        assert_eq!(Position(vec![12]).corrected(&bounds), Some(Position(vec![10, 0])));
    }
}
