use neonhub_schemas::record::CommittedOffset;
use neonhub_schemas::topics::{Topic, partition_for};

use super::super::{CommitUnit, LogError};
use super::{on_both, place, read_all, record, summary};

const IN: neonhub_schemas::record::TopicPartition = place(Topic::RawBehavior, 1);
const OUT: neonhub_schemas::record::TopicPartition = place(Topic::EventsBehavior, 0);

#[test]
fn records_and_offsets_become_visible_together() {
    on_both(|_, log| {
        let offset = CommittedOffset { offset: 7, metadata: "{\"plan\":1}".into() };
        let appended = log
            .commit(CommitUnit {
                records: vec![
                    record(OUT, "a", "1", 10),
                    record(place(Topic::Control, 0), "c", "2", 11),
                    record(OUT, "b", "3", 12),
                ],
                offsets: vec![(IN, offset.clone())],
                group: "refine".into(),
                fence: None,
            })
            .unwrap();
        assert_eq!(appended.placements, [(0, 0), (0, 0), (0, 1)]);
        assert_eq!(
            summary(&read_all(&log, OUT, 0)),
            [(0, "a".into(), Some("1".into())), (1, "b".into(), Some("3".into()))]
        );
        assert_eq!(log.committed("refine", &[OUT, IN]).unwrap(), [None, Some(offset)]);
        assert_eq!(log.committed("other", &[IN]).unwrap(), [None]);
    });
}

#[test]
fn a_unit_with_one_bad_part_leaves_nothing() {
    on_both(|_, log| {
        let good = record(OUT, "a", "1", 10);
        let mut keyless = good.clone();
        keyless.key = bytes::Bytes::new();
        let refused = log.append(vec![good.clone(), keyless]);
        assert!(matches!(refused, Err(LogError::Rejected { .. })), "{refused:?}");
        let mut unknown_header = good.clone();
        unknown_header.headers = unknown_header.headers.with("x-unheard-of", "1");
        assert!(matches!(log.append(vec![good.clone(), unknown_header]), Err(LogError::Rejected { .. })));
        let elsewhere = place(Topic::EventsBehavior, 99);
        assert_eq!(
            log.append(vec![good.clone(), record(elsewhere, "a", "1", 1)]),
            Err(LogError::UnknownPartition { topic_partition: elsewhere })
        );
        let no_group =
            CommitUnit { offsets: vec![(IN, CommittedOffset::default())], ..CommitUnit::of_records(vec![good]) };
        assert!(matches!(log.commit(no_group), Err(LogError::Rejected { .. })));
        assert_eq!(log.end_offset(OUT).unwrap(), 0);
        assert_eq!(log.append(vec![]).unwrap(), [], "nothing to do is no error");
    });
}

#[test]
fn the_key_chooses_the_partition_as_in_kafka() {
    on_both(|_, log| {
        for key in ["shop|anna", "shop|ben", "shop|carla"] {
            let mut keyed = record(OUT, key, "1", 1);
            keyed.partition = None;
            let (partition, _) = log.append(vec![keyed]).unwrap()[0];
            assert_eq!(partition, partition_for(key.as_bytes(), 2));
        }
    });
}

#[test]
fn concurrent_writers_get_distinct_dense_offsets() {
    const WRITERS: u64 = 8;
    const COMMITS: u64 = 25;
    on_both(|_, log| {
        let mut offsets: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let log = log.clone();
                    scope.spawn(move || {
                        let mut offsets = Vec::new();
                        for commit in 0..COMMITS {
                            let records = (0..3).map(|part| record(OUT, &format!("{writer}-{commit}-{part}"), "", 1));
                            let placements = log.append(records.collect()).unwrap();
                            assert!(
                                placements.windows(2).all(|pair| pair[0].1 + 1 == pair[1].1),
                                "a unit is contiguous"
                            );
                            offsets.extend(placements.into_iter().map(|(_, offset)| offset));
                        }
                        offsets
                    })
                })
                .collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
        });
        offsets.sort_unstable();
        assert_eq!(offsets, (0..WRITERS * COMMITS * 3).collect::<Vec<_>>());
        assert_eq!(read_all(&log, OUT, 0).len() as u64, WRITERS * COMMITS * 3);
    });
}
