use std::collections::BTreeMap;

use bytes::Bytes;
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::metric::{MetricKey, OTHER};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Aggregate, Delta, Grain, Partial, PartialHeader, Sample, WindowState, WindowUpsert};

use crate::bench_log::Bench;

pub const MINUTE: i64 = 1_574_553_600; // 2019-11-24T00:00:00Z, a Sunday

pub fn config() -> MergeConfig {
    MergeConfig { partitions: 1, ..MergeConfig::default() }
}

pub fn bench(config: MergeConfig) -> Bench<MetricsMerge> {
    Bench::new(MetricsMerge::new(config).unwrap(), Topic::MetricsPartials)
}

pub fn key(campaign: &str) -> MetricKey {
    MetricKey {
        workspace: "acme".into(),
        metric: "spend".into(),
        series: 0,
        dimensions: [("campaign".to_owned(), campaign.to_owned())].into(),
    }
}

pub fn record(partial: &Partial) -> NewRecord {
    NewRecord {
        topic: Topic::MetricsPartials,
        partition: Some(0),
        key: Bytes::from_static(b"key"),
        value: Some(Bytes::from(serde_json::to_vec(partial).unwrap())),
        headers: Headers::new(),
        timestamp_ms: 0,
    }
}

pub fn header(watermark_s: Option<i64>, idle: bool) -> PartialHeader {
    PartialHeader {
        topic: "events.campaign".into(),
        partition: 0,
        watermark_ms: watermark_s.map(|second| second * 1_000),
        idle,
    }
}

pub fn delta(campaign: &str, minutes: &[i64], value: &str) -> NewRecord {
    let mut aggregate = Aggregate::default();
    aggregate.add(Sample::Number(value.parse().unwrap())).unwrap();
    let state = WindowState::of(&aggregate);
    let deltas = minutes.iter().map(|minute| Delta { minute: *minute, state: state.clone() }).collect();
    record(&Partial { upstream: header(None, false), key: Some(key(campaign)), deltas })
}

pub fn watermark(second: i64) -> NewRecord {
    record(&Partial { upstream: header(Some(second), false), key: None, deltas: Vec::new() })
}

pub fn upserts(bench: &Bench<MetricsMerge>) -> Vec<WindowUpsert> {
    let of_windows = bench.outputs.iter().filter(|record| record.topic == Topic::MetricsWindows);
    of_windows.filter_map(|record| record.value.as_ref()).map(|value| serde_json::from_slice(value).unwrap()).collect()
}

/// What a reader makes of it: the newest revision of each epoch, epochs added up.
fn merged(bench: &Bench<MetricsMerge>) -> BTreeMap<(String, Grain, i64), (u64, String)> {
    let mut newest = BTreeMap::new();
    for upsert in upserts(bench) {
        let place = (upsert.key.dimensions_text(), upsert.grain, upsert.window_start, upsert.epoch);
        let known: &mut WindowUpsert = newest.entry(place).or_insert_with(|| upsert.clone());
        if upsert.revision > known.revision {
            *known = upsert;
        }
    }
    let mut windows: BTreeMap<(String, Grain, i64), Aggregate> = BTreeMap::new();
    for ((key, grain, start, _), upsert) in newest {
        windows.entry((key, grain, start)).or_default().merge(&upsert.state.to_aggregate().unwrap()).unwrap();
    }
    windows.into_iter().map(|(place, aggregate)| (place, (aggregate.count, aggregate.sum.to_string()))).collect()
}

pub fn window(bench: &Bench<MetricsMerge>, campaign: &str, grain: Grain, start: i64) -> (u64, String) {
    let key = format!("{{\"campaign\":\"{campaign}\"}}");
    merged(bench).get(&(key, grain, start)).cloned().unwrap_or_default()
}

#[test]
fn minutes_go_out_at_each_commit_and_longer_grains_at_their_cadence() {
    let mut bench = bench(config());
    bench.feed(delta("men", &[MINUTE], "1.5"), 1_000_000);
    bench.commit(1_000_000);
    let first = upserts(&bench).len();
    assert_eq!(first, 6, "the first of each grain goes out at once");
    for step in 1..=9 {
        bench.feed(delta("men", &[MINUTE + 60 * step], "1.5"), 1_000_000 + step * 100);
        bench.commit(1_000_000 + step * 100);
    }
    assert_eq!(upserts(&bench).len() - first, 9, "nine minutes, nothing else within the second");
    // The committed offset stays at the first delta that some window has not put out.
    assert_eq!(bench.committed.as_ref().unwrap().offset, 1);
    bench.commit(1_006_000);
    assert_eq!(bench.committed.as_ref().unwrap().offset, 10);
    assert_eq!(window(&bench, "men", Grain::Hour, MINUTE), (10, "15".to_owned()));
    // Monday of that Sunday's week, and the month's first.
    assert_eq!(window(&bench, "men", Grain::Week, MINUTE - 6 * 86_400), (10, "15".to_owned()));
    assert_eq!(window(&bench, "men", Grain::Month, MINUTE - 23 * 86_400), (10, "15".to_owned()));
}

#[test]
fn after_a_restart_at_any_commit_every_delta_counts_once() {
    for crash_after in 0..12 {
        let mut bench = bench(config());
        for step in 0..12_i64 {
            let now_ms = 1_000_000 + step * 400;
            // Two minutes in one record: they share an offset.
            bench.feed(delta("men", &[MINUTE + 60 * step, MINUTE + 60 * (step + 1)], "0.1"), now_ms);
            bench.commit(now_ms);
            if step == crash_after {
                bench.restart(now_ms + 10);
                bench.commit(now_ms + 20);
            }
        }
        bench.commit(2_000_000);
        assert_eq!(window(&bench, "men", Grain::Day, MINUTE), (24, "2.4".to_owned()), "crash after {crash_after}");
        assert_eq!(
            window(&bench, "men", Grain::Minute, MINUTE + 60),
            (2, "0.2".to_owned()),
            "crash after {crash_after}"
        );
        let mut revisions = BTreeMap::new();
        for upsert in upserts(&bench) {
            let place = (upsert.key.dimensions_text(), upsert.grain, upsert.window_start, upsert.epoch);
            let last = revisions.insert(place, upsert.revision).unwrap_or(0);
            assert!(upsert.revision > last, "a revision came twice or went back");
        }
    }
}

#[test]
fn a_window_that_was_evicted_lives_again_as_another_epoch() {
    let mut bench = bench(config());
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.feed(watermark(MINUTE + 400 * 86_400), 0);
    bench.commit(0);
    assert!(upserts(&bench).iter().filter(|upsert| upsert.grain == Grain::Minute).all(|upsert| upsert.r#final));
    assert_eq!(bench.entries(), 6);
    bench.commit(100_000);
    assert_eq!(bench.entries(), 0, "past grace and untouched: everything is evicted");
    let tombstones = bench.outputs.iter().filter(|record| record.value.is_none()).count();
    assert_eq!(tombstones, 6);
    bench.restart(100_010);
    bench.feed(delta("men", &[MINUTE], "2"), 100_020);
    bench.commit(200_000);
    assert_eq!(window(&bench, "men", Grain::Hour, MINUTE), (2, "3".to_owned()));
    let epochs: std::collections::BTreeSet<_> = upserts(&bench).iter().map(|upsert| upsert.epoch).collect();
    assert_eq!(epochs.len(), 2);
    assert_eq!(bench.late, 1);
    // What is late is final from its first revision on.
    assert!(upserts(&bench).iter().filter(|upsert| upsert.epoch.offset > 0).all(|upsert| upsert.r#final));
}

#[test]
fn final_is_said_once_and_late_events_raise_the_revision() {
    let mut bench = bench(config());
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.commit(0);
    bench.feed(watermark(MINUTE + 59), 100);
    bench.commit(100);
    assert!(upserts(&bench).iter().all(|upsert| !upsert.r#final), "the minute is not over");
    bench.feed(watermark(MINUTE + 60), 200);
    bench.commit(200);
    let finals: Vec<WindowUpsert> = upserts(&bench).into_iter().filter(|upsert| upsert.r#final).collect();
    assert_eq!(finals.len(), 1);
    assert_eq!((finals[0].grain, finals[0].revision), (Grain::Minute, 2));
    bench.feed(delta("men", &[MINUTE], "1"), 300);
    bench.commit(300);
    let last = upserts(&bench).into_iter().rfind(|upsert| upsert.grain == Grain::Minute).unwrap();
    assert_eq!((last.r#final, last.revision, last.state.count), (true, 3, 2));
}

#[test]
fn keys_beyond_the_cap_are_counted_under_other() {
    let mut bench = bench(MergeConfig { max_keys: 2, ..config() });
    for campaign in ["a", "b", "c", "d", "a"] {
        bench.feed(delta(campaign, &[MINUTE], "1"), 0);
    }
    bench.commit(0);
    assert_eq!(window(&bench, "a", Grain::Hour, MINUTE), (2, "2".to_owned()));
    assert_eq!(window(&bench, "b", Grain::Hour, MINUTE), (1, "1".to_owned()));
    assert_eq!(window(&bench, OTHER, Grain::Hour, MINUTE), (2, "2".to_owned()));
    assert!(bench.capped > 0);
    // Another minute has its own keys; the hour has no room for new ones.
    bench.feed(delta("c", &[MINUTE + 60], "1"), 0);
    bench.commit(10_000);
    assert_eq!(window(&bench, "c", Grain::Minute, MINUTE + 60), (1, "1".to_owned()));
    assert_eq!(window(&bench, OTHER, Grain::Hour, MINUTE), (3, "3".to_owned()));
}

#[test]
fn a_slow_partition_holds_windows_open_and_an_idle_one_does_not() {
    let mut bench = bench(MergeConfig { partitions: 2, ..config() });
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.feed(watermark(MINUTE + 86_400), 0);
    bench.commit(0);
    assert!(upserts(&bench).iter().all(|upsert| !upsert.r#final), "partition 1 has not been heard of");
    let slow = PartialHeader { partition: 1, ..header(Some(MINUTE), false) };
    bench.feed(record(&Partial { upstream: slow, key: None, deltas: Vec::new() }), 0);
    bench.commit(0);
    assert!(upserts(&bench).iter().all(|upsert| !upsert.r#final), "partition 1 is slow");
    let idle = PartialHeader { partition: 1, ..header(Some(MINUTE), true) };
    bench.feed(record(&Partial { upstream: idle, key: None, deltas: Vec::new() }), 0);
    bench.commit(0);
    assert!(upserts(&bench).iter().any(|upsert| upsert.r#final && upsert.grain == Grain::Hour));
}

#[test]
fn poison_is_set_aside() {
    let mut bench = bench(config());
    let mut poison = watermark(MINUTE);
    poison.value = Some(Bytes::from_static(b"{\"upstream\":"));
    bench.feed(poison, 0);
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.commit(0);
    assert!(bench.outputs.iter().any(|record| record.topic == Topic::EventsRejected));
    assert_eq!(window(&bench, "men", Grain::Hour, MINUTE), (1, "1".to_owned()));
}
