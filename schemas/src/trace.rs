//! Pure: no I/O, no clock, no async.
//!
//! An event's way through the roles, as a distributed trace: contexts as in W3C Trace Context (`traceparent`, version 00),
//! which records carry from stage to stage, and the spans that the stages tell of. Whoever exports spans is handed in.

use std::borrow::Cow;
use std::num::{NonZeroU64, NonZeroU128};
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::header;
use crate::record::{Headers, Record};

pub type TraceId = NonZeroU128;
pub type SpanId = NonZeroU64;

/// A span, as those after it know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub span_id: SpanId,
    pub is_sampled: bool,
}

/// What the flags of version 00 say.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// Reads a `traceparent`. `None`: it is none, and a trace begins anew (W3C Trace Context, 3.2.2). Of a version that is
    /// newer it reads the part that is known.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (version, rest) = text.split_at_checked(2)?;
        let (fields, rest) = rest.split_at_checked(53)?;
        let is_whole = match hex(version, 2)? {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let mut fields = fields.split(|byte| *byte == b'-').skip(1);
        let trace_id = hex(fields.next()?, 32)?;
        let span_id = u64::try_from(hex(fields.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(fields.next()?, 2)?).ok()?;
        let context = Self {
            trace_id: TraceId::new(trace_id)?,
            span_id: SpanId::new(span_id)?,
            is_sampled: flags & SAMPLED != 0,
        };
        is_whole.then_some(context)
    }

    /// The one that a record belongs to.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        Self::parse(record.headers.get(header::TRACE_PARENT)?)
    }

    /// Written into what follows from it.
    #[must_use]
    pub fn stamp(self, headers: Headers) -> Headers {
        headers.with(header::TRACE_PARENT, Bytes::from(self.to_string()))
    }

    /// The same where there may be none.
    #[must_use]
    pub fn stamp_if(trace: Option<Self>, headers: Headers) -> Headers {
        match trace {
            Some(trace) => trace.stamp(headers),
            None => headers,
        }
    }
}

/// Exactly so many lower-case digits.
fn hex(text: &[u8], digits: usize) -> Option<u128> {
    if text.len() != digits {
        return None;
    }
    text.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// As OpenTelemetry names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Answers a request.
    Server,
    /// Works on a record.
    Consumer,
    /// Hands a record on to clients that do not answer.
    Producer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    Text(Cow<'static, str>),
    Number(i64),
}

impl From<&'static str> for AttributeValue {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<i64> for AttributeValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// By their names in OpenTelemetry's semantic conventions; NeonHub's own begin with `neonhub.`.
pub type Attributes = Vec<(&'static str, AttributeValue)>;

/// A part of an event's way that is over.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub context: TraceContext,
    /// `None`: the trace begins here.
    pub parent: Option<SpanId>,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    /// Microseconds since the Unix epoch.
    pub start_us: i64,
    pub end_us: i64,
    pub attributes: Attributes,
    /// Why it came to nothing.
    pub failure: Option<String>,
}

/// A part of an event's way that has begun. Dropped without [`Tracer::end`] it is not told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSpan {
    /// For what follows from it.
    pub context: TraceContext,
    /// Of a record: where it lies.
    pub attributes: Attributes,
    parent: Option<SpanId>,
    start_us: i64,
}

impl OpenSpan {
    /// Whether the trace begins here, and not at a sender.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.parent.is_none()
    }
}

/// Begins spans, and hands those that are over to whoever exports them. By default it is off: nothing is traced.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Tracing>>);

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("is_on", &self.is_on()).finish()
    }
}

struct Tracing {
    /// A trace that begins here is told of when its id, as a fraction of all ids, lies below.
    ratio: f64,
    random: Box<dyn Fn() -> u128 + Send + Sync>,
    export: Box<dyn Fn(Span) + Send + Sync>,
}

impl Tracer {
    /// Of the traces that begin here, `ratio` (0 to 1) are told of; of those that come with a `traceparent` the ones that are
    /// sampled. `export` is called wherever a span ends, and must not wait.
    #[must_use]
    pub fn new(
        ratio: f64,
        random: impl Fn() -> u128 + Send + Sync + 'static,
        export: impl Fn(Span) + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(Tracing { ratio, random: Box::new(random), export: Box::new(export) })))
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Where an event comes in, with the `traceparent` that its sender states. `None`: it is not traced.
    #[must_use]
    pub fn begin(&self, stated: Option<&[u8]>, start_us: i64) -> Option<OpenSpan> {
        let tracing = self.0.as_deref()?;
        let parent = stated.and_then(TraceContext::parse);
        let (trace_id, is_sampled) = match parent {
            Some(parent) => (parent.trace_id, parent.is_sampled),
            None => {
                let trace_id = TraceId::new((tracing.random)()).unwrap_or(TraceId::MIN);
                (trace_id, is_below(trace_id, tracing.ratio))
            }
        };
        is_sampled.then(|| tracing.open(trace_id, parent.map(|parent| parent.span_id), start_us))
    }

    /// Where the work on a record begins. `None`: it is not traced.
    #[must_use]
    pub fn follow(&self, record: &Record, start_us: i64) -> Option<OpenSpan> {
        let tracing = self.0.as_deref()?;
        let parent = TraceContext::of(record).filter(|parent| parent.is_sampled)?;
        let span = tracing.open(parent.trace_id, Some(parent.span_id), start_us);
        Some(OpenSpan { attributes: place_attributes(record), ..span })
    }

    pub fn end(
        &self,
        span: OpenSpan,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        end_us: i64,
        failure: Option<String>,
    ) {
        let OpenSpan { context, attributes, parent, start_us } = span;
        if let Some(tracing) = &self.0 {
            let end_us = end_us.max(start_us);
            (tracing.export)(Span { context, parent, name: name.into(), kind, start_us, end_us, attributes, failure });
        }
    }
}

impl Tracing {
    fn open(&self, trace_id: TraceId, parent: Option<SpanId>, start_us: i64) -> OpenSpan {
        let (high, low) = halves((self.random)());
        let span_id = SpanId::new(high ^ low).unwrap_or(SpanId::MIN);
        let context = TraceContext { trace_id, span_id, is_sampled: true };
        OpenSpan { context, attributes: Vec::new(), parent, start_us }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "two halves")]
fn halves(bits: u128) -> (u64, u64) {
    ((bits >> 64) as u64, bits as u64)
}

/// By the low 56 bits, which are random in every trace id (W3C Trace Context Level 2), so that roles decide alike.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
fn is_below(trace_id: TraceId, ratio: f64) -> bool {
    let place = halves(trace_id.get()).1 & ((1 << 56) - 1);
    (place as f64) < ratio * (1_u64 << 56) as f64
}

fn place_attributes(record: &Record) -> Attributes {
    vec![
        ("messaging.operation.type", "process".into()),
        ("messaging.destination.name", record.topic.name().into()),
        ("messaging.destination.partition.id", record.partition.to_string().into()),
        ("messaging.kafka.offset", record.offset.into()),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::topics::Topic;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_w3c_has_it() {
        let context = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert_eq!(context.trace_id.get(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.span_id.get(), context.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.to_string(), PARENT);
        let unsampled = PARENT.replace("-01", "-00");
        assert!(!TraceContext::parse(unsampled.as_bytes()).unwrap().is_sampled);
        let newer = format!("cc{}-what-the-future-brings", &PARENT[2..]);
        assert_eq!(TraceContext::parse(newer.as_bytes()), Some(context));
    }

    #[test]
    fn anything_else_is_none() {
        let version_ff = format!("ff{}", &PARENT[2..]);
        let longer = format!("{PARENT}-00");
        let newer_without_dash = format!("cc{}.00", &PARENT[2..]);
        let upper = PARENT.to_ascii_uppercase();
        let no_trace = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let shifted = PARENT.replace("-4bf9", "4-bf9");
        for text in [&version_ff, &longer, &newer_without_dash, &upper, &no_trace, &no_span, &shifted] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
        for end in 0..PARENT.len() {
            assert_eq!(TraceContext::parse(&PARENT.as_bytes()[..end]), None, "{end}");
        }
        assert_eq!(TraceContext::parse("00-é".repeat(14).as_bytes()), None);
    }

    fn tracer(ratio: f64) -> (Tracer, Arc<Mutex<Vec<Span>>>) {
        let spans: Arc<Mutex<Vec<Span>>> = Arc::default();
        let (told, drawn) = (Arc::clone(&spans), Mutex::new(0_u128));
        let random = move || {
            let mut drawn = drawn.lock().unwrap();
            // A generator of full period: its numbers spread over all ids.
            *drawn = drawn.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645).wrapping_add(1);
            *drawn ^ (*drawn >> 64)
        };
        (Tracer::new(ratio, random, move |span| told.lock().unwrap().push(span)), spans)
    }

    #[test]
    fn a_trace_goes_on_through_records() {
        let (tracer, spans) = tracer(0.0);
        let begun = tracer.begin(Some(PARENT.as_bytes()), 10).unwrap();
        let record = Record {
            topic: Topic::RawBehavior,
            partition: 1,
            offset: 7,
            timestamp_ms: 0,
            key: Bytes::new(),
            value: None,
            headers: begun.context.stamp(Headers::new()),
        };
        let followed = tracer.follow(&record, 20).unwrap();
        tracer.end(followed, "refine", SpanKind::Consumer, 5, None);
        tracer.end(begun.clone(), "POST /v1/track", SpanKind::Server, 30, Some("away".to_owned()));
        let spans = spans.lock().unwrap();
        let stated = TraceContext::parse(PARENT.as_bytes()).unwrap();
        assert!(spans.iter().all(|span| span.context.trace_id == stated.trace_id));
        assert_eq!((spans[0].parent, spans[1].parent), (Some(begun.context.span_id), Some(stated.span_id)));
        assert_eq!((spans[0].start_us, spans[0].end_us), (20, 20), "a clock that was set back");
        assert!(spans[0].attributes.contains(&("messaging.kafka.offset", AttributeValue::Number(7))));
    }

    #[test]
    fn what_nobody_samples_is_not_traced() {
        let unsampled = PARENT.replace("-01", "-00");
        assert!(tracer(1.0).0.begin(Some(unsampled.as_bytes()), 0).is_none());
        assert!(Tracer::default().begin(Some(PARENT.as_bytes()), 0).is_none());
        assert!(tracer(0.0).0.begin(None, 0).is_none());
        assert!(tracer(1.0).0.begin(Some(b"nonsense"), 0).is_some(), "a trace begins anew");
    }

    #[test]
    fn about_as_many_traces_are_told_of_as_asked() {
        let (tracer, _) = tracer(0.1);
        let sampled = (0..10_000).filter(|_| tracer.begin(None, 0).is_some()).count();
        // Ten standard deviations of 10,000 draws at 0.1.
        assert!(sampled.abs_diff(1_000) < 300, "{sampled}");
    }
}
