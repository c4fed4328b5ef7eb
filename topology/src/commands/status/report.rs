//! Pure: no I/O, no clock, no async.
//!
//! What is shown of the roles.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::metrics::{Samples, greatest, sum};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoleStatus {
    pub role: &'static str,
    pub url: String,
    pub ready: bool,
    /// What is not ready; or how many workers work.
    pub detail: String,
}

/// Of all processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProcessorStatus {
    /// Records that wait, over all partitions.
    pub lag_records: f64,
    /// How far event time is behind the wall clock, of the slowest partition; absent where none is at work.
    pub watermark_delay_seconds: Option<f64>,
    pub records_per_second: f64,
    pub outputs_per_second: f64,
    pub state_bytes: f64,
    pub dead_letters: f64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    pub roles: Vec<RoleStatus>,
    /// By name.
    pub processors: BTreeMap<String, ProcessorStatus>,
    pub events_accepted_per_second: f64,
    pub rows_landed_per_second: f64,
    pub queries_per_second: f64,
    pub live_clients: f64,
    pub open_connections: f64,
}

impl Status {
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.roles.iter().all(|role| role.ready)
    }

    /// Takes up what one process shows, and how fast it grew.
    pub(super) fn add(&mut self, role: &str, samples: &Samples, rates: &Samples) {
        self.open_connections += sum(samples, "neonhub_connections_open", &[]);
        match role {
            "ingest" => self.events_accepted_per_second += sum(rates, "neonhub_ingest_events_accepted_total", &[]),
            "api" => {
                self.queries_per_second += sum(rates, "neonhub_api_requests_total", &[]);
                self.live_clients += sum(samples, "neonhub_api_live_clients", &[]);
            }
            _ => {
                self.rows_landed_per_second += sum(rates, "neonhub_landing_rows_total", &[]);
                self.add_processors(samples, rates);
            }
        }
    }

    fn add_processors(&mut self, samples: &Samples, rates: &Samples) {
        let names = samples.keys().filter(|(name, _)| name == "neonhub_processor_records_total");
        let names: Vec<String> = names.filter_map(|(_, labels)| labels.get("processor").cloned()).collect();
        for name in names {
            let of = [("processor", name.as_str())];
            let status = self.processors.entry(name.clone()).or_default();
            status.lag_records += sum(samples, "neonhub_processor_lag_records", &of);
            status.records_per_second += sum(rates, "neonhub_processor_records_total", &of);
            status.outputs_per_second += sum(rates, "neonhub_processor_outputs_total", &of);
            status.state_bytes += sum(samples, "neonhub_processor_state_bytes", &of);
            status.dead_letters += sum(samples, "neonhub_processor_dead_letters_total", &of);
            let delay = greatest(samples, "neonhub_processor_watermark_delay_seconds", "processor", &name);
            status.watermark_delay_seconds = match (status.watermark_delay_seconds, delay) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            };
        }
    }
}

/// Of a readiness' body: the parts that are not ready, or the workers that are.
pub(super) fn detail(body: &Value) -> String {
    if let (Some(working), Some(total)) = (body["working"].as_u64(), body["workers"].as_u64()) {
        let at_work = format!("{working} of {total} workers at work");
        return match body["inserts_that_fail"].as_u64() {
            None | Some(0) => at_work,
            Some(failing) => format!("{at_work}; clickhouse: {failing} inserts fail"),
        };
    }
    let parts = body["parts"].as_object().or_else(|| body.as_object()).into_iter().flatten();
    let not_ready = parts.filter_map(|(name, part)| match part {
        Value::Object(part) if part["ready"] == false => {
            Some(format!("{name}: {}", part.get("reason").and_then(Value::as_str).unwrap_or("not ready")))
        }
        // Ingest says each part in words.
        Value::String(text) if text != "ready" && !["type", "title", "detail"].contains(&name.as_str()) => {
            Some(format!("{name}: {text}"))
        }
        _ => None,
    });
    not_ready.collect::<Vec<_>>().join("; ")
}

/// As events pass.
const ORDER: [&str; 4] = ["refine", "metrics.partial", "metrics.merge", "landing"];

/// In the largest unit of which there are two.
fn behind(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let unit = units.into_iter().find(|(length, _)| seconds >= 2.0 * length);
    let (length, name) = unit.unwrap_or((1.0, "s"));
    format!("{:.0} {name} ago", seconds / length)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<11} {:<28} {:<10} ", "role", "address", "")?;
        for role in &self.roles {
            let ready = if role.ready { "ready" } else { "NOT READY" };
            writeln!(f, "{:<11} {:<28} {ready:<10} {}", role.role, role.url, role.detail)?;
        }
        if !self.processors.is_empty() {
            let columns = ["lag", "watermark", "in /s", "out /s", "state", "dead letters"];
            write!(f, "\n{:<17}", "processor")?;
            columns.iter().try_for_each(|column| write!(f, "{column:>13}"))?;
            writeln!(f)?;
        }
        let mut processors: Vec<_> = self.processors.iter().collect();
        processors.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
        for (name, status) in processors {
            let delay = status.watermark_delay_seconds.map_or("–".to_owned(), behind);
            let state = format!("{:.1} MiB", status.state_bytes / f64::from(1 << 20));
            writeln!(
                f,
                "{name:<17}{:>13.0}{delay:>13}{:>13.0}{:>13.0}{state:>13}{:>13.0}",
                status.lag_records, status.records_per_second, status.outputs_per_second, status.dead_letters
            )?;
        }
        writeln!(
            f,
            "\n{:.0} events accepted a second, {:.0} rows landed, {:.0} requests to the query API; {:.0} live clients, \
             {:.0} connections",
            self.events_accepted_per_second,
            self.rows_landed_per_second,
            self.queries_per_second,
            self.live_clients,
            self.open_connections
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::metrics::parse;
    use super::*;

    #[test]
    fn processes_add_up_and_the_slowest_partition_is_shown() {
        let one = "neonhub_processor_records_total{processor=\"refine\"} 10\n\
                   neonhub_processor_lag_records{processor=\"refine\",topic=\"raw.behavior\",partition=\"0\"} 3\n\
                   neonhub_processor_lag_records{processor=\"refine\",topic=\"raw.behavior\",partition=\"1\"} 4\n\
                   neonhub_processor_watermark_delay_seconds{processor=\"refine\",topic=\"t\",partition=\"0\"} 31\n\
                   neonhub_processor_watermark_delay_seconds{processor=\"refine\",topic=\"t\",partition=\"1\"} 35\n";
        let samples = parse(one);
        let mut status = Status::default();
        for _ in 0..2 {
            status.add("processors", &samples, &samples);
        }
        let refine = &status.processors["refine"];
        assert_eq!((refine.lag_records, refine.watermark_delay_seconds), (14.0, Some(35.0)));
        assert_eq!(refine.records_per_second, 20.0);
        let text = status.to_string();
        assert!(text.contains("refine") && text.contains("35 s ago"), "{text}");
        assert_eq!([119.0, 120.0, 7_200.0, 864_000.0].map(behind), ["119 s ago", "2 min ago", "2 h ago", "10 d ago"]);
    }

    #[test]
    fn what_is_not_ready_is_named() {
        let of_api = json!({
            "title": "Service Unavailable", "ready": false,
            "parts": {"clickhouse": {"ready": false, "reason": "connection refused"}, "log": {"ready": true}}
        });
        assert_eq!(detail(&of_api), "clickhouse: connection refused");
        assert_eq!(detail(&json!({"ready": false, "log": "away", "listener": "ready"})), "log: away");
        assert_eq!(detail(&json!({"ready": true, "workers": 4, "working": 4})), "4 of 4 workers at work");
        assert_eq!(
            detail(&json!({"ready": false, "workers": 4, "working": 4, "inserts_that_fail": 2})),
            "4 of 4 workers at work; clickhouse: 2 inserts fail"
        );
        assert_eq!(detail(&json!({"ready": true, "parts": {"log": {"ready": true}}})), "");
    }
}
