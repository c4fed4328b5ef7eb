use neonhub_schemas::topics::Topic;

use super::super::{LogError, LogOptions};
use super::{Home, on_both, place, read_all, record};

const AT: neonhub_schemas::record::TopicPartition = place(Topic::RawBehavior, 1);

#[test]
fn fetches_are_bounded_by_records_and_bytes() {
    on_both(|home, log| {
        log.append((0..10).map(|key| record(AT, &key.to_string(), &"v".repeat(99), key)).collect()).unwrap();
        drop(log);
        for of_tail in [false, true] {
            let log = home.open(LogOptions::for_testing());
            if of_tail {
                log.append((0..10).map(|key| record(AT, &key.to_string(), &"v".repeat(99), key)).collect()).unwrap();
            }
            let from = if of_tail { 10 } else { 0 };
            let by_count = log.read(AT, from, 3, 1 << 20).unwrap();
            assert_eq!((by_count.records.len(), by_count.next_offset), (3, from + 3));
            let by_bytes = log.read(AT, from + 3, 100, 450).unwrap();
            assert_eq!((by_bytes.records.len(), by_bytes.next_offset), (4, from + 7));
            let at_least_one = log.read(AT, from + 7, 0, 0).unwrap();
            assert_eq!((at_least_one.records.len(), at_least_one.next_offset), (1, from + 8));
            let rest = log.read(AT, from + 8, 100, 1 << 20).unwrap();
            assert_eq!((rest.records.len(), rest.next_offset, rest.end_offset), (2, from + 10, from + 10));
            let at_end = log.read(AT, from + 10, 100, 1 << 20).unwrap();
            assert_eq!((at_end.records.len(), at_end.next_offset), (0, from + 10));
            assert!(matches!(log.read(AT, from + 11, 1, 1), Err(LogError::OffsetOutOfRange { .. })));
        }
    });
}

#[test]
fn what_memory_serves_is_what_the_store_holds() {
    for home in Home::both() {
        let all_cached = LogOptions { tail_cache_bytes: 64 << 20, ..LogOptions::for_testing() };
        let log = home.open(all_cached);
        for commit in 0..20 {
            let records = (0..25).map(|key| record(AT, &format!("k{key}"), &format!("{commit}"), commit * 25 + key));
            log.append(records.collect()).unwrap();
        }
        let from_memory = read_all(&log, AT, 0);
        drop(log);
        let nothing_cached = LogOptions { tail_cache_bytes: 0, ..LogOptions::for_testing() };
        let log = home.open(nothing_cached);
        assert_eq!(read_all(&log, AT, 0), from_memory);
        log.append(vec![record(AT, "last", "1", 600)]).unwrap();
        assert_eq!(read_all(&log, AT, 0).len(), 501, "evicted at once, read from the store");
    }
}

#[test]
fn a_small_cache_and_the_store_join_without_a_seam() {
    on_both(|_, log| {
        for commit in 0..300 {
            log.append((0..5).map(|key| record(AT, &key.to_string(), &"v".repeat(100), commit * 5 + key)).collect())
                .unwrap();
        }
        let offsets: Vec<u64> = read_all(&log, AT, 0).iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..1_500).collect::<Vec<_>>());
    });
}

#[test]
fn offset_for_time_is_the_earliest_at_or_after() {
    on_both(|home, log| {
        // Two full blocks and a begun one; times go up in steps of 10 with a peak out of order early in the second.
        let time = |offset: i64| if offset == 1_100 { 1_000_000 } else { offset * 10 };
        for chunk in 0..5_i64 {
            let records = (chunk * 500..(chunk + 1) * 500).map(|offset| record(AT, "k", "v", time(offset)));
            log.append(records.collect()).unwrap();
        }
        let check = |log: &super::super::Log| {
            for (asked, expected) in
                [(i64::MIN, Some(0)), (0, Some(0)), (1, Some(1)), (10_230, Some(1_023)), (10_231, Some(1_024))]
            {
                assert_eq!(log.offset_for_time(AT, asked).unwrap(), expected, "{asked}");
            }
            assert_eq!(log.offset_for_time(AT, 24_990).unwrap(), Some(1_100), "the peak comes first");
            assert_eq!(log.offset_for_time(AT, 1_000_001).unwrap(), None);
            assert_eq!(log.offset_for_time(place(Topic::RawCampaign, 0), 0).unwrap(), None);
        };
        check(&log);
        drop(log);
        check(&home.open(LogOptions::for_testing()));
    });
}
