//! Insertions under way: each is done now or later, whatever the landing does meanwhile. What was under way when the landing
//! died goes in at some time, too, after its successor has repeated it, or never.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use neonhub_processors::landing::{Ended, Inserters, Insertion};

use super::breaks::Break;
use super::faults::SharedFaults;
use super::tables::FakeTables;

/// How many of a landing are under way at one time.
const SIDE_BY_SIDE: usize = 2;

/// What dead landings have sent and nobody waits for.
pub type Orphans = Arc<Mutex<Vec<Insertion>>>;

pub struct SlowInserters {
    tables: FakeTables,
    faults: SharedFaults,
    under_way: Vec<Insertion>,
    orphans: Orphans,
}

impl SlowInserters {
    pub fn new(tables: FakeTables, faults: &SharedFaults, orphans: &Orphans) -> Self {
        Self { tables, faults: faults.clone(), under_way: Vec::new(), orphans: Arc::clone(orphans) }
    }
}

impl Inserters for SlowInserters {
    fn free(&self) -> usize {
        SIDE_BY_SIDE - self.under_way.len()
    }

    fn begin(&mut self, insertion: Insertion) {
        self.under_way.push(insertion);
    }

    /// In any order: the one that began last may be done first.
    fn ended(&mut self, _wait: Duration) -> Vec<Ended> {
        let mut ended = Vec::new();
        for insertion in std::mem::take(&mut self.under_way).into_iter().rev() {
            let is_done = {
                let faults = &mut *self.faults.lock();
                faults.rates.inserts == 0 || faults.rng.chance(600)
            };
            if is_done {
                ended.push(Ended { place: insertion.place, outcome: insertion.run(&mut self.tables) });
            } else if self.faults.lock().breaks(Break::LandedTooEarly, 300) {
                ended.push(Ended { place: insertion.place, outcome: Ok(()) });
                self.leave_alone(insertion);
            } else {
                self.under_way.insert(0, insertion);
            }
        }
        ended
    }
}

impl SlowInserters {
    /// Nobody waits for it any more: it arrives at some time, like one whose landing has died, or never.
    fn leave_alone(&self, insertion: Insertion) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(insertion);
    }
}

impl Drop for SlowInserters {
    fn drop(&mut self) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).append(&mut self.under_way);
    }
}
