//! Pure: no I/O, no clock, no async.
//!
//! A steady rate: when the next event is due.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    per_second: u32,
    done: u64,
}

impl Pace {
    /// `None`: as fast as ingest takes them.
    #[must_use]
    pub fn new(per_second: Option<u32>) -> Option<Self> {
        per_second.filter(|rate| *rate > 0).map(|per_second| Self { per_second, done: 0 })
    }

    /// When the next event may go, counted from the start.
    pub fn next_due(&mut self) -> Duration {
        let nanos = u128::from(self.done) * 1_000_000_000 / u128::from(self.per_second);
        self.done += 1;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_evenly_and_do_not_drift() {
        assert_eq!(Pace::new(None), None);
        assert_eq!(Pace::new(Some(0)), None);
        let mut pace = Pace::new(Some(3)).unwrap();
        let due: Vec<u128> = (0..4).map(|_| pace.next_due().as_millis()).collect();
        assert_eq!(due, [0, 333, 666, 1_000]);
    }
}
