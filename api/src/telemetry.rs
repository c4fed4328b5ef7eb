//! Prometheus metrics of this process, served at `/metrics`.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

pub struct Telemetry {
    registry: Registry,
    pub requests: IntCounterVec,
    pub request_seconds: HistogramVec,
    pub live_clients: IntGauge,
    pub live_updates: IntCounter,
    pub live_resets: IntCounter,
    pub republished: IntCounter,
    /// Where an answer to a metric query came from: `clickhouse`, `memory`, `redis`.
    pub metric_answers: IntCounterVec,
    pub shared_cache_failures: IntCounter,
}

impl Telemetry {
    /// # Errors
    /// Two metrics of one name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let live_updates = counter("neonhub_api_live_updates_total", "Window revisions handed to live clients")?;
        let live_resets = counter("neonhub_api_live_resets_total", "Live clients whose place was gone from the log")?;
        let republished = counter("neonhub_api_republished_total", "Definitions and keys that `control` lacked")?;
        let shared_cache_failures = counter(
            "neonhub_api_shared_cache_failures_total",
            "Times that the cache shared with other processes did not answer, or had a value that is none",
        )?;
        let metric_answers = IntCounterVec::new(
            Opts::new("neonhub_api_metric_answers_total", "Answers to metric queries, by where they came from"),
            &["from"],
        )?;
        registry.register(Box::new(metric_answers.clone()))?;
        let requests = IntCounterVec::new(
            Opts::new("neonhub_api_requests_total", "Requests answered"),
            &["method", "route", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let seconds = HistogramOpts::new("neonhub_api_request_duration_seconds", "Time to the answer's head");
        let request_seconds = HistogramVec::new(seconds, &["method", "route"])?;
        registry.register(Box::new(request_seconds.clone()))?;
        let live_clients = IntGauge::new("neonhub_api_live_clients", "Live subscriptions")?;
        registry.register(Box::new(live_clients.clone()))?;
        Ok(Self {
            registry,
            requests,
            request_seconds,
            live_clients,
            live_updates,
            live_resets,
            republished,
            metric_answers,
            shared_cache_failures,
        })
    }

    /// What is behind `/metrics`, for whoever counts something of this service elsewhere.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text format of Prometheus.
    ///
    /// # Errors
    /// A metric cannot be written.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_registered_once() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.live_clients.inc();
        assert!(telemetry.text().unwrap().contains("neonhub_api_live_clients 1"));
    }
}
