//! `neonhub doctor`: looks at everything that the settings name, and says what to do where something is wrong.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use neonhub_api::cache::redis::RedisCache;
use neonhub_api::cache::shared::SharedCache as _;
use neonhub_schemas::migrations::CLICKHOUSE;
use serde::Serialize;

use crate::clients::{
    TopicWork, applied_migrations_of, check_or_create_topics, check_version, clickhouse_server, operational_store,
};
use crate::clock;
use crate::settings::{Settings, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Fine,
    /// It works, and will be regretted.
    Doubtful,
    Wrong,
}

#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub what: &'static str,
    pub state: State,
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub findings: Vec<Finding>,
}

/// Bytes free on the data folder's disk; the embedded log refuses commits below 256 MiB.
const LEAST_FREE: u64 = 1 << 30;
const MOST_CLOCK_SKEW: Duration = Duration::from_secs(5);
const FEW_DESCRIPTORS: u64 = 10_000;
const SHORT_KEY: usize = 16;
const PATIENCE: Duration = Duration::from_secs(15);

impl Report {
    #[must_use]
    pub fn is_fine(&self) -> bool {
        self.findings.iter().all(|finding| finding.state != State::Wrong)
    }

    fn fine(&mut self, what: &'static str, detail: impl Into<String>) {
        self.findings.push(Finding { what, state: State::Fine, detail: detail.into(), advice: None });
    }

    fn bad(&mut self, what: &'static str, state: State, detail: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { what, state, detail: detail.into(), advice: Some(advice.into()) });
    }
}

/// Looks at everything; nothing is changed but what opening the operational store makes.
pub async fn examine(settings: &Settings, values: &Values, library: &Path) -> Report {
    let mut report = Report::default();
    keys(settings, &mut report);
    descriptors(&mut report);
    disk(&settings.data_dir, &mut report);
    if settings.is_embedded_log() {
        report.fine("log", format!("embedded, in {}", settings.data_dir.join("log").display()));
    } else {
        topics(settings, &mut report).await;
    }
    clickhouse(settings, library, &mut report).await;
    store(settings, &mut report).await;
    redis(settings, &mut report).await;
    if values.is_default("log_format") && !settings.is_embedded_log() {
        let advice = "NEONHUB_LOG_FORMAT=json, so that a log service can read the fields";
        report.bad("logs", State::Doubtful, "written for people", advice);
    }
    report
}

fn keys(settings: &Settings, report: &mut Report) {
    let named = [
        ("NEONHUB_BOOTSTRAP_WRITE_KEY", &settings.access.write_key),
        ("NEONHUB_BOOTSTRAP_API_KEY", &settings.access.api_key),
    ];
    for (name, key) in named {
        match key {
            None => {
                let advice = format!("export {name}=$(openssl rand -hex 16)");
                report.bad("keys", State::Wrong, format!("{name} is not set: its role does not start"), advice);
            }
            Some(key) if key.len() < SHORT_KEY => {
                let advice = format!("a random one: export {name}=$(openssl rand -hex 16)");
                report.bad("keys", State::Doubtful, format!("{name} has {} characters", key.len()), advice);
            }
            Some(_) => report.fine("keys", format!("{name} is set")),
        }
    }
    match (&settings.access.key_secret, settings.is_embedded_log()) {
        (Some(_), _) => report.fine("keys", "NEONHUB_KEY_SECRET is set"),
        (None, true) => report.fine("keys", "the key secret is kept in the data folder: it belongs to a backup"),
        (None, false) => {
            let advice = "export NEONHUB_KEY_SECRET=$(openssl rand -hex 32), the same for all roles, for good";
            report.bad("keys", State::Doubtful, "NEONHUB_KEY_SECRET is not set: only the bootstrap keys work", advice);
        }
    }
}

fn descriptors(report: &mut Report) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    match limit {
        Some(limit) if limit < FEW_DESCRIPTORS => {
            let advice = "raise the hard limit (`LimitNOFILE` of systemd, `ulimits` of compose)";
            report.bad("open files", State::Doubtful, format!("at most {limit}, so few connections"), advice);
        }
        limit => report.fine("open files", limit.map_or("no limit".to_owned(), |limit| format!("at most {limit}"))),
    }
}

fn disk(folder: &Path, report: &mut Report) {
    // The nearest folder that is there has the disk that the data will be on.
    let Some(existing) = folder.ancestors().find(|path| path.exists()).map(|path| match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    }) else {
        return report.bad("disk", State::Wrong, format!("{} is nowhere", folder.display()), "name another folder");
    };
    if let Err(error) = tempfile::tempfile_in(existing) {
        let advice = "give this user the folder, or name another as NEONHUB_DATA_DIR";
        return report.bad("disk", State::Wrong, format!("{} cannot be written: {error}", existing.display()), advice);
    }
    match rustix::fs::statvfs(existing) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let detail = format!("{:.1} GiB free for {}", free as f64 / f64::from(1 << 30), folder.display());
            if free < LEAST_FREE {
                report.bad("disk", State::Wrong, detail, "make room: below 256 MiB the embedded log refuses events");
            } else {
                report.fine("disk", detail);
            }
        }
        Err(error) => report.bad("disk", State::Doubtful, error.to_string(), "look at the disk"),
    }
}

async fn topics(settings: &Settings, report: &mut Report) {
    let advice = "look whether the brokers run and NEONHUB_KAFKA_BROKERS names them as they advertise themselves";
    match within(check_or_create_topics(&settings.backbone, TopicWork::Check)).await {
        Err(error) => report.bad("log", State::Wrong, error.to_string(), advice),
        Ok(topics) => {
            let wrong: Vec<String> = topics
                .iter()
                .filter(|topic| !topic.is_fine)
                .map(|topic| format!("{} {}", topic.topic, topic.state))
                .collect();
            if wrong.is_empty() {
                report.fine("log", format!("Kafka answers, {} topics are as they should be", topics.len()));
            } else {
                report.bad("log", State::Wrong, wrong.join("; "), "neonhub topics");
            }
        }
    }
}

async fn clickhouse(settings: &Settings, library: &Path, report: &mut Report) {
    let url = settings.clickhouse.effective_url();
    if settings.clickhouse.url.is_none() {
        if library.is_file() {
            report.fine("clickhouse", format!("embedded: {}", library.display()));
        } else {
            let advice = "deploy/fetch-libchdb.sh fetches it; NEONHUB_LIBCHDB names another";
            report.bad("clickhouse", State::Wrong, format!("{} is not there", library.display()), advice);
        }
    }
    let (version, now_ms) = match within(clickhouse_server(settings)).await {
        Ok(answer) => answer,
        Err(_) if settings.clickhouse.url.is_none() => {
            return report.fine("clickhouse", format!("nothing answers at {url}: `neonhub up` starts it"));
        }
        Err(error) => {
            let advice = "look whether the server runs, and at NEONHUB_CLICKHOUSE_URL, _USER and _PASSWORD";
            return report.bad("clickhouse", State::Wrong, error.to_string(), advice);
        }
    };
    match check_version(&version) {
        Ok(()) => report.fine("clickhouse", format!("version {version} answers at {url}")),
        Err(error) => report.bad("clickhouse", State::Wrong, error.to_string(), "upgrade the server"),
    }
    let skew = Duration::from_millis(clock::now_ms().abs_diff(now_ms));
    if skew > MOST_CLOCK_SKEW {
        let detail = format!("ClickHouse's clock is {:.1} s off this machine's", skew.as_secs_f64());
        report.bad("clock", State::Doubtful, detail, "let both follow NTP: events five minutes ahead are refused");
    } else {
        report.fine("clock", "ClickHouse's and this machine's agree");
    }
    match within(applied_migrations_of(settings)).await {
        Err(error) => report.bad("migrations", State::Wrong, error.to_string(), "neonhub migrate"),
        Ok(applied) => {
            let missing: Vec<&str> = CLICKHOUSE
                .iter()
                .filter(|migration| !applied.iter().any(|(number, _)| *number == migration.number))
                .map(|migration| migration.name)
                .collect();
            let changed: Vec<&str> = CLICKHOUSE
                .iter()
                .filter(|one| applied.iter().any(|(number, hash)| *number == one.number && *hash != one.hash()))
                .map(|migration| migration.name)
                .collect();
            if !changed.is_empty() {
                let advice = "this binary is not of the version that made the tables: use that one, or a newer";
                report.bad("migrations", State::Wrong, format!("changed: {}", changed.join(", ")), advice);
            } else if !missing.is_empty() {
                report.bad("migrations", State::Wrong, format!("missing: {}", missing.join(", ")), "neonhub migrate");
            } else {
                report.fine("migrations", format!("all {} are applied", CLICKHOUSE.len()));
            }
        }
    }
}

async fn store(settings: &Settings, report: &mut Report) {
    if settings.store.scylla_nodes.is_empty() {
        return report.fine("store", format!("embedded, in {}", settings.data_dir.join("store").display()));
    }
    let nodes = settings.store.scylla_nodes.join(",");
    let answered = async { Ok(operational_store(settings).await?.ping().await?) };
    match within(answered).await {
        Ok(()) => report.fine("store", format!("{nodes} answers")),
        Err(error) => {
            let advice = "look whether the nodes run and NEONHUB_SCYLLA_NODES names their CQL ports";
            report.bad("store", State::Wrong, format!("{nodes}: {error}"), advice);
        }
    }
}

async fn redis(settings: &Settings, report: &mut Report) {
    let Some(url) = &settings.cache.redis_url else { return };
    let answered = async { Ok(RedisCache::new(url)?.ping().await?) };
    match within(answered).await {
        Ok(()) => report.fine("redis", "answers"),
        Err(error) => {
            let advice =
                "look whether it runs, and at NEONHUB_REDIS_URL; queries are answered without it, from ClickHouse";
            report.bad("redis", State::Doubtful, error.to_string(), advice);
        }
    }
}

async fn within<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let late = || anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(late()))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match finding.state {
                State::Fine => "✓",
                State::Doubtful => "!",
                State::Wrong => "✗",
            };
            writeln!(f, "{mark} {:<12} {}", finding.what, finding.detail)?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "  {:<12} → {advice}", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_cannot_be_written_is_wrong_and_says_what_to_do() {
        let mut report = Report::default();
        disk(Path::new("/proc/nowhere/data"), &mut report);
        assert!(!report.is_fine());
        let text = report.to_string();
        assert!(text.contains("✗ disk") && text.contains("NEONHUB_DATA_DIR"), "{text}");
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        disk(&folder.path().join("not/yet/there"), &mut report);
        assert!(report.is_fine(), "{report}");
    }
}
