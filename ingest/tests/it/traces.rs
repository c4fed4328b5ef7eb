//! Traces that begin, or go on, at ingest.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use neonhub_ingest::IngestConfig;
use neonhub_ingest::sink::SinkError;
use neonhub_ingest::sink::memory::Fault;
use neonhub_schemas::trace::{AttributeValue, Span, SpanKind, TraceContext, Tracer};
use neonhub_schemas::{NewRecord, Topic};

use crate::house::{BASIC, House, NOW, request};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const BATCH: &str =
    r#"{"batch": [{"type": "page", "userId": "u-1"}, {"type": "track", "userId": "u-1", "event": "x"}]}"#;

struct Traced {
    house: House,
    told: Arc<Mutex<Vec<Span>>>,
}

impl Traced {
    fn at(ratio: f64) -> Self {
        let told: Arc<Mutex<Vec<Span>>> = Arc::default();
        let (spans, drawn) = (Arc::clone(&told), Mutex::new(0_u128));
        let random = move || {
            let mut drawn = drawn.lock().unwrap();
            *drawn += 1;
            *drawn
        };
        let tracer = Tracer::new(ratio, random, move |span| spans.lock().unwrap().push(span));
        Self { house: House::with(IngestConfig { tracer, ..IngestConfig::for_testing() }), told }
    }

    /// The status, the one span if there is one, and what lies on the log.
    async fn post(&self, path: &str, traceparents: &[&str], body: &str) -> (u16, Option<Span>, Vec<NewRecord>) {
        let mut wanted = request("POST", path).header("authorization", BASIC);
        for traceparent in traceparents {
            wanted = wanted.header("traceparent", *traceparent);
        }
        let before = self.house.sink.records().len();
        let answer = self.house.send(wanted.body(Body::from(body.to_owned())).unwrap()).await;
        let mut spans = std::mem::take(&mut *self.told.lock().unwrap());
        assert!(spans.len() <= 1, "{spans:?}");
        (answer.status.as_u16(), spans.pop(), self.house.sink.records().split_off(before))
    }
}

fn context_of(record: &NewRecord) -> Option<TraceContext> {
    TraceContext::parse(record.headers.get("traceparent")?)
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a AttributeValue {
    &span.attributes.iter().find(|(known, _)| *known == name).unwrap().1
}

#[tokio::test]
async fn a_senders_trace_goes_on_in_every_record_of_the_request() {
    let traced = Traced::at(0.0);
    let (status, span, records) = traced.post("/v1/batch", &[PARENT], BATCH).await;
    let span = span.unwrap();
    let stated = TraceContext::parse(PARENT.as_bytes()).unwrap();
    assert_eq!((status, span.context.trace_id, span.parent), (200, stated.trace_id, Some(stated.span_id)));
    assert_eq!((&*span.name, span.kind, span.start_us), ("POST /v1/batch", SpanKind::Server, NOW * 1_000));
    assert_eq!(attribute(&span, "http.response.status_code"), &AttributeValue::Number(200));
    assert_eq!(attribute(&span, "neonhub.events"), &AttributeValue::Number(2));
    assert_eq!(attribute(&span, "neonhub.workspace"), &AttributeValue::from("acme"));
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| context_of(record) == Some(span.context)));
}

#[tokio::test]
async fn without_one_the_ratio_decides() {
    let (_, span, records) = Traced::at(1.0).post("/v1/track", &[], r#"{"userId": "u-1", "event": "x"}"#).await;
    let span = span.unwrap();
    assert_eq!((span.parent, context_of(&records[0])), (None, Some(span.context)));
    let never = Traced::at(0.0);
    for traceparents in [&[][..], &["nonsense"], &[PARENT, PARENT], &[&PARENT.replace("-01", "-00")]] {
        let (status, span, records) = never.post("/v1/batch", traceparents, BATCH).await;
        assert_eq!((status, span, records.len()), (200, None, 2), "{traceparents:?}");
        assert!(records.iter().all(|record| record.headers.get("traceparent").is_none()));
    }
}

#[tokio::test]
async fn names_are_few_and_only_our_faults_are_failures() {
    let traced = Traced::at(1.0);
    let (status, span, _) = traced.post("/v1/integrations/crm-17/events", &[], r#"{"payload": {}}"#).await;
    let span = span.unwrap();
    assert_eq!((&*span.name, span.failure), ("POST /v1/integrations/{platform}/events", None));
    assert_eq!(status, 400);
    traced.house.sink.inject(Fault::Fail(SinkError::unavailable("away")));
    let (status, span, records) = traced.post("/v1/batch", &[], BATCH).await;
    assert_eq!((status, span.unwrap().failure.as_deref()), (503, Some("answered 503")));
    assert!(records.iter().all(|record| record.topic != Topic::RawBehavior));
}

#[tokio::test]
async fn strangers_cannot_ask_to_be_told_of() {
    let traced = Traced::at(0.0);
    let request = request("POST", "/v1/batch").header("traceparent", PARENT).body(Body::from(BATCH)).unwrap();
    assert_eq!(traced.house.send(request).await.status.as_u16(), 401);
    assert_eq!(*traced.told.lock().unwrap(), []);
}
