use std::collections::HashMap;

use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use proptest::prelude::*;

use super::super::{CommitUnit, LogOptions};
use super::{Home, place, read_all, record, tombstone};

const PLACES: [TopicPartition; 3] =
    [place(Topic::RawBehavior, 0), place(Topic::RawBehavior, 1), place(Topic::Control, 0)];
const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Debug)]
enum Step {
    /// Records (place, key, time) and, with `Some`, an offset committed with them.
    Commit(Vec<(usize, u8, i64)>, Option<u64>),
    Read {
        place: usize,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    },
    OffsetForTime(usize, i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = prop::collection::vec((0..PLACES.len(), any::<u8>(), 0..1_000_i64), 0..400);
    let step = prop_oneof![
        4 => (records, prop::option::of(0..100_u64)).prop_map(|(records, offset)| Step::Commit(records, offset)),
        4 => (0..PLACES.len(), 0..1_500_u64, 0..200_usize, 0..2_000_usize)
            .prop_map(|(place, from, max_records, max_bytes)| Step::Read { place, from, max_records, max_bytes }),
        2 => (0..PLACES.len(), -1..1_001_i64).prop_map(|(place, time)| Step::OffsetForTime(place, time)),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..25)
}

/// Runs the steps against plain vectors.
fn check(home: &Home, steps: Vec<Step>) {
    let mut log = home.open(LogOptions::for_testing());
    let mut model: Vec<Vec<(u8, i64)>> = vec![Vec::new(); PLACES.len()];
    let mut committed = None;
    for step in steps {
        match step {
            Step::Commit(records, offset) => {
                let offset = offset.map(|offset| CommittedOffset { offset, metadata: format!("at {offset}") });
                let expected: Vec<(u32, u64)> = records
                    .iter()
                    .map(|(at, key, time)| {
                        model[*at].push((*key, *time));
                        (PLACES[*at].partition, model[*at].len() as u64 - 1)
                    })
                    .collect();
                let unit = CommitUnit {
                    records: records
                        .iter()
                        .map(|(at, key, time)| record(PLACES[*at], &key.to_string(), "v", *time))
                        .collect(),
                    offsets: offset.iter().map(|offset| (PLACES[0], offset.clone())).collect(),
                    group: "g".into(),
                    fence: None,
                };
                assert_eq!(log.commit(unit).unwrap().placements, expected);
                committed = offset.or(committed);
            }
            Step::Read { place, from, max_records, max_bytes } => {
                let from = from.min(model[place].len() as u64);
                let fetched = log.read(PLACES[place], from, max_records, max_bytes).unwrap();
                let expected = &model[place][usize::try_from(from).unwrap()..];
                assert!(fetched.records.len() <= max_records.max(1));
                assert_eq!(fetched.records.is_empty(), expected.is_empty());
                assert_eq!(fetched.next_offset, from + fetched.records.len() as u64);
                for (record, (key, time)) in fetched.records.iter().zip(expected) {
                    assert_eq!((record.key.as_ref(), record.timestamp_ms), (key.to_string().as_bytes(), *time));
                }
            }
            Step::OffsetForTime(place, asked) => {
                let expected = model[place].iter().position(|(_, time)| *time >= asked);
                let expected = expected.map(|offset| offset as u64);
                assert_eq!(log.offset_for_time(PLACES[place], asked).unwrap(), expected);
            }
            Step::Reopen => {
                drop(log);
                log = home.open(LogOptions::for_testing());
            }
        }
        assert_eq!(log.committed("g", &PLACES[..1]).unwrap(), std::slice::from_ref(&committed));
    }
    for (at, expected) in PLACES.into_iter().zip(&model) {
        assert_eq!(log.end_offset(at).unwrap(), expected.len() as u64);
        assert_eq!(read_all(&log, at, 0).len(), expected.len());
    }
}

/// What is left after compaction at `horizon`: the plain definition.
fn compacted(records: &[Record], horizon_ms: i64) -> Vec<Record> {
    let too_young = records.iter().position(|record| record.timestamp_ms > horizon_ms).unwrap_or(records.len());
    let until = too_young.min(records.len().saturating_sub(1));
    let newest: HashMap<_, _> = records[..until].iter().map(|record| (record.key.clone(), record.offset)).collect();
    let stays = |record: &&Record| {
        record.offset as usize >= until || (newest[&record.key] == record.offset && record.value.is_some())
    };
    records.iter().filter(stays).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn the_log_in_memory_behaves_like_vectors(steps in steps()) {
        let [memory, _] = Home::both();
        check(&memory, steps);
    }

    #[test]
    fn compaction_leaves_what_its_definition_says(
        parts in prop::collection::vec((0..12_u8, any::<bool>(), 0..100_i64), 1..400),
        horizon in 0..110_i64,
    ) {
        let [memory, _] = Home::both();
        let log = memory.open(LogOptions::for_testing());
        let at = PLACES[2];
        let records = parts.iter().map(|(key, has_value, time)| match has_value {
            true => record(at, &key.to_string(), "v", *time),
            false => tombstone(at, &key.to_string(), *time),
        });
        log.append(records.collect()).unwrap();
        let before = read_all(&log, at, 0);
        while log.maintain(horizon + HOUR_MS).unwrap().more {}
        let expected = compacted(&before, horizon);
        prop_assert_eq!(read_all(&log, at, 0), expected.clone());
        drop(log);
        prop_assert_eq!(read_all(&memory.open(LogOptions::for_testing()), at, 0), expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn the_log_on_disk_behaves_like_vectors(steps in steps()) {
        let [_, disk] = Home::both();
        check(&disk, steps);
    }
}
