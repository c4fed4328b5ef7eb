//! The rules of the partial stage at their edges: when it speaks, what it remembers, how large its records are.

use neonhub_processors::metrics::{MetricsPartial, PartialConfig};
use neonhub_schemas::control::Activation;
use neonhub_schemas::event::Source;
use neonhub_schemas::record::{NewRecord, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::Partial;

use crate::bench_log::Bench;
use crate::fake_ports::record;
use crate::partial::{ORDERS, activations, bench, counted, define, event, idle, partials};

const NOON_S: i64 = 1_574_596_800; // 2019-11-24T12:00:00Z

fn noon_and(second: i64) -> NewRecord {
    let at_ms = (NOON_S + second) * 1_000;
    event(&neonhub_schemas::time::format_ms(at_ms))
}

fn watermarks(bench: &Bench<MetricsPartial>) -> Vec<Option<i64>> {
    let without_key = partials(bench).into_iter().filter(|partial| partial.key.is_none());
    without_key.map(|partial| partial.upstream.watermark_ms.map(|ms| ms / 1_000 - NOON_S)).collect()
}

#[test]
fn a_watermark_goes_out_when_it_moved_and_not_more_than_four_times_a_second() {
    let mut bench = bench();
    bench.feed(noon_and(0), 1_000);
    bench.commit(1_000);
    assert_eq!(watermarks(&bench), [Some(-30)]);
    bench.commit(5_000);
    assert!(!bench.is_due(9_000), "it has not moved");
    bench.feed(noon_and(10), 9_000);
    bench.commit(9_000);
    bench.feed(noon_and(20), 9_249);
    bench.commit(9_249);
    assert!(!bench.is_due(9_249));
    assert_eq!(watermarks(&bench), [Some(-30), Some(-20)], "249 ms after the last one");
    assert!(bench.is_due(9_250));
    bench.commit(9_250);
    assert_eq!(watermarks(&bench), [Some(-30), Some(-20), Some(-10)]);
    // An event from before does not turn it back.
    bench.feed(noon_and(5), 10_000);
    bench.commit(10_000);
    assert_eq!(watermarks(&bench).len(), 3);
    assert_eq!(bench.watermark_ms(), Some((NOON_S - 10) * 1_000));
}

#[test]
fn idleness_is_said_at_once() {
    let mut bench = bench();
    bench.feed(noon_and(0), 1_000);
    bench.commit(1_000);
    bench.feed(idle(), 1_001);
    assert!(bench.is_due(1_001));
    bench.commit(1_001);
    assert_eq!(partials(&bench).iter().filter(|partial| partial.upstream.idle).count(), 1);
    assert!(!bench.is_due(1_002));
}

#[test]
fn a_changed_definition_is_due_at_once_and_counts_from_the_next_event_on() {
    let mut bench = bench();
    bench.feed(noon_and(0), 1_000);
    bench.commit(1_000);
    define(&mut bench, 1, Some(ORDERS));
    assert!(bench.is_due(1_001));
    bench.commit(1_001);
    assert!(!bench.is_due(1_002));
    assert_eq!(activations(&bench)[0].from_offset, 1);
}

#[test]
fn a_restart_remembers_the_newest_event_and_whether_the_partition_was_idle() {
    for said_idle in [false, true] {
        let mut bench = bench();
        bench.feed(noon_and(0), 1_000);
        if said_idle {
            bench.feed(idle(), 1_000);
        }
        bench.commit(1_000);
        bench.restart(2_000);
        bench.commit(2_000);
        let last = partials(&bench).pop().unwrap();
        assert_eq!((last.upstream.idle, last.upstream.watermark_ms), (said_idle, Some((NOON_S - 30) * 1_000)));
    }
}

#[test]
fn events_are_counted_in_the_minute_of_their_time() {
    let mut bench = bench();
    for second in [0, 59, 60] {
        bench.feed(noon_and(second), 0);
    }
    assert!(bench.entries() > 1);
    assert_eq!(bench.state_bytes(), bench.entries() * 256);
    bench.commit(0);
    assert_eq!(bench.entries(), 0);
    let visitors = partials(&bench).into_iter().find(|p| p.key.as_ref().is_some_and(|key| key.metric == "visitors"));
    let minutes: Vec<_> = visitors.unwrap().deltas.iter().map(|delta| (delta.minute, delta.state.count)).collect();
    assert_eq!(minutes, [(NOON_S, 2), (NOON_S + 60, 1)]);
}

#[test]
fn activations_of_other_partitions_and_sources_are_not_taken_for_ones_own() {
    let mut bench = bench();
    define(&mut bench, 1, Some(ORDERS));
    bench.commit(0);
    let own = activations(&bench).remove(0);
    for foreign in [Activation { partition: 1, ..own.clone() }, Activation { source: Source::Campaign, ..own.clone() }]
    {
        let place = TopicPartition { topic: Topic::MetricsActivations, partition: 0 };
        let value = serde_json::to_string(&foreign).unwrap();
        bench.outputs = vec![Record { offset: 0, ..record(place, 0, &value) }];
        bench.restart(10);
        bench.commit(10);
        let stated: Vec<Activation> = activations(&bench);
        assert_eq!((stated.len(), stated[1..].first()), (2, Some(&own)), "its own is stated");
    }
}

#[test]
fn without_built_in_metrics_only_those_of_people_count() {
    let config = PartialConfig { has_built_in_metrics: false, partials_partitions: 1, ..PartialConfig::default() };
    let mut bench = Bench::new(MetricsPartial::new(config), Topic::EventsBehavior);
    define(&mut bench, 1, Some(ORDERS));
    bench.feed(noon_and(0), 0);
    bench.commit(0);
    assert_eq!((counted(&bench, "orders"), counted(&bench, "visitors")), (1, 0));
}

/// A record must stay well below the largest message that a broker takes.
#[test]
fn a_key_with_many_minutes_gets_several_records() {
    const MINUTES: i64 = 2_400;
    let mut bench = bench();
    let quantiles = r#"{"source":"behavior","event":"Order Completed","value":"value","aggregation":"quantile(0.5)"}"#;
    define(&mut bench, 1, Some(quantiles));
    (0..MINUTES).for_each(|minute| bench.feed(noon_and(minute * 60), 0));
    bench.commit(0);
    let sketches = ["visitors", "orders"];
    for metric in sketches {
        let of_metric = |partial: &&Partial| partial.key.as_ref().is_some_and(|key| key.metric == metric);
        let all = partials(&bench);
        let records: Vec<&Partial> = all.iter().filter(of_metric).collect();
        let minutes: usize = records.iter().map(|partial| partial.deltas.len()).sum();
        assert_eq!((records.len(), minutes), (2, 2_400), "{metric}");
    }
    let largest = bench.outputs.iter().filter_map(|record| record.value.as_ref()).map(bytes::Bytes::len).max();
    assert!(largest.unwrap() < 512 * 1024, "{largest:?}");
}
