//! HTTP as a user speaks it: events in, queries and SQL out.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use crate::real_stack::wait_until;
use crate::stack::{API_KEY, CLICKHOUSE_PASSWORD, CLICKHOUSE_WRITER, WORKSPACE, WRITE_KEY};

/// How long anything may take to arrive.
pub const LIMIT: Duration = Duration::from_secs(120);

#[derive(Clone)]
pub struct Client {
    agent: Agent,
    pub ingest_port: u16,
    pub api_port: u16,
    pub clickhouse_port: u16,
}

/// An answer: status, headers that tests look at, body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub retry_after: Option<String>,
    #[allow(dead_code, reason = "not used by tests/chaos")]
    pub age: Option<String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn agent() -> Agent {
    agent_with_patience(Duration::from_secs(30))
}

fn agent_with_patience(timeout: Duration) -> Agent {
    Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build().into()
}

/// Basic authentication with the key as user and no password (base64 of `key:`).
pub fn basic(key: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{key}:")))
}

impl Client {
    pub fn new(ingest_port: u16, api_port: u16, clickhouse_port: u16) -> Self {
        Self { agent: agent(), ingest_port, api_port, clickhouse_port }
    }

    /// With connections of its own, and no answer after so long taken for none.
    #[allow(dead_code, reason = "used by tests/chaos only")]
    pub fn with_patience(&self, timeout: Duration) -> Self {
        Self { agent: agent_with_patience(timeout), ..*self }
    }

    /// Whether a URL answers with 200.
    pub fn answers(url: &str) -> bool {
        agent().get(url).call().is_ok_and(|response| response.status() == 200)
    }

    fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Answer, ureq::Error> {
        let mut response = response?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
        let age = header("age");
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
        Ok(Answer { status, content_type, retry_after, age, body })
    }

    /// Posts bytes to ingest with the write key; an error means that there was no answer.
    pub fn try_post(&self, path: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        let url = format!("http://127.0.0.1:{}{path}", self.ingest_port);
        let request = self.agent.post(&url).header("authorization", basic(WRITE_KEY));
        Self::answer(request.header("content-type", "application/json").send(body))
    }

    /// Sends just these headers and bytes to a port.
    pub fn send(&self, port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://127.0.0.1:{port}{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::answer(self.agent.run(request.body(body).unwrap()))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body.to_string().as_bytes()).unwrap()
    }

    /// Posts events that must be accepted, all of them.
    pub fn accept(&self, path: &str, events: &[Value]) {
        for chunk in events.chunks(500) {
            let answer = self.post(path, &json!({ "batch": chunk }));
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.json()["accepted"], chunk.len(), "{}", answer.body);
        }
    }

    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.api_port);
        let mut request =
            ureq::http::Request::builder().method(method).uri(url).header("authorization", format!("Bearer {API_KEY}"));
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        Self::answer(self.agent.run(request.body(bytes).unwrap())).unwrap()
    }

    /// Rows of a metric query.
    pub fn query(&self, query: &Value) -> Vec<Value> {
        let answer = self.api("POST", "/v1/metrics/query", Some(query));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["rows"].as_array().cloned().unwrap()
    }

    /// SQL on the ClickHouse front; the answer in TSV without the last line's end. An error means that it is away.
    pub fn try_sql(&self, sql: &str) -> Result<String, String> {
        self.try_sql_with(sql, &[])
    }

    fn try_sql_with(&self, sql: &str, headers: &[(&str, &str)]) -> Result<String, String> {
        let url = format!("http://127.0.0.1:{}/?database=neonhub", self.clickhouse_port);
        let request =
            headers.iter().fold(self.agent.post(&url), |request, (name, value)| request.header(*name, *value));
        let answer = Self::answer(request.send(sql.as_bytes())).map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.body.trim_end().to_owned()) } else { Err(answer.body) }
    }

    /// The same as the front's writer.
    pub fn try_write_sql(&self, sql: &str) -> Result<String, String> {
        self.try_sql_with(sql, &[("x-clickhouse-user", CLICKHOUSE_WRITER), ("x-clickhouse-key", CLICKHOUSE_PASSWORD)])
    }

    pub fn write_sql(&self, sql: &str) -> String {
        self.try_write_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until exactly so many raw events are there, and checks that none is there twice.
    pub fn wait_for_events(&self, count: usize) {
        let landed = self.wait_for_at_least(count);
        assert_eq!(landed, count, "more events are landed than were posted");
        let distinct = self.sql(&format!("SELECT uniqExact(message_id) FROM events WHERE workspace = '{WORKSPACE}'"));
        assert_eq!(distinct, count.to_string(), "an event is landed twice");
    }

    /// Waits until so many raw events are there, or more; returns how many.
    pub fn wait_for_at_least(&self, count: usize) -> usize {
        let mut last = String::new();
        let sql = format!("SELECT count() FROM events WHERE workspace = '{WORKSPACE}'");
        let outcome = wait_until("all events are landed", LIMIT * 2, || {
            last = self.try_sql(&sql).unwrap_or_default();
            Ok(last.parse::<usize>().is_ok_and(|landed| landed >= count))
        });
        assert!(outcome.is_ok(), "{last} of {count} events are landed");
        last.parse().unwrap()
    }

    /// Asks a query until the rows are as wanted; shows the last ones if they never are.
    pub fn wait_for_rows(&self, query: &Value, mut fits: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
        let mut rows = Vec::new();
        let outcome = wait_until("the rows are as wanted", LIMIT, || {
            rows = self.query(query);
            Ok(fits(&rows))
        });
        assert!(outcome.is_ok(), "{query}: {}", serde_json::to_string_pretty(&rows).unwrap());
        rows
    }

    /// The total of one metric over a range, as soon as it is this number.
    pub fn wait_for_total(&self, metric: &str, from: &str, to: &str, total: f64) {
        let query = json!({ "metrics": [metric], "grain": "total", "from": from, "to": to });
        // A ratio may differ in its last bit; counts and sums of this size are exact as doubles.
        let is_total = |number: f64| (number - total).abs() <= total.abs() * 1e-12;
        self.wait_for_rows(&query, |rows| is_total(rows.first().and_then(|row| row[metric].as_f64()).unwrap_or(0.0)));
    }
}
