use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::super::{CommitUnit, Fence, LogError, LogOptions};
use super::{Home, place, record};

const OUT: TopicPartition = place(Topic::EventsBehavior, 0);

fn unit(fence: Fence) -> CommitUnit {
    CommitUnit {
        records: vec![record(OUT, "k", "v", 1)],
        offsets: vec![(place(Topic::RawBehavior, 0), CommittedOffset { offset: 1, metadata: String::new() })],
        group: "g".into(),
        fence: Some(fence),
    }
}

#[test]
fn members_share_the_partitions_and_stale_generations_cannot_commit() {
    for home in Home::both() {
        let log = home.open(LogOptions { partitions: 5, ..LogOptions::for_testing() });
        let topics = [Topic::RawBehavior, Topic::RawCampaign];
        let first = log.join("g", "a", &topics);
        let alone = first.poll_assignment().unwrap();
        assert_eq!(alone.partitions.len(), 10);
        log.commit(unit(first.fence(alone.generation))).unwrap();

        let second = log.join("g", "b", &topics);
        let stale = log.commit(unit(first.fence(alone.generation)));
        assert_eq!(stale, Err(LogError::Fenced { group: "g".into(), member_id: "a".into() }));
        assert_eq!(log.end_offset(OUT).unwrap(), 1, "nothing of the fenced unit is there");
        let (of_first, of_second) = (first.poll_assignment().unwrap(), second.poll_assignment().unwrap());
        assert_eq!(of_first.generation, of_second.generation);
        let numbers = |partitions: &[TopicPartition], topic| {
            partitions.iter().filter(|at| at.topic == topic).map(|at| at.partition).collect::<Vec<_>>()
        };
        for topic in topics {
            assert_eq!(numbers(&of_first.partitions, topic), [0, 1, 2]);
            assert_eq!(numbers(&of_second.partitions, topic), [3, 4]);
        }
        log.commit(unit(first.fence(of_first.generation))).unwrap();

        drop(first);
        let again_alone = second.poll_assignment().unwrap();
        assert!(again_alone.generation > of_second.generation);
        assert_eq!(again_alone.partitions.len(), 10);
    }
}

#[test]
fn joining_under_the_same_id_fences_the_older_holder_only() {
    for home in Home::both() {
        let log = home.open(LogOptions::for_testing());
        let other = log.join("g", "other", &[Topic::RawBehavior]);
        let older = log.join("g", "slot-0", &[Topic::RawBehavior]);
        let generation = older.poll_assignment().unwrap().generation;
        let newer = log.join("g", "slot-0", &[Topic::RawBehavior]);
        assert!(matches!(log.commit(unit(older.fence(generation))), Err(LogError::Fenced { .. })));
        assert!(matches!(older.poll_assignment(), Err(LogError::Fenced { .. })));
        older.leave();
        assert_eq!(newer.poll_assignment().unwrap().generation, generation, "the others are not disturbed");
        log.commit(unit(newer.fence(generation))).unwrap();
        log.commit(unit(other.fence(generation))).unwrap();
    }
}

#[test]
fn a_group_reads_only_what_its_members_asked_for() {
    for home in Home::both() {
        let log = home.open(LogOptions::for_testing());
        let raw = log.join("g", "a", &[Topic::RawBehavior]);
        let control = log.join("g", "b", &[Topic::Control]);
        assert_eq!(raw.poll_assignment().unwrap().partitions.len(), 2);
        assert_eq!(control.poll_assignment().unwrap().partitions, [place(Topic::Control, 0)]);
    }
}
