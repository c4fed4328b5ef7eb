//! Pure: no I/O, no clock, no async.
//!
//! What a demo run came to, as printed with `--json`.

use serde::Serialize;

use super::answers::{Agreement, ApiAnswer, SqlAnswer};
use super::tally::{Counts, Group, Tally};
use super::wilson::{Interval, wilson};

pub const ATTRIBUTION: &str = "Data: Open Bandit Dataset, ZOZO, Inc. (Saito, Aihara, Matsutani, Narita 2020, \
arXiv:2008.07146), CC BY 4.0, https://research.zozo.com/data.html";

#[derive(Clone, Debug, Serialize)]
pub struct DemoOutcome {
    /// The three counts are the same, to the last click.
    pub agree: bool,
    pub agreement: Agreement,
    /// By campaign and policy, as the query API has it.
    pub results: Vec<GroupResult>,
    /// Counted straight from the files.
    pub truth: Source<Truth>,
    pub api: Source<ApiAnswer>,
    pub sql: Source<SqlAnswer>,
    pub live: LiveOutcome,
    pub sending: Sending,
    pub latency: Latency,
    /// From the first byte read to the verdict.
    pub seconds: f64,
    /// What the last questions ended in, if not in an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
    pub attribution: &'static str,
}

/// A source's answer under its own total.
#[derive(Clone, Debug, Serialize)]
pub struct Source<T> {
    pub total: Counts,
    #[serde(flatten)]
    pub answer: T,
}

#[derive(Clone, Debug, Serialize)]
pub struct Truth {
    pub days: Tally,
}

#[derive(Clone, Debug, Serialize)]
pub struct GroupResult {
    #[serde(flatten)]
    pub group: Group,
    #[serde(flatten)]
    pub counts: Counts,
    pub ctr: Option<f64>,
    /// 95 %, Wilson.
    pub interval: Option<Interval>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Sending {
    pub events: u64,
    pub accepted: u64,
    pub retries: u64,
    pub seconds: f64,
    pub events_per_second: f64,
}

/// Seconds from ingest's last answer until the last event was visible. `null`: not within the deadline.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    pub api_seconds: Option<f64>,
    pub sql_seconds: Option<f64>,
    pub live_seconds: Option<f64>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct LiveOutcome {
    pub revisions: u64,
    pub connections: u64,
    pub total: Counts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The groups of the truth, counted by the API; then those that only the API knows.
#[must_use]
pub fn results(truth: &Tally, api: &ApiAnswer) -> Vec<GroupResult> {
    let mut groups = truth.groups();
    groups.values_mut().for_each(|counts| *counts = Counts::default());
    groups.extend(api.groups.clone());
    let result = |(group, counts): (Group, Counts)| GroupResult {
        ctr: api.ctr.get(&group).copied(),
        interval: wilson(counts.clicks, counts.impressions),
        group,
        counts,
    };
    groups.into_iter().map(result).collect()
}
