//! The store on ScyllaDB or Cassandra: lightweight transactions guard the revision.

use std::time::Duration;

use async_trait::async_trait;
use neonhub_schemas::migrations::{CQL, ClickHouseTarget};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::response::query_result::QueryResult;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency, Statement};
use scylla::value::{CqlValue, Row as CqlRow};
use serde_json::value::RawValue;

use super::{Row, Store, StoreError, Table};

/// Where the store is.
#[derive(Clone, Debug)]
pub struct ScyllaConfig {
    /// `host:port`.
    pub nodes: Vec<String>,
    /// Created where it is missing. Letters, digits and underscores.
    pub keyspace: String,
    /// Of a keyspace that is created here (`SimpleStrategy`); make it yourself for several data centres.
    pub replication_factor: u32,
    pub request_timeout: Duration,
}

impl Default for ScyllaConfig {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            keyspace: "neonhub".to_owned(),
            replication_factor: 1,
            request_timeout: Duration::from_secs(10),
        }
    }
}

pub struct ScyllaStore {
    session: Session,
    metric_definitions: Statements,
    access_keys: Statements,
}

/// Of one table.
struct Statements {
    get: PreparedStatement,
    list: PreparedStatement,
    list_all: PreparedStatement,
    insert: PreparedStatement,
    update: PreparedStatement,
    ping: PreparedStatement,
}

/// As a row of the table: text and numbers as CQL has them.
type Stored = (String, String, i64, Option<String>, i64);

fn body_column(table: Table) -> &'static str {
    match table {
        Table::MetricDefinitions => "definition",
        Table::AccessKeys => "body",
    }
}

impl ScyllaStore {
    /// Connects, makes the keyspace where it is missing and applies the migrations.
    ///
    /// # Errors
    /// No node answers, or a statement is refused.
    pub async fn connect(config: &ScyllaConfig) -> Result<Self, StoreError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if config.keyspace.is_empty() || !config.keyspace.bytes().all(is_name) {
            let detail = format!("`{}` is no keyspace: letters, digits and underscores", config.keyspace);
            return Err(StoreError::Damaged(detail));
        }
        let session = SessionBuilder::new()
            .known_nodes(&config.nodes)
            .connection_timeout(config.request_timeout)
            .build()
            .await
            .map_err(away)?;
        migrate(&session, config).await?;
        Ok(Self {
            metric_definitions: Statements::prepare(&session, Table::MetricDefinitions, config).await?,
            access_keys: Statements::prepare(&session, Table::AccessKeys, config).await?,
            session,
        })
    }

    fn of(&self, table: Table) -> &Statements {
        match table {
            Table::MetricDefinitions => &self.metric_definitions,
            Table::AccessKeys => &self.access_keys,
        }
    }
}

impl Statements {
    async fn prepare(session: &Session, table: Table, config: &ScyllaConfig) -> Result<Self, StoreError> {
        let (name, body) = (table.name(), body_column(table));
        let columns = format!("workspace, name, revision, {body}, updated_at");
        let prepare = |text: String| {
            let mut statement = Statement::new(text);
            statement.set_consistency(Consistency::Quorum);
            statement.set_serial_consistency(Some(SerialConsistency::Serial));
            statement.set_request_timeout(Some(config.request_timeout));
            async move { session.prepare(statement).await.map_err(away) }
        };
        let mut get = prepare(format!("SELECT {columns} FROM {name} WHERE workspace = ? AND name = ?")).await?;
        // A read in the serial order sees the outcome of every transaction before it.
        get.set_consistency(Consistency::Serial);
        let update = format!(
            "UPDATE {name} SET revision = ?, {body} = ?, updated_at = ? WHERE workspace = ? AND name = ? IF revision = ?"
        );
        Ok(Self {
            get,
            list: prepare(format!("SELECT {columns} FROM {name} WHERE workspace = ?")).await?,
            list_all: prepare(format!("SELECT {columns} FROM {name}")).await?,
            insert: prepare(format!("INSERT INTO {name} ({columns}) VALUES (?, ?, ?, ?, ?) IF NOT EXISTS")).await?,
            update: prepare(update).await?,
            ping: prepare(format!("SELECT workspace FROM {name} LIMIT 1")).await?,
        })
    }
}

async fn migrate(session: &Session, config: &ScyllaConfig) -> Result<(), StoreError> {
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {}}}",
        config.keyspace, config.replication_factor
    );
    session.query_unpaged(create, ()).await.map_err(away)?;
    session.use_keyspace(&config.keyspace, false).await.map_err(away)?;
    // CQL files have no placeholders; the target only fills ClickHouse's.
    let target = ClickHouseTarget { database: "", cluster: None };
    for statement in CQL.iter().flat_map(|migration| migration.statements(&target)) {
        session.query_unpaged(statement.trim_end_matches(';'), ()).await.map_err(away)?;
    }
    session.await_schema_agreement().await.map_err(away)?;
    Ok(())
}

fn away(error: impl std::fmt::Display) -> StoreError {
    StoreError::Away(error.to_string())
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

fn read_row((workspace, name, revision, body, updated_at): Stored) -> Result<Row, StoreError> {
    let body = body.map(RawValue::from_string).transpose().map_err(damaged)?;
    let revision = u64::try_from(revision).map_err(damaged)?;
    Ok(Row { workspace, name, revision, body, updated_at })
}

fn read_rows(result: QueryResult) -> Result<Vec<Row>, StoreError> {
    let result = result.into_rows_result().map_err(damaged)?;
    let rows = result.rows::<Stored>().map_err(damaged)?;
    rows.map(|row| read_row(row.map_err(damaged)?)).collect()
}

/// The first column of a lightweight transaction's answer, `[applied]`.
fn was_applied(result: QueryResult) -> Result<bool, StoreError> {
    let result = result.into_rows_result().map_err(damaged)?;
    let row: CqlRow = result.first_row().map_err(damaged)?;
    match row.columns.first() {
        Some(Some(CqlValue::Boolean(is_applied))) => Ok(*is_applied),
        _ => Err(damaged("a transaction did not say whether it was applied")),
    }
}

#[async_trait]
impl Store for ScyllaStore {
    async fn get(&self, table: Table, workspace: &str, name: &str) -> Result<Option<Row>, StoreError> {
        let result = self.session.execute_unpaged(&self.of(table).get, (workspace, name)).await.map_err(away)?;
        Ok(read_rows(result)?.into_iter().next())
    }

    async fn list(&self, table: Table, workspace: &str) -> Result<Vec<Row>, StoreError> {
        read_rows(self.session.execute_unpaged(&self.of(table).list, (workspace,)).await.map_err(away)?)
    }

    async fn list_all(&self, table: Table) -> Result<Vec<Row>, StoreError> {
        read_rows(self.session.execute_unpaged(&self.of(table).list_all, ()).await.map_err(away)?)
    }

    async fn put_if(&self, table: Table, row: &Row, expected: Option<u64>) -> Result<bool, StoreError> {
        let body = row.body.as_deref().map(RawValue::get);
        let revision = i64::try_from(row.revision).map_err(damaged)?;
        let result = match expected {
            None => {
                let values = (&row.workspace, &row.name, revision, body, row.updated_at);
                self.session.execute_unpaged(&self.of(table).insert, values).await
            }
            Some(expected) => {
                let expected = i64::try_from(expected).map_err(damaged)?;
                let values = (revision, body, row.updated_at, &row.workspace, &row.name, expected);
                self.session.execute_unpaged(&self.of(table).update, values).await
            }
        };
        was_applied(result.map_err(away)?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.session.execute_unpaged(&self.metric_definitions.ping, ()).await.map(drop).map_err(away)
    }
}
