//! An API on fakes, and requests to it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use neonhub_api::cache::CacheConfig;
use neonhub_api::control::memory::MemoryControl;
use neonhub_api::feed::memory::MemoryFeed;
use neonhub_api::olap::memory::MemoryOlap;
use neonhub_api::store::memory::MemoryStore;
use neonhub_api::{ApiConfig, ApiState, Parts, router};
use neonhub_schemas::access::{KeyRing, KeySecret, SharedKeyRing};
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::trace::Tracer;
use neonhub_schemas::window::{Aggregate, Epoch, Grain, Sample, WindowState, WindowUpsert};
use serde_json::Value;
use tower::ServiceExt;

/// How long a test waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Rig {
    pub state: ApiState,
    pub router: Router,
    pub olap: Arc<MemoryOlap>,
    pub store: Arc<MemoryStore>,
    pub control: Arc<MemoryControl>,
    pub feed: MemoryFeed,
    pub keys: SharedKeyRing,
    /// Milliseconds; goes on by one with every look.
    pub now: Arc<AtomicI64>,
    /// Milliseconds of the clock that quotas go by.
    pub elapsed: Arc<AtomicU64>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
    pub text: String,
}

impl Answer {
    /// Checks that it is problem+json of this status; returns the field that it names.
    pub fn problem(&self, status: u16) -> Option<String> {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], status);
        assert!(self.json["detail"].is_string() && self.json["type"].is_string(), "{}", self.text);
        self.json["field"].as_str().map(str::to_owned)
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(ApiConfig::for_testing(), MemoryFeed::new(2))
    }

    /// With answers kept as they are by default.
    pub fn with_cache() -> Self {
        Self::with(ApiConfig { cache: CacheConfig::default(), ..ApiConfig::for_testing() }, MemoryFeed::new(2))
    }

    pub fn with(config: ApiConfig, feed: MemoryFeed) -> Self {
        let olap = Arc::new(MemoryOlap::default());
        let store = Arc::new(MemoryStore::default());
        let control = Arc::new(MemoryControl::default());
        let now = Arc::new(AtomicI64::new(1_574_553_600_000));
        let of_clock = Arc::clone(&now);
        let elapsed = Arc::<AtomicU64>::default();
        let of_elapsed = Arc::clone(&elapsed);
        let random = AtomicU64::new(1);
        let secret = KeySecret::new("a secret of the tests, long enough").unwrap();
        let keys = Arc::new(RwLock::new(KeyRing::new(Some(secret))));
        keys.write().unwrap().complete();
        let parts = Parts {
            tracer: Tracer::default(),
            olap: olap.clone(),
            shared_cache: None,
            store: store.clone(),
            control: control.clone(),
            feed: Arc::new(feed.clone()),
            keys: keys.clone(),
            clock: Arc::new(move || of_clock.fetch_add(1, Ordering::SeqCst)),
            elapsed: Arc::new(move || Duration::from_millis(of_elapsed.load(Ordering::SeqCst))),
            random: Arc::new(move || Some(random.fetch_add(1, Ordering::SeqCst).into())),
        };
        let state = ApiState::start(config, parts).unwrap();
        Self { router: router(state.clone()), state, olap, store, control, feed, keys, now, elapsed }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, json, text }
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, body, &[]).await
    }

    pub async fn call_with(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if headers.iter().all(|(name, _)| *name != "authorization") {
            request = request.header("authorization", "Bearer secret");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            Some(json) => {
                request = request.header("content-type", "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub async fn put(&self, name: &str, body: Value) -> Answer {
        self.call(Method::PUT, &format!("/v1/metrics/definitions/{name}"), Some(body)).await
    }
}

/// A revision of an hour of clicks.
pub fn upsert(campaign: &str, revision: u64) -> WindowUpsert {
    let mut aggregate = Aggregate::default();
    (0..revision).for_each(|_| aggregate.add(Sample::One).unwrap());
    WindowUpsert {
        key: MetricKey {
            workspace: "acme".into(),
            metric: "clicks".into(),
            series: 0,
            dimensions: [("campaign".to_owned(), campaign.to_owned())].into(),
        },
        source: Source::Campaign,
        grain: Grain::Hour,
        zone: "UTC".into(),
        window_start: 1_574_553_600,
        window_end: 1_574_557_200,
        epoch: Epoch { partition: 0, offset: 0 },
        revision,
        r#final: false,
        state: WindowState::of(&aggregate),
        as_of: revision,
        updated_at: 0,
    }
}
