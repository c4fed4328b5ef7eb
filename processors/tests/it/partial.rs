use bytes::Bytes;
use neonhub_processors::engine::Stage;
use neonhub_processors::metrics::{MetricsPartial, PartialConfig};
use neonhub_schemas::codec::header;
use neonhub_schemas::control::{Activation, DefinitionRecord};
use neonhub_schemas::event::Envelope;
use neonhub_schemas::metric::DefinitionText;
use neonhub_schemas::record::{Headers, NewRecord, Record};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::Partial;

use crate::bench_log::Bench;

const TRACK: &str = include_str!("../../../schemas/golden/envelope-v1-track.json");

pub fn bench() -> Bench<MetricsPartial> {
    let config = PartialConfig { partials_partitions: 1, ..PartialConfig::default() };
    Bench::new(MetricsPartial::new(config), Topic::EventsBehavior)
}

pub fn event(timestamp: &str) -> NewRecord {
    let text = TRACK.replace("2019-11-24T00:00:02.123Z", timestamp);
    let raw = Envelope::decode(text.as_bytes()).unwrap().to_raw_record();
    NewRecord { topic: Topic::EventsBehavior, partition: Some(0), ..raw }
}

pub fn idle() -> NewRecord {
    NewRecord {
        topic: Topic::EventsBehavior,
        partition: Some(0),
        key: Bytes::from_static(b"heartbeat"),
        value: Some(Bytes::from_static(b"{\"idle\":true}")),
        headers: Headers::new().with(header::TYPE, Bytes::from_static(b"heartbeat")),
        timestamp_ms: 0,
    }
}

pub fn partials(bench: &Bench<MetricsPartial>) -> Vec<Partial> {
    let of_partials = bench.outputs.iter().filter(|record| record.topic == Topic::MetricsPartials);
    of_partials.map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
}

pub fn activations(bench: &Bench<MetricsPartial>) -> Vec<Activation> {
    let of_activations = bench.outputs.iter().filter(|record| record.topic == Topic::MetricsActivations);
    of_activations.map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
}

pub fn define(bench: &mut Bench<MetricsPartial>, revision: u64, definition: Option<&str>) {
    let record = DefinitionRecord {
        workspace: "acme".into(),
        name: "orders".into(),
        revision,
        definition: definition.map(|text| serde_json::from_str::<DefinitionText>(text).unwrap()),
        updated_at: 0,
    };
    bench.stage.observe_global(&Record {
        topic: Topic::Control,
        partition: 0,
        offset: revision,
        timestamp_ms: 0,
        key: Bytes::from(record.key()),
        value: Some(Bytes::from(serde_json::to_vec(&record).unwrap())),
        headers: Headers::new(),
    });
}

pub const ORDERS: &str = r#"{"source":"behavior","event":"Order Completed","aggregation":"count"}"#;

pub fn counted(bench: &Bench<MetricsPartial>, metric: &str) -> u64 {
    let of_metric =
        partials(bench).into_iter().filter(|partial| partial.key.as_ref().is_some_and(|key| key.metric == metric));
    of_metric.flat_map(|partial| partial.deltas).map(|delta| delta.state.count).sum()
}

#[test]
fn events_are_combined_by_key_and_minute_and_the_watermark_comes_after_them() {
    let mut bench = bench();
    for second in 0..50 {
        bench.feed(event(&format!("2019-11-24T00:00:{second:02}.000Z")), 0);
    }
    bench.feed(event("2019-11-24T00:01:10.000Z"), 0);
    bench.commit(0);
    let all = partials(&bench);
    let visitors: Vec<&Partial> =
        all.iter().filter(|partial| partial.key.as_ref().is_some_and(|key| key.metric == "visitors")).collect();
    assert_eq!(visitors.len(), 1, "one record a key");
    assert_eq!(visitors[0].deltas.iter().map(|delta| delta.state.count).collect::<Vec<_>>(), [50, 1]);
    let last = all.last().unwrap();
    assert!(last.key.is_none());
    // 30 s behind the newest event.
    assert_eq!(last.upstream.watermark_ms, Some(1_574_553_640_000));
    assert!(!last.upstream.idle);
}

#[test]
fn idleness_comes_from_upstream_and_ends_with_the_next_event() {
    let mut bench = bench();
    bench.feed(event("2019-11-24T00:00:00.000Z"), 0);
    bench.feed(idle(), 0);
    bench.commit(0);
    assert!(partials(&bench).last().unwrap().upstream.idle);
    bench.restart(10);
    bench.commit(10);
    assert!(partials(&bench).last().unwrap().upstream.idle, "idleness is remembered over a restart");
    bench.feed(event("2019-11-24T00:05:00.000Z"), 20);
    bench.commit(20);
    assert!(!partials(&bench).last().unwrap().upstream.idle);
}

#[test]
fn a_definition_counts_from_a_stated_offset_until_it_is_deleted() {
    let mut bench = bench();
    bench.feed(event("2019-11-24T00:00:00.000Z"), 0);
    define(&mut bench, 1, Some(ORDERS));
    bench.feed(event("2019-11-24T00:00:01.000Z"), 0);
    bench.feed(event("2019-11-24T00:00:02.000Z"), 0);
    bench.commit(0);
    assert_eq!(counted(&bench, "orders"), 2);
    let stated = activations(&bench);
    assert_eq!((stated.len(), stated[0].from_offset, stated[0].until_offset, stated[0].series), (1, 1, None, 1));
    // A restart does not state it anew.
    bench.restart(10);
    bench.feed(event("2019-11-24T00:00:03.000Z"), 10);
    bench.commit(10);
    assert_eq!((counted(&bench, "orders"), activations(&bench).len()), (3, 1));
    define(&mut bench, 2, None);
    bench.feed(event("2019-11-24T00:00:04.000Z"), 20);
    bench.commit(20);
    assert_eq!(counted(&bench, "orders"), 3);
    assert_eq!(activations(&bench).last().unwrap().until_offset, Some(4));
}

#[test]
fn a_changed_definition_is_a_series_of_its_own_and_older_revisions_are_passed_over() {
    let mut bench = bench();
    define(&mut bench, 2, Some(ORDERS));
    define(&mut bench, 1, Some(r#"{"source":"behavior","event":"Else","aggregation":"count"}"#));
    bench.feed(event("2019-11-24T00:00:00.000Z"), 0);
    define(
        &mut bench,
        3,
        Some(r#"{"source":"behavior","event":"Order Completed","aggregation":"uniques","value":"user_id"}"#),
    );
    bench.feed(event("2019-11-24T00:00:01.000Z"), 0);
    bench.commit(0);
    let series: Vec<u64> = partials(&bench)
        .iter()
        .filter_map(|p| p.key.clone())
        .filter(|k| k.metric == "orders")
        .map(|k| k.series)
        .collect();
    assert_eq!(series, [2, 3]);
}
