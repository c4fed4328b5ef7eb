//! Posts batches to ingest, again and again where that helps, always with the same `messageId`s.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::time::{Instant, sleep};

use super::outgoing::{OutgoingEvent, Rejection};
use super::verdict::{Verdict, backoff, verdict};

/// One attempt, from connecting to the last byte of the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the same batch is tried again.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Debug)]
pub struct Poster {
    client: reqwest::Client,
    base: Url,
    write_key: String,
    patience: Duration,
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchReport {
    pub accepted: u64,
    pub rejected: Vec<Rejection>,
    /// Requests beyond the first.
    pub retries: u64,
}

/// Nothing more can be delivered.
#[derive(Debug, thiserror::Error)]
#[error("{detail} ({unsent} events of the batch were not taken)")]
pub struct PostError {
    pub detail: String,
    pub unsent: usize,
}

impl Poster {
    /// `url` is ingest's base: `http://127.0.0.1:7001`.
    ///
    /// # Errors
    /// Neither an http nor an https URL.
    pub fn new(client: reqwest::Client, url: &str, write_key: &str) -> anyhow::Result<Self> {
        let base = Url::parse(url).with_context(|| format!("`{url}` is not a URL"))?;
        if !matches!(base.scheme(), "http" | "https") {
            bail!("`{url}` is neither http:// nor https://");
        }
        Ok(Self { client, base, write_key: write_key.to_owned(), patience: PATIENCE })
    }

    /// Gives up on a batch that was not taken for `patience`.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Delivers events of one route. Returns when each was taken or refused.
    ///
    /// # Errors
    /// Ingest stayed away, or takes nothing from us.
    pub async fn post(&self, events: &[OutgoingEvent]) -> Result<BatchReport, PostError> {
        let mut report = BatchReport::default();
        let whole = 0..events.len();
        let mut pieces = vec![whole];
        while let Some(piece) = pieces.pop() {
            let batch = &events[piece.clone()];
            let unsent = |detail| {
                let others: usize = pieces.iter().map(Range::len).sum();
                PostError { detail, unsent: batch.len() + others }
            };
            match self.until_answered(batch, &mut report.retries).await.map_err(unsent)? {
                Ok(rejected) => {
                    report.accepted += (batch.len() - rejected.len()) as u64;
                    report.rejected.extend(rejected);
                }
                Err(detail) if batch.len() == 1 => report.rejected.extend(all(batch, &detail)),
                Err(_) => {
                    let middle = piece.start + piece.len() / 2;
                    pieces.push(middle..piece.end);
                    pieces.push(piece.start..middle);
                }
            }
        }
        Ok(report)
    }

    /// The rejected ones; `Err` inside: the batch is too large. `Err` outside: stop.
    async fn until_answered(
        &self,
        batch: &[OutgoingEvent],
        retries: &mut u64,
    ) -> Result<Result<Vec<Rejection>, String>, String> {
        let Some(first) = batch.first() else { return Ok(Ok(Vec::new())) };
        let url = self.base.join(&first.route).map_err(|error| format!("`{}`: {error}", first.route))?;
        let body = body_of(batch);
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let verdict = match self.attempt(url.clone(), body.clone(), batch.len()).await {
                Ok(verdict) => verdict,
                Err(error) => Verdict::Again { after: None, detail: chain(&error) },
            };
            let (after, detail) = match verdict {
                Verdict::Taken { rejected } => {
                    let named = rejected.iter().filter_map(|one| {
                        let origin = batch.get(one.index)?.origin.clone();
                        Some(Rejection { origin, detail: one.to_text() })
                    });
                    return Ok(Ok(named.collect()));
                }
                Verdict::Refused { detail } => return Ok(Ok(all(batch, &detail))),
                Verdict::Split { detail } => return Ok(Err(detail)),
                Verdict::Stop { detail } => return Err(detail),
                Verdict::Again { after, detail } => (after, detail),
            };
            attempt += 1;
            let pause = after.unwrap_or_else(|| backoff(attempt));
            if started.elapsed() + pause > self.patience {
                return Err(format!("gave up after {attempt} attempts: {detail}"));
            }
            *retries += 1;
            sleep(pause).await;
        }
    }

    async fn attempt(&self, url: Url, body: String, sent: usize) -> reqwest::Result<Verdict> {
        let request = self.client.post(url).basic_auth(&self.write_key, Some("")).timeout(ATTEMPT_TIMEOUT);
        let response = request.header(CONTENT_TYPE, "application/json").body(body).send().await?;
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = header.map(str::to_owned);
        let answer = response.bytes().await?;
        Ok(verdict(status, retry_after.as_deref(), &answer, sent))
    }
}

fn body_of(batch: &[OutgoingEvent]) -> String {
    let mut body = String::with_capacity(batch.iter().map(|event| event.json.len() + 1).sum::<usize>() + 12);
    body.push_str("{\"batch\":[");
    for (index, event) in batch.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&event.json);
    }
    body.push_str("]}");
    body
}

fn all(batch: &[OutgoingEvent], detail: &str) -> Vec<Rejection> {
    batch.iter().map(|event| Rejection { origin: event.origin.clone(), detail: detail.to_owned() }).collect()
}

/// An error with its causes: reqwest's own text says only that the request failed.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
