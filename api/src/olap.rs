//! The port to ClickHouse: statements with bound parameters in, typed rows out.

pub mod http;
pub mod memory;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use axum::http::StatusCode;

/// A bound parameter, `{name:Type}` in the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Param {
    Text(String),
    Integer(i64),
    Unsigned(u64),
    Texts(Vec<String>),
    Integers(Vec<i64>),
}

/// SQL whose every outside value is a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlStatement {
    pub sql: String,
    pub params: Vec<(String, Param)>,
}

impl SqlStatement {
    /// Binds a value under a name of its own; returns the placeholder.
    pub fn bind(&mut self, kind: &'static str, value: Param) -> String {
        let name = format!("p{}", self.params.len());
        let placeholder = format!("{{{name}:{kind}}}");
        self.params.push((name, value));
        placeholder
    }
}

/// Windows of one metric, bucket and group, aggregated in SQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub struct WindowRow {
    pub metric_name: String,
    /// Unix seconds: the bucket's first instant, or the window's label.
    pub bucket: i64,
    pub group_values: Vec<String>,
    pub total_count: u64,
    /// Decimal text.
    pub total_sum: String,
    /// Decimal text, empty where there is none.
    pub least: String,
    pub greatest: String,
    pub all_final: u8,
    /// The greatest end of a final window, Unix seconds; 0 where none is.
    pub final_until: i64,
}

/// One stored window with its sketches, in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub struct SketchRow {
    pub metric_name: String,
    pub bucket: i64,
    pub group_values: Vec<String>,
    pub total_count: u64,
    pub distinct_base64: String,
    pub distribution_base64: String,
    pub all_final: u8,
    pub final_until: i64,
}

/// A metric, and how far time is closed by its final windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub struct ClosedRow {
    pub metric_name: String,
    /// The greatest end of a final window, Unix seconds.
    pub closed_until: i64,
}

/// An event; columns that were not asked for are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub struct EventRow {
    pub source_number: i8,
    pub place_partition: u32,
    pub place_offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
    pub received_at_ms: i64,
    pub id: String,
    /// The texts of [`crate::events::columns::TEXTS`], in their order.
    pub texts: Vec<String>,
    /// JSON objects, or empty.
    pub properties_json: String,
    pub context_json: String,
}

/// From where on a definition counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row, utoipa::ToSchema)]
pub struct ActivationRow {
    pub source: String,
    pub partition: u32,
    pub from_offset: u64,
    pub until_offset: Option<u64>,
}

/// A change, as the audit log has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clickhouse::Row)]
pub struct AuditRow {
    pub id: String,
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub revision: u64,
    /// JSON.
    pub state: String,
}

/// Named by what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OlapError {
    /// Try again later.
    #[error("ClickHouse is away: {0}")]
    Away(String),
    /// Ask for less.
    #[error("the query took too long")]
    TimedOut,
    /// Ask for less: a limit on memory or rows was hit.
    #[error("the query needs too much: {0}")]
    TooLarge(String),
    /// Report it: the statement or the answer is wrong.
    #[error("ClickHouse refused: {0}")]
    Refused(String),
}

impl From<OlapError> for Problem {
    fn from(error: OlapError) -> Self {
        match error {
            OlapError::Away(detail) => {
                tracing::warn!(%detail, "ClickHouse is away");
                Self::unavailable("ClickHouse does not answer", 2)
            }
            OlapError::TimedOut => Self::new(StatusCode::GATEWAY_TIMEOUT, "the query took too long: ask for less"),
            OlapError::TooLarge(detail) => {
                tracing::warn!(%detail, "a query needed too much");
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "the query needs too much memory or reads too much")
            }
            OlapError::Refused(detail) => Self::internal(&detail),
        }
    }
}

#[async_trait]
pub trait Olap: Send + Sync {
    /// # Errors
    /// See [`OlapError`].
    async fn windows(&self, statement: &SqlStatement) -> Result<Vec<WindowRow>, OlapError>;

    /// Hands over row by row, so that sketches need not all be in memory.
    ///
    /// # Errors
    /// See [`OlapError`].
    async fn sketches(
        &self,
        statement: &SqlStatement,
        take: &mut (dyn FnMut(SketchRow) + Send),
    ) -> Result<(), OlapError>;

    /// # Errors
    /// See [`OlapError`].
    async fn closed(&self, statement: &SqlStatement) -> Result<Vec<ClosedRow>, OlapError>;

    /// # Errors
    /// See [`OlapError`].
    async fn events(&self, statement: &SqlStatement) -> Result<Vec<EventRow>, OlapError>;

    /// # Errors
    /// See [`OlapError`].
    async fn activations(&self, statement: &SqlStatement) -> Result<Vec<ActivationRow>, OlapError>;

    /// # Errors
    /// See [`OlapError`].
    async fn audit(&self, statement: &SqlStatement) -> Result<Vec<AuditRow>, OlapError>;

    /// # Errors
    /// See [`OlapError`].
    async fn ping(&self) -> Result<(), OlapError>;
}
