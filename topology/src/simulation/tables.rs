//! ClickHouse's tables as the landing knows them: dedup by token, answers that get lost, rows that are refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use neonhub_processors::landing::{
    ActivationRow, Block, DeadLetterRow, EventRow, InsertError, Table, Tables, WindowRow,
};

use super::breaks::Break;
use super::faults::{Moment, SharedFaults};

/// An event with this in its properties is refused, with its whole block.
pub const REFUSED: &str = "\"refuse\":true";

#[derive(Default)]
pub struct Stored {
    /// As they were written, see [`Self::events`].
    event_rows: Vec<Vec<u8>>,
    pub windows: Vec<WindowRow>,
    pub activations: Vec<ActivationRow>,
    pub dead_letters: Vec<DeadLetterRow>,
    by_token: BTreeMap<(Table, String), Block>,
    /// What must never happen.
    pub violations: Vec<String>,
}

impl Stored {
    pub fn events(&self) -> impl Iterator<Item = EventRow<'_>> {
        self.event_rows.iter().filter_map(|row| EventRow::read(row))
    }

    fn append(&mut self, block: &Block) {
        for row in block.rows() {
            let is_read = match block.table {
                Table::Events => {
                    self.event_rows.push(row.to_vec());
                    EventRow::read(row).is_some()
                }
                Table::MetricWindows => WindowRow::read(row).map(|row| self.windows.push(row)).is_some(),
                Table::MetricActivations => ActivationRow::read(row).map(|row| self.activations.push(row)).is_some(),
                Table::DeadLetters => DeadLetterRow::read(row).map(|row| self.dead_letters.push(row)).is_some(),
                // Nothing of the simulation writes the audit log.
                Table::AuditLog => false,
            };
            if !is_read {
                self.violations.push(format!("{row:?} is no row of {:?}", block.table));
            }
        }
    }
}

#[derive(Clone)]
pub struct FakeTables {
    pub stored: Arc<Mutex<Stored>>,
    pub faults: SharedFaults,
}

impl Tables for FakeTables {
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError> {
        let (moment, broken, now) = {
            let faults = &mut *self.faults.lock();
            let rate = faults.rates.inserts;
            (faults.strikes(rate), faults.broken, faults.rng.chance(30))
        };
        let transient = || Err(InsertError::Transient("the answer was lost".to_owned()));
        if moment == Some(Moment::Before) {
            return transient();
        }
        if broken == Some(Break::RowsNotStored) && now {
            return Ok(());
        }
        let token = match token.rsplit_once(':') {
            Some((partition, _)) if broken == Some(Break::TokenWithoutRange) => partition,
            _ => token,
        };
        let is_refused = |row| EventRow::read(row).is_some_and(|row| row.properties.contains(REFUSED));
        if rows.table == Table::Events && rows.rows().any(is_refused) {
            return Err(InsertError::Data("refused".to_owned()));
        }
        let stored = &mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (rows.table, token.to_owned());
        match stored.by_token.get(&place) {
            None => {
                stored.append(rows);
                stored.by_token.insert(place, rows.clone());
            }
            Some(_) if broken == Some(Break::TokensIgnored) => stored.append(rows),
            // The real thing drops the block without a look: other rows under the same token are lost rows.
            // (Compaction may thin out windows between two tries; events it leaves alone.)
            Some(known) if !known.rows().eq(rows.rows()) && rows.table == Table::Events && broken.is_none() => {
                stored.violations.push(format!("token {token} stands for two different blocks"));
            }
            Some(_) => {}
        }
        if moment.is_some() { transient() } else { Ok(()) }
    }
}
