//! ClickHouse's tables as the landing knows them: dedup by token, answers that get lost, rows that are refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use neonhub_processors::landing::{
    ActivationRow, DeadLetterRow, EventRow, InsertError, Rows, Table, Tables, WindowRow,
};

use crate::faults::{Sabotage, SharedFaults};

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
        let (fails, after, ignores_tokens) = {
            let faults = &mut *self.faults.lock().unwrap();
            let per_mille = faults.insert_per_mille;
            (faults.rng.chance(per_mille), faults.rng.chance(500), faults.sabotage == Sabotage::TokensIgnored)
        };
        let transient = || Err(InsertError::Transient("the answer was lost".to_owned()));
        if fails && !after {
            return transient();
        }
        if matches!(rows, Rows::Events(rows) if rows.iter().any(|row| row.properties.contains(REFUSED))) {
            return Err(InsertError::Data("refused".to_owned()));
        }
        let stored = &mut *self.stored.lock().unwrap();
        let place = (rows.table(), token.to_owned());
        match stored.by_token.get(&place) {
            None => {
                stored.append(rows);
                stored.by_token.insert(place, rows.clone());
            }
            Some(_) if ignores_tokens => stored.append(rows),
            // The real thing drops the block without a look: other rows under the same token are lost rows.
            // (Compaction may thin out windows between two tries; events it leaves alone.)
            Some(known) if known != rows && rows.table() == Table::Events => {
                stored.violations.push(format!("token {token} stands for two different blocks"));
            }
            Some(_) => {}
        }
        if fails { transient() } else { Ok(()) }
    }
}
