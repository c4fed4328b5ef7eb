use std::ops::ControlFlow;

use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

use super::super::{Log, LogError, LogOptions, Maintained, Space};
use super::{Home, on_both, place, read_all, record, summary, tombstone};

const RAW: TopicPartition = place(Topic::RawBehavior, 0);
const CHANGES: TopicPartition = place(Topic::RefineChangelog, 1);
const DAY_MS: i64 = 24 * 3_600 * 1_000;
const HOUR_MS: i64 = 3_600 * 1_000;

/// A whole round.
fn maintain(log: &Log, now_ms: i64) -> Maintained {
    let mut total = Maintained::default();
    for _ in 0..10_000 {
        let step = log.maintain(now_ms).unwrap();
        assert!(step.deleted_records + step.compacted_records <= 64, "steps are bounded");
        total.deleted_records += step.deleted_records;
        total.compacted_records += step.compacted_records;
        if !step.more {
            return total;
        }
    }
    panic!("maintenance does not end");
}

fn stored_records(home: &Home, at: TopicPartition) -> usize {
    let mut count = 0;
    let whole = (0_u64.to_be_bytes(), u64::MAX.to_be_bytes());
    home.store()
        .scan(Space::Records(at), &whole.0, &whole.1, &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}

#[test]
fn retention_deletes_old_blocks_and_offsets_go_on() {
    on_both(|home, log| {
        log.append((0..3_000).map(|index| record(RAW, "k", "v", index)).collect()).unwrap();
        log.append((0..10).map(|_| record(RAW, "k", "young", 5 * DAY_MS)).collect()).unwrap();
        assert_eq!(maintain(&log, 6 * DAY_MS), Maintained::default(), "nothing is old enough");

        assert_eq!(maintain(&log, 8 * DAY_MS).deleted_records, 2_048, "the block with young records stays");
        assert_eq!(log.start_offset(RAW).unwrap(), 2_048);
        assert_eq!(
            log.read(RAW, 2_047, 1, 1),
            Err(LogError::OffsetOutOfRange { topic_partition: RAW, offset: 2_047, start: 2_048, end: 3_010 })
        );
        assert_eq!(read_all(&log, RAW, 2_048).len(), 962);
        assert_eq!(log.offset_for_time(RAW, 0).unwrap(), Some(2_048));

        assert_eq!(maintain(&log, 20 * DAY_MS).deleted_records, 962);
        drop(log);
        assert_eq!(stored_records(home, RAW), 0);
        let log = home.open(LogOptions::for_testing());
        assert_eq!((log.start_offset(RAW).unwrap(), log.end_offset(RAW).unwrap()), (3_010, 3_010));
        assert_eq!(log.append(vec![record(RAW, "k", "v", 20 * DAY_MS)]).unwrap(), [(0, 3_010)]);
        assert_eq!(log.offset_for_time(RAW, 0).unwrap(), Some(3_010));
    });
}

#[test]
fn retention_cut_short_goes_on_after_reopening() {
    on_both(|home, log| {
        log.append((0..2_000).map(|index| record(RAW, "k", "v", index)).collect()).unwrap();
        assert!(log.maintain(20 * DAY_MS).unwrap().more);
        drop(log);
        let log = home.open(LogOptions::for_testing());
        maintain(&log, 20 * DAY_MS);
        drop(log);
        assert_eq!(stored_records(home, RAW), 0);
    });
}

#[test]
fn compaction_keeps_the_newest_of_each_key() {
    on_both(|home, log| {
        let old = |key: &str, value: &str| record(CHANGES, key, value, 0);
        log.append(vec![old("a", "1"), old("b", "1"), old("a", "2"), old("c", "1"), tombstone(CHANGES, "b", 0)])
            .unwrap();
        log.append(vec![old("a", "3"), record(CHANGES, "c", "young", 10 * HOUR_MS), old("a", "4")]).unwrap();

        assert_eq!(maintain(&log, HOUR_MS - 1), Maintained::default(), "all is younger than the lag");
        let expected = [
            (3, "c".into(), Some("1".into())),
            (5, "a".into(), Some("3".into())),
            (6, "c".into(), Some("young".into())),
            (7, "a".into(), Some("4".into())),
        ];
        assert_eq!(maintain(&log, 2 * HOUR_MS).compacted_records, 4);
        assert_eq!(summary(&read_all(&log, CHANGES, 0)), expected, "from memory");
        assert_eq!(maintain(&log, 2 * HOUR_MS), Maintained::default(), "nothing is left to do");
        drop(log);
        let log = home.open(LogOptions::for_testing());
        assert_eq!(summary(&read_all(&log, CHANGES, 0)), expected, "from the store");

        // The last record is not looked at, so what it supersedes stays until another follows.
        assert_eq!(maintain(&log, 12 * HOUR_MS).compacted_records, 1);
        let rest = [
            (5, "a".into(), Some("3".into())),
            (6, "c".into(), Some("young".into())),
            (7, "a".into(), Some("4".into())),
        ];
        assert_eq!(summary(&read_all(&log, CHANGES, 0)), rest);
        assert_eq!(log.end_offset(CHANGES).unwrap(), 8);
    });
}

#[test]
fn the_last_record_stays_even_as_a_tombstone() {
    on_both(|home, log| {
        log.append((0..200).map(|_| tombstone(CHANGES, "a", 0)).collect()).unwrap();
        assert_eq!(maintain(&log, 2 * HOUR_MS).compacted_records, 199);
        let fetched = log.read(CHANGES, 0, 10, 100).unwrap();
        assert_eq!((fetched.records.len(), fetched.next_offset), (1, 200));
        drop(log);
        assert_eq!(home.open(LogOptions::for_testing()).append(vec![tombstone(CHANGES, "a", 0)]).unwrap(), [(1, 200)]);
    });
}
