//! Traces through the stages and the landing.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use neonhub_processors::engine::{Clock, EngineMetrics, Ports, SourceEvent, Stage, Worker, WorkerConfig};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::Envelope;
use neonhub_schemas::codec::header;
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::{Span, SpanKind, TraceContext, Tracer};
use prometheus::Registry;

use crate::fake_ports::FakePorts;

const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Span>>>);

impl Told {
    fn tracer(&self) -> Tracer {
        let (spans, drawn) = (Arc::clone(&self.0), Mutex::new(0_u128));
        let random = move || {
            let mut drawn = drawn.lock().unwrap();
            *drawn += 1;
            *drawn
        };
        Tracer::new(0.0, random, move |span| spans.lock().unwrap().push(span))
    }

    fn take(&self) -> Vec<Span> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What a stage commits after it was given these records of one partition.
fn pass<S: Stage>(stage: S, place: TopicPartition, given: Vec<NewRecord>, tracer: Tracer) -> Vec<NewRecord> {
    let ports = FakePorts::default();
    let records = (0..).zip(given).map(|(offset, new)| Record {
        topic: place.topic,
        partition: place.partition,
        offset,
        timestamp_ms: new.timestamp_ms,
        key: new.key,
        value: new.value,
        headers: new.headers,
    });
    ports.says(vec![SourceEvent::Assigned(vec![place])]);
    ports.says(vec![SourceEvent::Records(records.collect())]);
    let now_ms = AtomicI64::new(1_774_000_000_000);
    let clock: Clock = Arc::new(move || now_ms.fetch_add(1_000, Ordering::Relaxed));
    let config = WorkerConfig { commit_interval: Duration::ZERO, ..WorkerConfig::default() };
    let metrics = EngineMetrics::register(&Registry::new()).unwrap();
    let mut worker = Worker::new(stage, Ports { tracer, ..ports.ports() }, clock, config, metrics).unwrap();
    worker.step().unwrap();
    ports.world().units.clear();
    worker.step().unwrap();
    let units = std::mem::take(&mut ports.world().units);
    units.into_iter().flat_map(|unit| unit.records).collect()
}

fn raw(message_id: &str, trace: Option<&str>) -> NewRecord {
    let text = TRACK.replace("m-1", message_id);
    let mut record = Envelope::decode(text.as_bytes()).unwrap().to_raw_record();
    if let Some(trace) = trace {
        record.headers = record.headers.with(header::TRACE_PARENT, Bytes::from(trace.to_owned()));
    }
    record
}

fn context_of(record: &NewRecord) -> Option<TraceContext> {
    TraceContext::parse(record.headers.get(header::TRACE_PARENT)?)
}

#[test]
fn an_event_is_followed_from_stage_to_stage() {
    let told = Told::default();
    let place = |topic| TopicPartition { topic, partition: 0 };
    let given = vec![raw("m-1", None), raw("m-2", Some(PARENT)), raw("m-3", None)];
    let refined = pass(Refine::new(RefineConfig::default()), place(Topic::RawBehavior), given, told.tracer());
    let events: Vec<&NewRecord> = refined.iter().filter(|record| record.topic == Topic::EventsBehavior).collect();
    assert_eq!(events.iter().map(|event| context_of(event).is_some()).collect::<Vec<_>>(), [false, true, false]);

    let spans = told.take();
    let stated = TraceContext::parse(PARENT.as_bytes()).unwrap();
    assert_eq!(spans.len(), 1, "of the traced event alone: {spans:?}");
    assert_eq!((&*spans[0].name, spans[0].kind), ("refine", SpanKind::Consumer));
    assert_eq!(spans[0].parent, Some(stated.span_id));
    assert_eq!(context_of(events[1]), Some(spans[0].context), "what follows follows from the span");

    let events: Vec<NewRecord> = events.into_iter().cloned().collect();
    let stage = MetricsPartial::new(PartialConfig::default());
    let partials = pass(stage, place(Topic::EventsBehavior), events, told.tracer());
    let partial_span = told.take().remove(0);
    assert_eq!((&*partial_span.name, partial_span.parent), ("metrics.partial", Some(spans[0].context.span_id)));
    // The three events were combined, one of them is traced.
    let deltas: Vec<&NewRecord> =
        partials.iter().filter(|record| record.headers.get(header::SCHEMA).is_some()).collect();
    assert!(deltas.len() > 1 && deltas.iter().all(|delta| context_of(delta) == Some(partial_span.context)));
    let heartbeats = partials.iter().filter(|record| record.headers.get(header::TYPE).is_some());
    assert!(heartbeats.clone().count() > 0 && heartbeats.clone().all(|record| context_of(record).is_none()));

    let given: Vec<NewRecord> = deltas.into_iter().cloned().collect();
    let count = given.len();
    let stage = MetricsMerge::new(MergeConfig { cadence: [Duration::ZERO; 6], ..MergeConfig::default() }).unwrap();
    let windows = pass(stage, place(Topic::MetricsPartials), given, told.tracer());
    let spans = told.take();
    assert!(spans.len() == count && spans.iter().all(|span| span.parent == Some(partial_span.context.span_id)));
    let windows: Vec<&NewRecord> = windows.iter().filter(|record| record.topic == Topic::MetricsWindows).collect();
    assert!(windows.len() >= 6);
    let contexts: Vec<TraceContext> = spans.iter().map(|span| span.context).collect();
    assert!(windows.iter().all(|window| context_of(window).is_some_and(|context| contexts.contains(&context))));
    assert!(contexts.iter().all(|context| context.trace_id == stated.trace_id));
}

#[test]
fn what_is_not_sampled_is_not_told_of_and_goes_no_further() {
    let told = Told::default();
    let place = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
    for trace in [PARENT.replace("-01", "-00"), "nonsense".to_owned(), String::new()] {
        let given = vec![raw("m-1", Some(&trace))];
        let refined = pass(Refine::new(RefineConfig::default()), place, given, told.tracer());
        assert!(!refined.is_empty() && refined.iter().all(|record| context_of(record).is_none()), "{trace}");
        assert_eq!(told.take(), [], "{trace}");
    }
    let given = vec![raw("m-1", Some(PARENT))];
    let refined = pass(Refine::new(RefineConfig::default()), place, given, Tracer::default());
    assert!(refined.iter().all(|record| context_of(record).is_none()), "nothing is traced where tracing is off");
}

#[test]
fn a_dead_letter_goes_on_in_its_trace() {
    let told = Told::default();
    let place = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
    let poison = NewRecord { value: Some(Bytes::from_static(b"{")), ..raw("m-1", Some(PARENT)) };
    let refined = pass(Refine::new(RefineConfig::default()), place, vec![poison], told.tracer());
    let letters: Vec<&NewRecord> = refined.iter().filter(|record| record.topic == Topic::EventsRejected).collect();
    assert_eq!(letters.len(), 1);
    assert_eq!(context_of(letters[0]), Some(told.take()[0].context));
}
