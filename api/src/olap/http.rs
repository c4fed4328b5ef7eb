//! The port on ClickHouse's HTTP interface, through the `clickhouse` crate.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use clickhouse::error::Error;
use clickhouse::query::Query;
use clickhouse::{Client, RowOwned, RowRead};

use super::{ActivationRow, AuditRow, ClosedRow, EventRow, Olap, OlapError, SketchRow, SqlStatement, WindowRow};

/// Where ClickHouse is.
#[derive(Clone)]
pub struct ClickHouseConfig {
    /// `http://127.0.0.1:8123`.
    pub url: String,
    pub database: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub timeout: Duration,
}

impl std::fmt::Debug for ClickHouseConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseConfig")
            .field("url", &self.url)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("timeout", &self.timeout)
            .finish()
    }
}

pub struct ClickHouseOlap {
    client: Client,
    timeout: Duration,
}

impl ClickHouseOlap {
    #[must_use]
    pub fn new(config: &ClickHouseConfig) -> Self {
        let mut client = Client::default()
            .with_url(&config.url)
            .with_database(&config.database)
            .with_product_info("neonhub-api", env!("CARGO_PKG_VERSION"))
            // All revisions of an epoch lie in one partition.
            .with_setting("do_not_merge_across_partitions_select_final", "1")
            // Only conditions over the sorting key are moved before FINAL, which are nearly all.
            .with_setting("optimize_move_to_prewhere_if_final", "1")
            .with_setting("output_format_json_quote_64bit_integers", "0")
            .with_setting("max_execution_time", config.timeout.as_secs().max(1).to_string());
        if let Some(user) = &config.user {
            client = client.with_user(user);
        }
        if let Some(password) = &config.password {
            client = client.with_password(password);
        }
        Self { client, timeout: config.timeout }
    }

    fn query(&self, statement: &SqlStatement) -> Query {
        // Raw: a `?` in the text is no placeholder here, all values are server-side parameters.
        let query = self.client.query_raw(&statement.sql);
        statement.params.iter().fold(query, |query, (name, value)| query.param(name, value))
    }

    async fn rows<T: RowOwned + RowRead>(&self, statement: &SqlStatement) -> Result<Vec<T>, OlapError> {
        self.in_time(self.query(statement).fetch_all::<T>()).await
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, OlapError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Err(_) => Err(OlapError::TimedOut),
            Ok(result) => result.map_err(|error| classify(&error)),
        }
    }
}

/// Codes as in ClickHouse's `ErrorCodes.cpp`.
fn classify(error: &Error) -> OlapError {
    let text = error.to_string();
    match error {
        Error::Network(_) => OlapError::Away(text),
        Error::TimedOut => OlapError::TimedOut,
        Error::BadResponse(_) => match exception_code(&text) {
            Some(159 | 160) => OlapError::TimedOut,
            // Too many rows or bytes, memory.
            Some(158 | 241 | 307 | 396) => OlapError::TooLarge(text),
            // Too many queries at once, network, shutting down.
            Some(202 | 209 | 210 | 236 | 394) => OlapError::Away(text),
            None if text.contains("502") || text.contains("503") => OlapError::Away(text),
            _ => OlapError::Refused(text),
        },
        _ => OlapError::Refused(text),
    }
}

/// `Code: 241. DB::Exception: …`
fn exception_code(text: &str) -> Option<u32> {
    let rest = text.split_once("Code: ")?.1;
    rest.split(|next: char| !next.is_ascii_digit()).next()?.parse().ok()
}

#[async_trait]
impl Olap for ClickHouseOlap {
    async fn windows(&self, statement: &SqlStatement) -> Result<Vec<WindowRow>, OlapError> {
        self.rows(statement).await
    }

    async fn sketches(
        &self,
        statement: &SqlStatement,
        take: &mut (dyn FnMut(SketchRow) + Send),
    ) -> Result<(), OlapError> {
        let read = async {
            let mut cursor = self.query(statement).fetch::<SketchRow>()?;
            while let Some(row) = cursor.next().await? {
                take(row);
            }
            Ok(())
        };
        self.in_time(read).await
    }

    async fn closed(&self, statement: &SqlStatement) -> Result<Vec<ClosedRow>, OlapError> {
        self.rows(statement).await
    }

    async fn events(&self, statement: &SqlStatement) -> Result<Vec<EventRow>, OlapError> {
        self.rows(statement).await
    }

    async fn activations(&self, statement: &SqlStatement) -> Result<Vec<ActivationRow>, OlapError> {
        self.rows(statement).await
    }

    async fn audit(&self, statement: &SqlStatement) -> Result<Vec<AuditRow>, OlapError> {
        self.rows(statement).await
    }

    async fn ping(&self) -> Result<(), OlapError> {
        let statement = SqlStatement { sql: "SELECT toUInt8(1)".to_owned(), params: Vec::new() };
        self.in_time(self.query(&statement).fetch_one::<u8>()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do_next() {
        let bad = |text: &str| classify(&Error::BadResponse(text.to_owned()));
        assert_eq!(bad("Code: 159. DB::Exception: Timeout exceeded"), OlapError::TimedOut);
        assert!(matches!(bad("Code: 241. DB::Exception: Memory limit"), OlapError::TooLarge(_)));
        assert!(matches!(bad("Code: 62. DB::Exception: Syntax error"), OlapError::Refused(_)));
        assert!(matches!(classify(&Error::Network("refused".into())), OlapError::Away(_)));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_away() {
        let config = ClickHouseConfig {
            url: "http://127.0.0.1:1".to_owned(),
            database: "neonhub".to_owned(),
            user: None,
            password: Some("hidden".to_owned()),
            timeout: Duration::from_secs(5),
        };
        assert!(!format!("{config:?}").contains("hidden"));
        assert!(matches!(ClickHouseOlap::new(&config).ping().await, Err(OlapError::Away(_))));
    }
}
