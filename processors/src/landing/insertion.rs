//! One batch into the tables, whatever they answer: the same blocks under the same tokens each time it is tried.

use std::sync::Arc;

use neonhub_schemas::record::TopicPartition;

use super::block::Block;
use super::buffer::Batch;
use super::rows::{ActivationRow, AuditRow, DeadLetterRow, EventRow, Table, WindowRow};
use super::{InsertError, Tables};
use crate::engine::EngineMetrics;

/// How often rows are inserted anew that a server has lost together with its memory of their token.
const MISSING_ATTEMPTS: u32 = 16;

/// A planned batch, to be inserted.
#[derive(Clone, Debug)]
pub struct Insertion {
    pub place: TopicPartition,
    pub(super) batch: Arc<Batch>,
    pub(super) token: String,
    /// It may have been inserted before.
    pub(super) is_repeated: bool,
    pub(super) metrics: EngineMetrics,
}

impl Insertion {
    /// # Errors
    /// Some of it may be in: it is to be run again.
    pub fn run(&self, tables: &mut dyn Tables) -> Result<(), InsertError> {
        let mut dead = self.batch.unlandable.clone();
        self.insert_or_halve(tables, self.batch.rows.clone(), &mut dead, &self.token)?;
        if !dead.is_empty() {
            tracing::error!(rows = dead.len(), token = self.token, "rows that ClickHouse refuses go to dead_letters");
            self.insert(tables, &Block::of_dead_letters(self.place, &dead), &format!("{}:dead", self.token))?;
        }
        Ok(())
    }

    /// A batch with a row that ClickHouse refuses is cut in halves, always in the same way, until the row stands alone.
    fn insert_or_halve(
        &self,
        tables: &mut dyn Tables,
        rows: Block,
        dead: &mut Vec<DeadLetterRow>,
        token: &str,
    ) -> Result<(), InsertError> {
        match self.insert(tables, &rows, token) {
            Err(InsertError::Data(detail)) if rows.len() == 1 => {
                dead.push(refused(&rows, &detail));
                Ok(())
            }
            Err(InsertError::Data(_)) => {
                let (first, second) = rows.halves();
                self.insert_or_halve(tables, first, dead, &format!("{token}/0"))?;
                self.insert_or_halve(tables, second, dead, &format!("{token}/1"))
            }
            Ok(()) if self.is_repeated => self.complete(tables, &rows, token),
            other => other,
        }
    }

    /// After a repeated insert: a token that was remembered without its rows (the server was killed between the two) must
    /// not lose them. Upserts are simply written again; of the others the missing rows are.
    fn complete(&self, tables: &mut dyn Tables, rows: &Block, token: &str) -> Result<(), InsertError> {
        match rows.table {
            Table::MetricWindows | Table::MetricActivations => self.insert(tables, rows, &format!("{token}:again")),
            Table::Events | Table::DeadLetters | Table::AuditLog => {
                // The tokens are the same each time, so that an insert whose answer was lost is still told apart.
                for attempt in 0..MISSING_ATTEMPTS {
                    let Some(landed) = tables.landed_offsets(rows)? else { return Ok(()) };
                    let missing = rows.clone().without(&landed);
                    if missing.is_empty() {
                        return Ok(());
                    }
                    tracing::warn!(
                        rows = missing.len(),
                        token,
                        attempt,
                        "the token was known but not its rows: inserted anew"
                    );
                    self.insert(tables, &missing, &format!("{token}:missing-{attempt}"))?;
                }
                Err(InsertError::Transient("rows do not stay in the table".to_owned()))
            }
        }
    }

    fn insert(&self, tables: &mut dyn Tables, rows: &Block, token: &str) -> Result<(), InsertError> {
        if rows.is_empty() {
            return Ok(());
        }
        let timer = self.metrics.landing_seconds.start_timer();
        tables.insert(rows, token)?;
        timer.observe_duration();
        self.metrics.landed_rows.with_label_values(&[rows.table.name()]).inc_by(rows.len() as u64);
        Ok(())
    }
}

/// The dead letter of a single row that ClickHouse refuses.
fn refused(rows: &Block, detail: &str) -> DeadLetterRow {
    let mut letter = DeadLetterRow {
        workspace: String::new(),
        reason: "refused_by_clickhouse".to_owned(),
        detail: detail.to_owned(),
        field: String::new(),
        stage: "landing".to_owned(),
        place: String::new(),
        received_at: rows.extent().map_or(0, |extent| extent.latest_ms),
        original: String::new(),
        encoding: "text".to_owned(),
        original_size: 0,
        partition: rows.place.partition,
        offset: rows.offsets().next().unwrap_or(0),
    };
    for row in rows.rows() {
        match rows.table {
            Table::Events => {
                let Some(row) = EventRow::read(row) else { continue };
                letter.workspace = row.workspace.into_owned();
                letter.place = row.message_id.into_owned();
                letter.original = row.properties.into_owned();
                letter.received_at = row.received_at;
            }
            Table::MetricWindows => {
                let Some(row) = WindowRow::read(row) else { continue };
                letter.original = format!("{row:?}");
                letter.place = format!("{}|{}", row.metric, row.key);
                letter.workspace = row.workspace;
            }
            Table::MetricActivations => {
                let Some(row) = ActivationRow::read(row) else { continue };
                letter.original = format!("{row:?}");
                (letter.workspace, letter.place) = (row.workspace, row.metric);
            }
            Table::DeadLetters => {
                let Some(row) = DeadLetterRow::read(row) else { continue };
                letter.original = format!("{row:?}");
                (letter.workspace, letter.place) = (row.workspace, row.place);
            }
            Table::AuditLog => {
                let Some(row) = AuditRow::read(row) else { continue };
                letter.original = format!("{row:?}");
                (letter.workspace, letter.place) = (row.workspace, row.id);
            }
        }
    }
    letter.original_size = letter.original.len() as u64;
    letter
}
