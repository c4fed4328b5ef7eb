//! `neonhub status`: what the roles say of themselves, as a table that is drawn anew or as JSON.

mod metrics;
mod report;

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use metrics::Samples;
pub use report::{ProcessorStatus, RoleStatus, Status};

/// Rates are over so long.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Where roles answer; there may be several of one.
#[derive(Clone, Debug)]
pub struct Targets {
    pub client: reqwest::Client,
    pub ingest: Vec<String>,
    pub processors: Vec<String>,
    pub api: Vec<String>,
}

/// Looks twice, a second apart. A role that does not answer is part of the answer.
pub async fn look(targets: &Targets) -> Status {
    let client = &targets.client;
    let roles = [("ingest", &targets.ingest), ("processors", &targets.processors), ("api", &targets.api)];
    let places: Vec<(&'static str, String)> =
        roles.into_iter().flat_map(|(role, urls)| urls.iter().map(move |url| (role, url.clone()))).collect();
    let began = Instant::now();
    let before = scrape_all(client, &places).await;
    tokio::time::sleep_until(began + BETWEEN_LOOKS).await;
    let after = scrape_all(client, &places).await;
    let seconds = began.elapsed().as_secs_f64();
    let mut status = Status::default();
    for ((role, url), (before, after)) in places.iter().zip(before.iter().zip(&after)) {
        status.roles.push(readiness(client, role, url).await);
        if let Some(after) = after {
            let rates = before.as_ref().map(|before| metrics::rates(before, after, seconds)).unwrap_or_default();
            status.add(role, after, &rates);
        }
    }
    status
}

async fn scrape_all(client: &reqwest::Client, places: &[(&'static str, String)]) -> Vec<Option<Samples>> {
    futures_util::future::join_all(places.iter().map(|(_, url)| scrape(client, url))).await
}

async fn scrape(client: &reqwest::Client, url: &str) -> Option<Samples> {
    let answer = client.get(format!("{url}/metrics")).timeout(PATIENCE).send().await.ok()?;
    Some(metrics::parse(&answer.error_for_status().ok()?.text().await.ok()?))
}

async fn readiness(client: &reqwest::Client, role: &'static str, url: &str) -> RoleStatus {
    let status = |ready, detail| RoleStatus { role, url: url.to_owned(), ready, detail };
    let answer = match client.get(format!("{url}/health/ready")).timeout(PATIENCE).send().await {
        Ok(answer) => answer,
        Err(_) => return status(false, "does not answer".to_owned()),
    };
    let ready = answer.status().is_success();
    let body: Value = answer.json().await.unwrap_or_default();
    status(ready, report::detail(&body))
}
