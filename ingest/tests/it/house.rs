//! The house the tests live in: a router, its sink, its clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use neonhub_ingest::http::{Clock, Elapsed, Random};
use neonhub_ingest::sink::memory::MemorySink;
use neonhub_ingest::{IngestConfig, IngestState, router};
use neonhub_schemas::dead_letter::DeadLetter;
use neonhub_schemas::{NewRecord, Topic};
use serde_json::Value;
use tower::ServiceExt as _;

/// `test-key:` in base64.
pub const BASIC: &str = "Basic dGVzdC1rZXk6";
pub const NOW: i64 = 1_600_000_000_000;

pub struct House {
    pub router: Router,
    pub state: IngestState,
    pub sink: Arc<MemorySink>,
    pub now_ms: Arc<AtomicI64>,
    pub elapsed_ms: Arc<AtomicU64>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The code of a problem document that is as it should be.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        problem["type"].as_str().unwrap().strip_prefix("urn:neonhub:problem:").unwrap().to_owned()
    }
}

impl House {
    pub fn new() -> Self {
        Self::with(IngestConfig::for_testing())
    }

    pub fn with(config: IngestConfig) -> Self {
        let sink = Arc::new(MemorySink::default());
        let now_ms = Arc::new(AtomicI64::new(NOW));
        let clock: Clock = {
            let now_ms = Arc::clone(&now_ms);
            Arc::new(move || now_ms.load(Ordering::SeqCst))
        };
        let elapsed_ms = Arc::<AtomicU64>::default();
        let elapsed: Elapsed = {
            let elapsed_ms = Arc::clone(&elapsed_ms);
            Arc::new(move || Duration::from_millis(elapsed_ms.load(Ordering::SeqCst)))
        };
        let drawn = AtomicU64::new(1);
        let random: Random = Arc::new(move || u128::from(drawn.fetch_add(1, Ordering::SeqCst)) << 64);
        let state = IngestState::new(config, sink.clone(), clock, elapsed, random).unwrap();
        Self { router: router(state.clone()), state, sink, now_ms, elapsed_ms }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(request("POST", path).header("authorization", BASIC).body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub fn records(&self, topic: Topic) -> Vec<NewRecord> {
        self.sink.records().into_iter().filter(|record| record.topic == topic).collect()
    }

    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.records(Topic::EventsRejected).into_iter();
        letters.map(|record| serde_json::from_slice(&record.value.unwrap()).unwrap()).collect()
    }
}

pub fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path)
}
