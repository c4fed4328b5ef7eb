//! Traces in the simulated world: each message has one of its own, so that any record can be asked whether it goes on in the
//! trace of the message that it follows from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use neonhub_schemas::codec::header;
use neonhub_schemas::record::{NewRecord, Record};
use neonhub_schemas::trace::{AttributeValue, Span, SpanId, TraceContext, TraceId, Tracer};
use xxhash_rust::xxh3::xxh3_128;

/// What was told of events that have landed: message and trace.
type Landed = BTreeSet<(String, TraceId)>;

#[derive(Clone, Default)]
pub struct Traces {
    landed: Arc<Mutex<Landed>>,
}

/// The trace of a message.
pub fn trace_of(message_id: &[u8]) -> TraceId {
    TraceId::new(xxh3_128(message_id)).unwrap_or(TraceId::MIN)
}

/// As ingest does with requests that are traced; what is no event is left alone.
pub fn begin(records: &mut [NewRecord]) {
    for record in records {
        if let Some(message_id) = record.headers.get(header::MESSAGE_ID) {
            let trace_id = trace_of(message_id);
            let context = TraceContext { trace_id, span_id: SpanId::MIN, is_sampled: true };
            record.headers = context.stamp(std::mem::take(&mut record.headers));
        }
    }
}

impl Traces {
    pub fn tracer(&self) -> Tracer {
        let (landed, drawn) = (Arc::clone(&self.landed), AtomicU64::new(1));
        let export = move |span: Span| {
            let message = span.attributes.iter().find(|(name, _)| *name == "neonhub.message_id");
            if let Some((_, AttributeValue::Text(message_id))) = message.filter(|_| span.name == "landing") {
                let told = (message_id.clone().into_owned(), span.context.trace_id);
                landed.lock().unwrap_or_else(PoisonError::into_inner).insert(told);
            }
        };
        Tracer::new(0.0, move || drawn.fetch_add(1, Ordering::Relaxed).into(), export)
    }

    pub fn landed(&self) -> Landed {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An event goes on in the trace of its message.
pub fn check_event(record: &Record) -> Result<(), String> {
    let message_id = record.headers.get(header::MESSAGE_ID).ok_or("an event without a message id")?;
    match TraceContext::of(record) {
        Some(context) if context.trace_id == trace_of(message_id) => Ok(()),
        other => Err(format!("{message_id:?} goes on in {other:?}")),
    }
}
