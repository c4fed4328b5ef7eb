//! ClickHouse's tables as the landing knows them: dedup by token, answers that get lost, rows that are refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use neonhub_processors::landing::{
    ActivationRow, DeadLetterRow, EventRow, InsertError, Rows, Table, Tables, WindowRow,
};

use super::breaks::Break;
use super::faults::{Moment, SharedFaults};

/// An event with this in its properties is refused, with its whole block.
pub const REFUSED: &str = "\"refuse\":true";

#[derive(Default)]
pub struct Stored {
    pub events: Vec<EventRow>,
    pub windows: Vec<WindowRow>,
    pub activations: Vec<ActivationRow>,
    pub dead_letters: Vec<DeadLetterRow>,
    by_token: BTreeMap<(Table, String), Rows>,
    /// What must never happen.
    pub violations: Vec<String>,
}

impl Stored {
    fn append(&mut self, rows: &Rows) {
        match rows {
            Rows::Events(rows) => self.events.extend_from_slice(rows),
            Rows::Windows(rows) => self.windows.extend_from_slice(rows),
            Rows::Activations(rows) => self.activations.extend_from_slice(rows),
            Rows::DeadLetters(rows) => self.dead_letters.extend_from_slice(rows),
        }
    }
}

#[derive(Clone)]
pub struct FakeTables {
    pub stored: Arc<Mutex<Stored>>,
    pub faults: SharedFaults,
}

impl Tables for FakeTables {
    fn insert(&mut self, rows: &Rows, token: &str) -> Result<(), InsertError> {
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
        if matches!(rows, Rows::Events(rows) if rows.iter().any(|row| row.properties.contains(REFUSED))) {
            return Err(InsertError::Data("refused".to_owned()));
        }
        let stored = &mut *self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (rows.table(), token.to_owned());
        match stored.by_token.get(&place) {
            None => {
                stored.append(rows);
                stored.by_token.insert(place, rows.clone());
            }
            Some(_) if broken == Some(Break::TokensIgnored) => stored.append(rows),
            // The real thing drops the block without a look: other rows under the same token are lost rows.
            // (Compaction may thin out windows between two tries; events it leaves alone.)
            Some(known) if known != rows && rows.table() == Table::Events && broken.is_none() => {
                stored.violations.push(format!("token {token} stands for two different blocks"));
            }
            Some(_) => {}
        }
        if moment.is_some() { transient() } else { Ok(()) }
    }
}
