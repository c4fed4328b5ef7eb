//! Tables in ClickHouse, over HTTP with the `clickhouse` crate.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use clickhouse::Client;
use tokio::runtime::Runtime;

use super::{Block, InsertError, Table, Tables};

#[derive(Clone)]
pub struct ClickHouseConfig {
    /// Without user and password.
    pub url: String,
    pub database: String,
    pub user: Option<String>,
    pub password: Option<String>,
    /// For one insert, answer included.
    pub timeout: Duration,
}

impl fmt::Debug for ClickHouseConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClickHouseConfig")
            .field("url", &self.url)
            .field("database", &self.database)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl ClickHouseConfig {
    /// A client; reads the JSON columns as text, both ways.
    #[must_use]
    pub fn client(&self) -> Client {
        let mut client = Client::default()
            .with_url(&self.url)
            .with_database(&self.database)
            .with_validation(false)
            .with_setting("input_format_binary_read_json_as_string", "1")
            .with_setting("output_format_binary_write_json_as_string", "1");
        if let Some(user) = &self.user {
            client = client.with_user(user);
        }
        if let Some(password) = &self.password {
            client = client.with_password(password);
        }
        client
    }
}

/// Inserts from a thread of its own; the runtime belongs to it.
pub struct ClickHouseTables {
    client: Client,
    timeout: Duration,
    runtime: Runtime,
}

impl ClickHouseTables {
    /// # Errors
    /// The operating system gives no runtime.
    pub fn new(config: &ClickHouseConfig) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = config
            .client()
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("max_partitions_per_insert_block", "0")
            // One block an insert, so that its token stands for the whole of it.
            .with_setting("max_insert_block_size", "10000000")
            .with_setting("min_insert_block_size_rows", "10000000")
            .with_setting("min_insert_block_size_bytes", "1000000000")
            // What people write is kept as they wrote it.
            .with_setting("input_format_try_infer_dates", "0")
            .with_setting("input_format_try_infer_datetimes", "0")
            .with_setting("json_type_escape_dots_in_keys", "1");
        Ok(Self { client, timeout: config.timeout, runtime })
    }

    async fn insert_block(&self, rows: &Block, token: &str) -> Result<(), clickhouse::error::Error> {
        let mut insert = self
            .client
            .insert_formatted_with(insert_statement(rows.table))
            .with_timeouts(Some(self.timeout), Some(self.timeout))
            .with_setting("insert_deduplication_token", token);
        for chunk in rows.chunks() {
            insert.send(chunk).await?;
        }
        insert.end().await
    }
}

fn insert_statement(table: Table) -> String {
    // A field that is named as a word of the language has this in front.
    let columns = table.columns().iter().map(|column| column.trim_start_matches("r#"));
    let columns = columns.map(|column| format!("`{column}`")).collect::<Vec<_>>().join(",");
    format!("INSERT INTO {}({columns}) FORMAT RowBinary", table.name())
}

impl Tables for ClickHouseTables {
    fn insert(&mut self, rows: &Block, token: &str) -> Result<(), InsertError> {
        self.runtime.block_on(self.insert_block(rows, token)).map_err(|error| classify(&error))
    }

    fn landed_offsets(&mut self, rows: &Block) -> Result<Option<BTreeSet<u64>>, InsertError> {
        let Some(extent) = rows.extent() else { return Ok(None) };
        // A landing's own dead letters name other topics' offsets.
        let (time, same_kind) = match rows.table {
            Table::Events => ("timestamp", "toInt8(source) = ?"),
            Table::DeadLetters => ("received_at", "stage != 'landing' AND ? = 0"),
            Table::AuditLog => ("at", "? = 0"),
            Table::MetricWindows | Table::MetricActivations => return Ok(None),
        };
        // The time bounds leave out the parts of other months.
        let query = format!(
            "SELECT offset FROM {} WHERE partition = ? AND offset >= ? AND offset <= ? AND {same_kind} \
             AND {time} >= fromUnixTimestamp64Milli(?) AND {time} <= fromUnixTimestamp64Milli(?)",
            rows.table.name()
        );
        let query = self.client.query(&query).bind(rows.place.partition);
        let query = query.bind(extent.first_offset).bind(extent.last_offset).bind(rows.source_number().unwrap_or(0));
        let query = query.bind(extent.earliest_ms).bind(extent.latest_ms);
        let timeout = self.timeout;
        let work = async move {
            let found = tokio::time::timeout(timeout, query.fetch_all::<u64>()).await;
            found.unwrap_or(Err(clickhouse::error::Error::TimedOut))
        };
        let offsets = self.runtime.block_on(work).map_err(|error| InsertError::Transient(error.to_string()))?;
        Ok(Some(offsets.into_iter().collect()))
    }
}

/// Codes that speak of the rows themselves; everything else may pass.
const DATA_CODES: [u32; 14] = [6, 25, 26, 27, 33, 38, 41, 53, 69, 72, 117, 130, 131, 407];

fn classify(error: &clickhouse::error::Error) -> InsertError {
    let text = error.to_string();
    match error {
        clickhouse::error::Error::BadResponse(answer) => {
            let code = exception_code(answer);
            if code.is_some_and(|code| DATA_CODES.contains(&code)) {
                InsertError::Data(text)
            } else {
                InsertError::Transient(text)
            }
        }
        _ => InsertError::Transient(text),
    }
}

/// The number in `Code: 117. DB::Exception: …`.
fn exception_code(answer: &str) -> Option<u32> {
    let rest = answer.split_once("Code: ")?.1;
    rest[..rest.find(|next: char| !next.is_ascii_digit())?].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clickhouse::error::Error;

    #[test]
    fn only_errors_about_the_rows_are_data_errors() {
        let bad = |text: &str| classify(&Error::BadResponse(text.to_owned()));
        assert!(matches!(bad("Code: 117. DB::Exception: Cannot parse JSON"), InsertError::Data(_)));
        assert!(matches!(bad("Code: 60. DB::Exception: no table"), InsertError::Transient(_)));
        assert!(matches!(bad("Bad Gateway"), InsertError::Transient(_)));
        assert!(matches!(classify(&Error::TimedOut), InsertError::Transient(_)));
    }

    #[test]
    fn a_statement_names_its_columns() {
        let statement = insert_statement(Table::MetricWindows);
        assert!(statement.starts_with("INSERT INTO metric_windows(`workspace`,`metric`,"), "{statement}");
        assert!(statement.contains(",`final`,") && statement.ends_with(",`updated_at`) FORMAT RowBinary"));
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = ClickHouseConfig {
            url: "http://localhost".into(),
            database: "neonhub".into(),
            user: Some("writer".into()),
            password: Some("hunter2".into()),
            timeout: Duration::from_secs(1),
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
