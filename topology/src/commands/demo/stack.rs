//! The running stack, as the demo sees it: addresses, keys, and the two places that answer questions.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;

use super::answers::{
    ApiAnswer, Period, RAW_COUNTS, RAW_IDS, RawIds, SqlAnswer, metric_query, read_api_answer, read_sql_answer,
};
use crate::clients::http_client;

const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Where everything is. Nothing of it is printed but what a person needs to go on.
#[derive(Clone, Debug)]
pub struct DemoStack {
    pub ingest_url: String,
    pub api_url: String,
    pub clickhouse_url: String,
    pub database: String,
    /// Empty at the start.
    pub workspace: String,
    pub write_key: String,
    pub api_key: String,
}

/// Asks the query API and ClickHouse.
#[derive(Clone, Debug)]
pub struct Questions {
    client: reqwest::Client,
    stack: DemoStack,
}

impl Questions {
    /// # Errors
    /// No HTTP client.
    pub fn new(stack: &DemoStack) -> anyhow::Result<Self> {
        Ok(Self { client: http_client(None)?, stack: stack.clone() })
    }

    /// # Errors
    /// The API did not answer as it should.
    pub async fn api(&self, period: &Period) -> anyhow::Result<ApiAnswer> {
        let (total, by_day) = tokio::try_join!(self.metrics("total", period), self.metrics("day", period))?;
        read_api_answer(&total, &by_day).context("the query API's answer")
    }

    async fn metrics(&self, grain: &str, period: &Period) -> anyhow::Result<Vec<u8>> {
        let url = format!("{}/v1/metrics/query", self.stack.api_url.trim_end_matches('/'));
        let request = self.client.post(url).bearer_auth(&self.stack.api_key).timeout(QUESTION_TIMEOUT);
        answer(request.json(&metric_query(grain, period))).await.context("POST /v1/metrics/query")
    }

    /// # Errors
    /// ClickHouse did not answer as it should.
    pub async fn sql(&self) -> anyhow::Result<SqlAnswer> {
        let (counts, ids) = tokio::try_join!(self.statement(RAW_COUNTS), self.statement(RAW_IDS))?;
        read_sql_answer(&counts, &ids).context("ClickHouse's answer")
    }

    /// # Errors
    /// ClickHouse did not answer as it should.
    pub async fn events_so_far(&self) -> anyhow::Result<u64> {
        let ids: RawIds = serde_json::from_str(self.statement(RAW_IDS).await?.trim())?;
        Ok(ids.events)
    }

    async fn statement(&self, sql: &'static str) -> anyhow::Result<String> {
        let mut url = Url::parse(&self.stack.clickhouse_url).context("ClickHouse's URL")?;
        url.query_pairs_mut()
            .append_pair("param_database", &self.stack.database)
            .append_pair("param_workspace", &self.stack.workspace);
        let request = self.client.post(url).timeout(QUESTION_TIMEOUT).body(sql);
        Ok(String::from_utf8(answer(request).await.context("SQL over HTTP")?)?)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> anyhow::Result<Vec<u8>> {
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    if !status.is_success() {
        let beginning: String = String::from_utf8_lossy(&body).chars().take(500).collect();
        bail!("{status}: {beginning}");
    }
    Ok(body.into())
}
