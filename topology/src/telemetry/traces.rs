//! Traces, told to an OpenTelemetry collector (OTLP over HTTP, protobuf) from a thread of its own. A collector that is away or
//! slow costs spans, and nothing else: what waits for it is bounded.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use neonhub_schemas::trace::{AttributeValue, Span, SpanKind, Tracer};
use opentelemetry::trace::{self, SpanContext, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _,
};

use crate::clients::blocking_http_client;
use crate::clock;
use crate::settings::Settings;

/// How long spans wait for others.
const LINGER: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);
/// Spans that wait for the collector; the rest is dropped, and the log says so.
const QUEUE: usize = 16_384;

/// The traces of this process.
pub struct Traces {
    tracer: Tracer,
    /// `None`: nothing is traced.
    processor: Option<Arc<BatchSpanProcessor>>,
}

impl Traces {
    /// `service` is OpenTelemetry's `service.name`.
    ///
    /// # Errors
    /// The collector's address cannot be worked with; whether it answers is found out later.
    pub fn start(settings: &Settings, service: &'static str) -> anyhow::Result<Self> {
        let Some(endpoint) = &settings.traces.endpoint else {
            return Ok(Self { tracer: Tracer::default(), processor: None });
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(PATIENCE)
            .with_http_client(blocking_http_client(PATIENCE)?)
            .build()
            .map_err(|error| anyhow::anyhow!("NEONHUB_OTLP_ENDPOINT = `{endpoint}`: {error}"))?;
        let batches = BatchConfigBuilder::default().with_scheduled_delay(LINGER).with_max_queue_size(QUEUE).build();
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let instance = KeyValue::new("service.instance.id", settings.backbone.instance.clone());
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name(service).with_attributes([instance, version]).build();
        processor.set_resource(&resource);
        let processor = Arc::new(processor);
        let (told, scope) = (Arc::clone(&processor), InstrumentationScope::builder("neonhub").build());
        let export = move |span| told.on_end(span_data(span, &scope));
        let tracer = Tracer::new(settings.traces.ratio, clock::random, export);
        Ok(Self { tracer, processor: Some(processor) })
    }

    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Tells the collector what it has not been told yet, while it is patient.
    pub async fn finish(self) {
        let Some(processor) = self.processor else { return };
        let shut_down = tokio::task::spawn_blocking(move || processor.shutdown_with_timeout(PATIENCE));
        match shut_down.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last spans did not reach the collector"),
            Err(error) => tracing::warn!(%error, "the last spans could not be waited for"),
        }
    }
}

fn span_data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let trace_id = trace::TraceId::from(span.context.trace_id.get());
    let span_id = trace::SpanId::from(span.context.span_id.get());
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: span.parent.map_or(trace::SpanId::INVALID, |id| trace::SpanId::from(id.get())),
        parent_span_is_remote: span.parent.is_some(),
        span_kind: match span.kind {
            SpanKind::Server => trace::SpanKind::Server,
            SpanKind::Consumer => trace::SpanKind::Consumer,
            SpanKind::Producer => trace::SpanKind::Producer,
        },
        name: span.name,
        start_time: time(span.start_us),
        end_time: time(span.end_us),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: span.failure.map_or(Status::Unset, Status::error),
        instrumentation_scope: scope.clone(),
    }
}

fn time(us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(us).unwrap_or(0))
}

fn attribute((name, value): (&'static str, AttributeValue)) -> KeyValue {
    match value {
        AttributeValue::Text(text) => KeyValue::new(name, text),
        AttributeValue::Number(number) => KeyValue::new(name, number),
    }
}
