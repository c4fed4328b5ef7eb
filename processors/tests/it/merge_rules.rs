//! The rules of the merge stage at their edges: when windows go out, what is late, in which zone, and what is forgotten.

use std::time::Duration;

use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::metric::{MetricKey, OTHER};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Grain, Partial, WindowUpsert};

use crate::bench_log::Bench;
use crate::merge::{MINUTE, bench, config, delta, header, key, record, upserts, watermark, window};

fn of_grain(bench: &Bench<MetricsMerge>, grain: Grain) -> Vec<WindowUpsert> {
    upserts(bench).into_iter().filter(|upsert| upsert.grain == grain).collect()
}

fn tombstones(bench: &Bench<MetricsMerge>) -> usize {
    bench.outputs.iter().filter(|record| record.topic == Topic::MetricsWindows && record.value.is_none()).count()
}

#[test]
fn an_hour_goes_out_once_a_second_also_when_the_clock_goes_back() {
    let mut bench = bench(config());
    for (now_ms, hours) in [(50_000, 1), (50_000, 1), (50_999, 1), (51_000, 2), (51_500, 2), (20_000, 3)] {
        bench.feed(delta("men", &[MINUTE], "1"), now_ms);
        bench.commit(now_ms);
        assert_eq!(of_grain(&bench, Grain::Hour).len(), hours, "at {now_ms}");
    }
}

#[test]
fn a_task_is_due_when_a_longer_grain_waits_or_windows_are_to_be_looked_over() {
    let mut bench = bench(config());
    assert!(!bench.is_due(50_000), "nothing is there, so nothing is due, however much time has passed");
    bench.feed(delta("men", &[MINUTE], "1"), 50_000);
    bench.commit(50_000);
    assert!(!bench.is_due(50_999));
    bench.feed(delta("men", &[MINUTE], "1"), 50_500);
    assert!(!bench.is_due(50_999), "minutes go with the records' own commit");
    assert!(bench.is_due(51_000), "hours have waited a second");
    bench.commit(51_000);
    bench.commit(56_000);
    assert!(!bench.is_due(59_999));
    assert!(bench.is_due(60_000), "ten seconds after they were looked over");
}

#[test]
fn what_a_metric_has_at_one_time_goes_out_together_though_its_turn_has_not_come() {
    // One group a commit: the men's longer windows are left over.
    let mut bench = bench(MergeConfig { windows_per_commit: 1, ..config() });
    bench.feed(delta("men", &[MINUTE], "1"), 50_000);
    bench.commit(50_000);
    bench.feed(delta("women", &[MINUTE], "1"), 50_000);
    (0..6).for_each(|_| bench.commit(50_000));
    for grain in Grain::ALL {
        assert_eq!(of_grain(&bench, grain).len(), 2, "{grain:?}");
    }
}

#[test]
fn an_event_is_late_from_the_end_of_its_minute_on() {
    let mut bench = bench(config());
    bench.feed(watermark(MINUTE + 59), 0);
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.commit(0);
    assert_eq!(bench.late, 0);
    assert!(of_grain(&bench, Grain::Minute).iter().all(|upsert| !upsert.r#final));
    bench.feed(watermark(MINUTE + 60), 0);
    bench.feed(delta("women", &[MINUTE], "1"), 0);
    bench.commit(0);
    assert_eq!(bench.late, 1);
    assert!(of_grain(&bench, Grain::Hour).iter().all(|upsert| !upsert.r#final), "the hour is not over");
    assert_eq!(bench.watermark_ms(), Some((MINUTE + 60) * 1_000));
}

#[test]
fn hours_and_longer_windows_are_in_the_zone_of_their_workspace() {
    let zones = [("acme".to_owned(), "Asia/Kathmandu".to_owned())].into();
    for (zones, zone) in [(zones, "Asia/Kathmandu"), (Default::default(), "America/New_York")] {
        let mut bench = bench(MergeConfig { zones, default_zone: "America/New_York".into(), ..config() });
        bench.feed(delta("men", &[MINUTE], "1"), 0);
        bench.commit(0);
        for upsert in upserts(&bench) {
            let expected = if upsert.grain.is_zoned() { zone } else { "UTC" };
            assert_eq!(upsert.zone, expected, "{:?}", upsert.grain);
        }
        bench.feed(watermark(MINUTE + 400 * 86_400), 100_000);
        bench.commit(100_000);
        // The tombstone names the same key as the window that it ends.
        let keys = |is_tombstone: bool| {
            let windows = bench.outputs.iter().filter(|record| record.topic == Topic::MetricsWindows);
            let keys = windows.filter(|record| record.value.is_none() == is_tombstone).map(|record| record.key.clone());
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!((keys(true).len(), keys(true)), (6, keys(false)));
    }
}

#[test]
fn windows_become_final_after_a_restart_without_another_watermark() {
    const NOW: i64 = 50_000;
    let mut bench = bench(MergeConfig { windows_per_commit: 2, ..config() });
    // As often as something is due, and more.
    let commit_all = |bench: &mut Bench<MetricsMerge>| (0..20).for_each(|_| bench.commit(NOW));
    let finals = |bench: &Bench<MetricsMerge>| upserts(bench).iter().filter(|upsert| upsert.r#final).count();
    bench.feed(delta("men", &[MINUTE, MINUTE + 60, MINUTE + 120], "1"), NOW);
    commit_all(&mut bench);
    bench.feed(watermark(MINUTE + 180), NOW);
    bench.commit(NOW);
    assert_eq!(finals(&bench), 2, "as many as go with one commit");
    bench.restart(NOW);
    assert!(bench.is_due(NOW));
    commit_all(&mut bench);
    assert_eq!(finals(&bench), 3);
    assert!(!bench.is_due(NOW));
}

/// The newcomer has the place in memory of one that was restored as open, then as final, and then forgotten.
#[test]
fn a_window_in_the_place_of_a_forgotten_one_does_not_become_final_with_it() {
    let mut bench = bench(config());
    bench.feed(delta("men", &[MINUTE], "1"), 1_000_000);
    bench.commit(1_000_000);
    bench.feed(watermark(MINUTE + 60 + 600), 1_000_000);
    bench.commit(1_100_000);
    bench.commit(1_120_000);
    assert_eq!(tombstones(&bench), 1, "the minute");
    bench.feed(delta("women", &[MINUTE + 7_200], "1"), 1_120_000);
    bench.commit(1_120_000);
    bench.restart(1_130_000);
    for step in 0..3 {
        bench.commit(1_140_000 + step * 10_000);
    }
    let finals: Vec<_> = of_grain(&bench, Grain::Minute).into_iter().filter(|upsert| upsert.r#final).collect();
    assert_eq!(finals.iter().map(|upsert| upsert.window_start).collect::<Vec<_>>(), [MINUTE]);
}

/// A window that is final, and everything else that eviction asks for but what the test changes.
fn config_for_eviction() -> MergeConfig {
    MergeConfig { residence: Duration::from_secs(60), grace: [Duration::from_secs(600); 6], ..config() }
}

#[test]
fn a_window_stays_until_its_grace_is_over() {
    let mut bench = bench(config_for_eviction());
    bench.feed(delta("men", &[MINUTE], "1"), 0);
    bench.feed(watermark(MINUTE + 60 + 599), 0);
    bench.commit(0);
    bench.commit(100_000);
    assert!(of_grain(&bench, Grain::Minute).iter().any(|upsert| upsert.r#final));
    assert_eq!((bench.entries(), tombstones(&bench)), (6, 0), "final, put out and untouched, but within its grace");
    bench.feed(watermark(MINUTE + 60 + 600), 200_000);
    bench.commit(200_000);
    assert_eq!((bench.entries(), tombstones(&bench)), (5, 1), "the minute's grace is over");
}

#[test]
fn a_window_stays_as_long_as_deltas_come() {
    let mut bench = bench(config_for_eviction());
    bench.feed(watermark(MINUTE + 400 * 86_400), 0);
    bench.feed(delta("men", &[MINUTE], "1"), 50_000);
    bench.commit(50_000);
    bench.commit(109_999);
    assert_eq!(bench.entries(), 6, "touched within the last minute");
    bench.commit(119_998);
    assert_eq!(bench.entries(), 6, "not looked over more than every ten seconds");
    bench.commit(119_999);
    assert_eq!((bench.entries(), tombstones(&bench)), (0, 6));
}

#[test]
fn a_restart_does_not_make_a_window_look_untouched() {
    let mut bench = bench(config_for_eviction());
    bench.feed(watermark(MINUTE + 400 * 86_400), 0);
    bench.feed(delta("men", &[MINUTE], "1"), 50_000);
    bench.commit(50_000);
    bench.restart(80_000);
    bench.commit(109_999);
    assert_eq!(bench.entries(), 6, "touched within the last minute");
    bench.commit(119_999);
    assert_eq!((bench.entries(), tombstones(&bench)), (0, 6));
}

#[test]
fn what_is_too_much_for_one_commit_is_forgotten_with_the_next_ones() {
    let mut bench = bench(MergeConfig { windows_per_commit: 2, ..config_for_eviction() });
    bench.feed(watermark(MINUTE + 400 * 86_400), 0);
    for (campaign, minute) in [("a", MINUTE), ("b", MINUTE), ("a", MINUTE + 800 * 86_400)] {
        bench.feed(delta(campaign, &[minute], "1"), 0);
    }
    (0..20).for_each(|_| bench.commit(0));
    for round in 1..=6 {
        let now_ms = 100_000 + i64::try_from(round).unwrap();
        assert!(bench.is_due(now_ms));
        bench.commit(now_ms);
        assert_eq!(tombstones(&bench), 2 * round);
    }
    assert_eq!(bench.entries(), 6, "the last ones are not over");
    assert!(!bench.is_due(100_007), "it knows that there are no more");
}

/// A window that was evicted while its last delta may come again would count that delta twice.
#[test]
fn a_window_stays_while_its_last_delta_may_be_read_again() {
    let hours_wait = [0, 3_600, 3_600, 3_600, 3_600, 3_600].map(Duration::from_secs);
    let mut bench = bench(MergeConfig { residence: Duration::ZERO, cadence: hours_wait, ..config() });
    bench.feed(watermark(MINUTE + 400 * 86_400), 0);
    bench.feed(delta("men", &[MINUTE], "1"), 5_000);
    bench.commit(5_000);
    bench.feed(delta("men", &[MINUTE], "1"), 20_000);
    bench.commit(20_000);
    // The hour has not gone out with it: after a restart the log is read from that delta on.
    assert_eq!(bench.committed.as_ref().unwrap().offset, 2);
    bench.restart(20_010);
    bench.commit(4_000_000);
    assert_eq!(window(&bench, "men", Grain::Minute, MINUTE), (2, "2".to_owned()));
    assert_eq!(window(&bench, "men", Grain::Hour, MINUTE), (2, "2".to_owned()));
}

#[test]
fn only_keys_beyond_the_cap_are_counted_as_capped() {
    let mut bench = bench(MergeConfig { max_keys: 2, ..config() });
    for campaign in ["a", "b", "a", "b"] {
        bench.feed(delta(campaign, &[MINUTE], "1"), 0);
    }
    bench.commit(0);
    assert_eq!(bench.capped, 0);
    bench.feed(delta("c", &[MINUTE], "1"), 0);
    bench.feed(delta("c", &[MINUTE], "1"), 0);
    bench.commit(0);
    assert_eq!(bench.capped, 12, "twice in each of six grains");
}

#[test]
fn a_metric_without_dimensions_and_other_metrics_are_not_capped() {
    let mut bench = bench(MergeConfig { max_keys: 1, ..config() });
    let partial_of = |key: MetricKey| {
        let template: Partial = serde_json::from_slice(delta("x", &[MINUTE], "1").value.as_ref().unwrap()).unwrap();
        record(&Partial { upstream: header(None, false), key: Some(key), deltas: template.deltas })
    };
    bench.feed(partial_of(key("a")), 0);
    bench.feed(partial_of(MetricKey { metric: "clicks".into(), ..key("a") }), 0);
    bench.feed(partial_of(MetricKey { series: 1, ..key("a") }), 0);
    bench.feed(partial_of(MetricKey { workspace: "other".into(), ..key("a") }), 0);
    bench.feed(partial_of(MetricKey { dimensions: Default::default(), ..key("a") }), 0);
    bench.commit(0);
    assert_eq!((bench.capped, bench.entries()), (0, 30), "each has a key of its own");
}

/// A delta that went to `__other__` must not be counted again by a replay that finds the cap free, because the windows
/// that filled it have been evicted in the meantime.
#[test]
fn what_other_holds_is_not_counted_again_when_the_cap_is_free() {
    let mut bench = bench(MergeConfig { max_keys: 2, ..config() });
    bench.feed(watermark(MINUTE + 86_400), 1_000_000);
    bench.feed(delta("a", &[MINUTE], "1"), 1_000_000);
    bench.feed(delta("b", &[MINUTE], "1"), 1_000_000);
    bench.commit(1_000_000);
    for now_ms in [1_055_000, 1_062_000] {
        bench.feed(delta(OTHER, &[MINUTE], "1"), now_ms);
        bench.commit(now_ms);
    }
    // "c" goes to `__other__`; "a" and "b" are evicted in the same commit; the day still waits to be put out.
    bench.feed(delta("c", &[MINUTE], "1"), 1_066_000);
    bench.commit(1_066_000);
    assert_eq!((bench.committed.as_ref().unwrap().offset, tombstones(&bench)), (5, 6), "two keys in three grains");
    bench.restart(1_067_000);
    bench.commit(1_080_000);
    assert_eq!(window(&bench, OTHER, Grain::Minute, MINUTE), (3, "3".to_owned()));
    assert_eq!(window(&bench, "c", Grain::Minute, MINUTE), (0, String::new()));
}

/// What `__other__` holds says nothing of a key that has a window of its own.
#[test]
fn a_restored_window_counts_what_it_does_not_hold_whatever_other_holds() {
    let mut bench = bench(config());
    bench.feed(delta("a", &[MINUTE], "1"), 50_000);
    bench.feed(delta(OTHER, &[MINUTE], "1"), 50_000);
    bench.commit(50_000);
    // As if `__other__` had been put out once more, after the next delta.
    for record in bench.outputs.iter_mut().filter(|record| record.topic == Topic::MetricsWindows) {
        let text = String::from_utf8(record.value.as_ref().unwrap().to_vec()).unwrap();
        record.value = Some(text.replace(r#""as_of":1,"#, r#""as_of":2,"#).into());
    }
    bench.feed(delta("a", &[MINUTE], "1"), 50_010);
    bench.restart(50_020);
    bench.commit(60_000);
    assert_eq!(window(&bench, "a", Grain::Minute, MINUTE), (2, "2".to_owned()));
    assert_eq!(window(&bench, OTHER, Grain::Minute, MINUTE), (1, "1".to_owned()));
}
