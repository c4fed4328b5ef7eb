//! An OpenTelemetry collector: takes OTLP over HTTP, and keeps every span with the service that told of it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

#[derive(Clone, Debug)]
pub struct Told {
    pub service: String,
    pub span: Span,
}

impl Told {
    /// As text, numbers too; empty where there is none.
    pub fn attribute(&self, name: &str) -> String {
        text(&self.span.attributes, name)
    }

    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    pub fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        other => {
            assert!(other.is_none(), "{name}: {other:?}");
            String::new()
        }
    }
}

type Spans = Arc<Mutex<Vec<Told>>>;

/// Dropped, it is away.
pub struct Collector {
    pub url: String,
    spans: Spans,
    _runtime: Runtime,
}

impl Collector {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let spans = Spans::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, spans, _runtime: runtime }
    }

    pub fn spans(&self) -> Vec<Told> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(State(spans): State<Spans>, headers: HeaderMap, body: Bytes) -> (StatusCode, Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(body);
    let (Ok(request), Some("application/x-protobuf")) =
        (request, headers.get("content-type").and_then(|value| value.to_str().ok()))
    else {
        return (StatusCode::BAD_REQUEST, Vec::new());
    };
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let service = text(&resource.attributes, "service.name");
        for span in of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans) {
            spans.lock().unwrap().push(Told { service: service.clone(), span });
        }
    }
    (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
}
