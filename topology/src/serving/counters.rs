//! What becomes of connections, for Prometheus.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Why a connection was ended from this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A TLS handshake was not done in time.
    SlowHandshake,
    /// What came was no TLS, or client and server have no version, cipher or protocol in common, or the client does not
    /// trust the certificate.
    BadHandshake,
    /// A request's head was not whole in time.
    SlowHead,
    /// A request's body came too slowly.
    SlowBody,
    /// The client did not read its answer, or is not there any more.
    SlowReader,
    /// No request came for long.
    Idle,
    /// It was idle, and its place was needed for a new one.
    Displaced,
}

impl Cause {
    fn label(self) -> &'static str {
        match self {
            Self::SlowHandshake => "slow_handshake",
            Self::BadHandshake => "bad_handshake",
            Self::SlowHead => "slow_head",
            Self::SlowBody => "slow_body",
            Self::SlowReader => "slow_reader",
            Self::Idle => "idle",
            Self::Displaced => "displaced",
        }
    }
}

/// Each service has its own registry, so no label says which it is.
pub struct Counters {
    pub open: IntGauge,
    pub parked: IntGauge,
    pub refused: IntCounter,
    pub refused_by_address: IntCounter,
    pub requests_over_limit: IntCounter,
    ended: IntCounterVec,
}

impl Counters {
    /// # Errors
    /// The registry has metrics of these names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let open = IntGauge::new("neonhub_connections_open", "Open connections")?;
        let parked = IntGauge::new("neonhub_connections_parked", "Of the open ones, those between two requests")?;
        let refused = IntCounter::new("neonhub_connections_refused_total", "Turned away because too many were open")?;
        let refused_by_address = IntCounter::new(
            "neonhub_connections_refused_by_address_total",
            "Turned away because their address had too many open",
        )?;
        let requests_over_limit = IntCounter::new(
            "neonhub_requests_over_address_limit_total",
            "Answered 429, as their address made too many",
        )?;
        let ended = Opts::new("neonhub_connections_ended_total", "Ended from this side, by cause");
        let ended = IntCounterVec::new(ended, &["cause"])?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(parked.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        registry.register(Box::new(refused_by_address.clone()))?;
        registry.register(Box::new(requests_over_limit.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        Ok(Self { open, parked, refused, refused_by_address, requests_over_limit, ended })
    }

    pub fn ended(&self, cause: Cause) {
        self.ended.with_label_values(&[cause.label()]).inc();
    }

    #[cfg(test)]
    pub fn ended_by(&self, cause: Cause) -> u64 {
        self.ended.with_label_values(&[cause.label()]).get()
    }
}
