//! Tables in ClickHouse, over HTTP with the `clickhouse` crate.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use clickhouse::{Client, Row, RowWrite};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::{InsertError, Rows, Tables};

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

    async fn insert_rows<T>(&self, table: &str, rows: &[T], token: &str) -> Result<(), clickhouse::error::Error>
    where
        T: Row + Serialize + for<'a> RowWrite + for<'a> Row<Value<'a> = T>,
    {
        let insert = self.client.insert::<T>(table).await?;
        let mut insert = insert
            .with_timeouts(Some(self.timeout), Some(self.timeout))
            .with_setting("insert_deduplication_token", token);
        for row in rows {
            insert.write(row).await?;
        }
        insert.end().await
    }
}

impl Tables for ClickHouseTables {
    fn insert(&mut self, rows: &Rows, token: &str) -> Result<(), InsertError> {
        let table = rows.table().name();
        let this = &*self;
        let work = async move {
            match rows {
                Rows::Events(rows) => this.insert_rows(table, rows, token).await,
                Rows::Windows(rows) => this.insert_rows(table, rows, token).await,
                Rows::Activations(rows) => this.insert_rows(table, rows, token).await,
                Rows::DeadLetters(rows) => this.insert_rows(table, rows, token).await,
            }
        };
        self.runtime.block_on(work).map_err(|error| classify(&error))
    }

    fn landed_offsets(&mut self, rows: &Rows) -> Result<Option<BTreeSet<u64>>, InsertError> {
        let Some(extent) = Extent::of(rows) else { return Ok(None) };
        let time = if extent.table == "events" { "timestamp" } else { "received_at" };
        // The time bounds leave out the parts of other months; a landing's own dead letters name other topics' offsets.
        let same_kind = if extent.table == "events" { "toInt8(source) = ?" } else { "stage != 'landing' AND ? = 0" };
        let query = format!(
            "SELECT offset FROM {} WHERE partition = ? AND offset >= ? AND offset <= ? AND {same_kind} \
             AND {time} >= fromUnixTimestamp64Milli(?) AND {time} <= fromUnixTimestamp64Milli(?)",
            extent.table
        );
        let query = self.client.query(&query).bind(extent.partition).bind(extent.first).bind(extent.last);
        let query = query.bind(extent.source).bind(extent.earliest_ms).bind(extent.latest_ms);
        let timeout = self.timeout;
        let work = async move {
            let found = tokio::time::timeout(timeout, query.fetch_all::<u64>()).await;
            found.unwrap_or(Err(clickhouse::error::Error::TimedOut))
        };
        let offsets = self.runtime.block_on(work).map_err(|error| InsertError::Transient(error.to_string()))?;
        Ok(Some(offsets.into_iter().collect()))
    }
}

/// Where the rows of a batch lie.
struct Extent {
    table: &'static str,
    /// Number of the family of events; 0 for dead letters.
    source: i8,
    partition: u32,
    first: u64,
    last: u64,
    earliest_ms: i64,
    latest_ms: i64,
}

impl Extent {
    fn of(rows: &Rows) -> Option<Self> {
        let places: Vec<(u32, u64, i64)> = match rows {
            Rows::Events(rows) => rows.iter().map(|row| (row.partition, row.offset, row.timestamp)).collect(),
            Rows::DeadLetters(rows) => rows.iter().map(|row| (row.partition, row.offset, row.received_at)).collect(),
            Rows::Windows(_) | Rows::Activations(_) => return None,
        };
        let source = if let Rows::Events(rows) = rows { rows.first()?.source } else { 0 };
        Some(Self {
            table: rows.table().name(),
            source,
            partition: places.first()?.0,
            first: places.iter().map(|(_, offset, _)| *offset).min()?,
            last: places.iter().map(|(_, offset, _)| *offset).max()?,
            earliest_ms: places.iter().map(|(.., at_ms)| *at_ms).min()?,
            latest_ms: places.iter().map(|(.., at_ms)| *at_ms).max()?,
        })
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
