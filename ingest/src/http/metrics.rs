//! The counters of this crate. Labels take few values, whatever clients send.

use std::time::Duration;

use axum::http::StatusCode;
use neonhub_schemas::Source;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use super::door::Door;
use crate::accept::Reason;
use crate::sink::SinkError;

const SECONDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

pub(super) struct IngestMetrics {
    registry: Registry,
    /// In the order of [`Door::LABELS`].
    by_door: [OfDoor; Door::LABELS.len()],
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    accepted: [IntCounter; 3],
    rejected: IntCounterVec,
    refused: IntCounterVec,
    wire_bytes: IntCounter,
    plain_bytes: IntCounter,
    append_seconds: Histogram,
    append_failures: IntCounterVec,
    dead_letters_lost: IntCounter,
    in_flight: IntGauge,
}

/// What every request counts in, looked up once.
struct OfDoor {
    answered: IntCounter,
    seconds: Histogram,
}

impl IngestMetrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(format!("neonhub_ingest_{name}"), help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let requests = counters("requests_total", "Requests answered", &["route", "status"])?;
        let accepted = counters("events_accepted_total", "Events on the log, confirmed", &["source"])?;
        let rejected = counters("events_rejected_total", "Events refused", &["source", "reason"])?;
        let refused = counters("requests_refused_total", "Requests refused as a whole", &["reason"])?;
        let bytes = counters("body_bytes_total", "Bytes of bodies: as sent, and plain", &["form"])?;
        let append_failures = counters("append_failures_total", "Appends that failed", &["cause"])?;
        let timings = |name: &str, help: &str| {
            HistogramOpts::new(format!("neonhub_ingest_{name}"), help).buckets(SECONDS.to_vec())
        };
        let request_seconds =
            HistogramVec::new(timings("request_seconds", "From a request's head to its answer"), &["route"])?;
        let append_seconds = Histogram::with_opts(timings("append_seconds", "Until the log confirmed a request"))?;
        let dead_letters_lost =
            IntCounter::new("neonhub_ingest_dead_letters_lost_total", "Dead letters that the log did not take")?;
        let in_flight = IntGauge::new("neonhub_ingest_in_flight_bytes", "Bytes reserved for bodies being worked on")?;
        registry.register(Box::new(request_seconds.clone()))?;
        registry.register(Box::new(append_seconds.clone()))?;
        registry.register(Box::new(dead_letters_lost.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self {
            by_door: Door::LABELS.map(|label| OfDoor {
                answered: requests.with_label_values(&[label, StatusCode::OK.as_str()]),
                seconds: request_seconds.with_label_values(&[label]),
            }),
            requests,
            request_seconds,
            accepted: Source::ALL.map(|source| accepted.with_label_values(&[source.as_str()])),
            rejected,
            refused,
            wire_bytes: bytes.with_label_values(&["wire"]),
            plain_bytes: bytes.with_label_values(&["plain"]),
            append_seconds,
            append_failures,
            dead_letters_lost,
            in_flight,
            registry,
        })
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn text(&self, bytes_in_flight: usize) -> Result<Vec<u8>, prometheus::Error> {
        self.in_flight.set(i64::try_from(bytes_in_flight).unwrap_or(i64::MAX));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    pub(super) fn request(&self, route: &'static str, status: StatusCode, took: Duration) {
        let door = Door::LABELS.iter().position(|label| *label == route).map(|index| &self.by_door[index]);
        match door.filter(|_| status == StatusCode::OK) {
            Some(door) => door.answered.inc(),
            None => self.requests.with_label_values(&[route, status.as_str()]).inc(),
        }
        match door {
            Some(door) => door.seconds.observe(took.as_secs_f64()),
            None => self.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64()),
        }
    }

    pub(super) fn wire_bytes(&self, bytes: usize) {
        self.wire_bytes.inc_by(bytes as u64);
    }

    pub(super) fn plain_bytes(&self, bytes: usize) {
        self.plain_bytes.inc_by(bytes as u64);
    }

    pub(super) fn accepted(&self, source: Source, events: usize) {
        let of_source = Source::ALL.iter().position(|known| *known == source).unwrap_or(0);
        self.accepted[of_source].inc_by(events as u64);
    }

    pub(super) fn rejected(&self, source: Source, reason: Reason) {
        self.rejected.with_label_values(&[source.as_str(), reason.code()]).inc();
    }

    pub(super) fn refused(&self, reason: Reason) {
        self.refused.with_label_values(&[reason.code()]).inc();
    }

    pub(super) fn append(&self, outcome: &Result<(), SinkError>, took: Duration) {
        let cause = match outcome {
            Ok(()) => {
                self.append_seconds.observe(took.as_secs_f64());
                return;
            }
            Err(SinkError::Unavailable { .. }) => "unavailable",
            Err(SinkError::QueueFull { .. }) => "queue_full",
            Err(SinkError::Rejected { .. }) => "rejected",
        };
        self.append_failures.with_label_values(&[cause]).inc();
    }

    pub(super) fn dead_letters_lost(&self, count: usize) {
        self.dead_letters_lost.inc_by(count as u64);
    }
}
