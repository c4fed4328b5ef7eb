//! The landing: topics → ClickHouse, exactly once.
//!
//! For each partition: take a batch `[from, to)` → write the plan into the committed offset's metadata (`offset = from`,
//! metadata `to=…`) → one insert with a deduplication token made of the range → commit `offset = to`. After a crash the
//! plan says which batch to repeat, and ClickHouse drops it if it had arrived.
//!
//! Batches of several partitions are inserted side by side, and the next ones are read and written as rows meanwhile. Of one
//! partition there is never more than one on its way, and its commit takes the plan of the next one with it.
//!
//! | module | has |
//! |---|---|
//! | `rows`, `row_binary` | records as rows, rows as bytes |
//! | `block` | rows for one insert |
//! | `buffer` | what waits of one partition, and its plan |
//! | `lander` | the cycle |
//! | `insertion` | one batch into the tables, whatever they answer |
//! | `inserters` | the threads that run insertions |
//! | `clickhouse` | the tables |

mod block;
mod buffer;
mod clickhouse;
mod inserters;
mod insertion;
mod lander;
mod row_binary;
mod rows;

pub use block::{Block, BlockBuilder, Extent};
pub use buffer::{Batch, BatchLimits, PartitionBuffer};
pub use clickhouse::{ClickHouseConfig, ClickHouseTables};
pub use inserters::{Ended, InlineInserter, InsertThreads, Inserters};
pub use insertion::Insertion;
pub use lander::{Landing, LandingConfig};
pub use rows::{ActivationRow, AuditRow, DeadLetterRow, EventRow, Table, WindowRow};

use std::collections::BTreeSet;

use neonhub_schemas::Topic;

/// What is landed.
pub const LANDED_TOPICS: [Topic; 7] = [
    Topic::EventsBehavior,
    Topic::EventsCampaign,
    Topic::EventsIntegration,
    Topic::EventsRejected,
    Topic::MetricsWindows,
    Topic::MetricsActivations,
    Topic::AuditLog,
];

/// Why an insert failed, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// Repeat with the same token: it may have arrived.
    #[error("ClickHouse is not available: {0}")]
    Transient(String),
    /// A row of it is at fault.
    #[error("ClickHouse refuses the rows: {0}")]
    Data(String),
}

/// Tables to insert into: ClickHouse, or a fake that loses answers.
pub trait Tables: Send {
    /// Inserts rows as one block; a second insert with the same token does nothing.
    ///
    /// # Errors
    /// The outcome of a transient error is unknown.
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError>;

    /// Which offsets of these rows the table holds; `None` when it cannot tell. Asked when a batch was repeated: a server
    /// that is killed may remember a token and have lost its rows.
    ///
    /// # Errors
    /// The tables are away.
    fn landed_offsets(&mut self, _rows: &Block) -> Result<Option<BTreeSet<u64>>, InsertError> {
        Ok(None)
    }
}
