//! A member that slept while another had its partitions must begin again from what is committed.

use std::sync::Arc;
use std::time::Duration;

use neonhub_processors::engine::{CommitUnit, Part, Source, SourceEvent};
use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_topology::embedded::engine::ports;
use neonhub_topology::embedded::log::{CommitMode, Log, LogOptions, MemoryStore};

fn assigned(source: &mut dyn Source) -> Vec<TopicPartition> {
    let events = source.poll(Duration::ZERO).unwrap();
    let places = events.into_iter().filter_map(|event| match event {
        SourceEvent::Assigned(places) => Some(places),
        _ => None,
    });
    places.flatten().collect()
}

#[test]
fn a_generation_slept_through_takes_every_partition_away_and_gives_it_back() {
    let options = LogOptions { partitions: 2, ..LogOptions::for_testing() };
    let log = Log::over(Arc::new(MemoryStore::new()), options, CommitMode::Inline).unwrap();
    let topics = [Topic::RawBehavior];
    let places = [0, 1].map(|partition| TopicPartition { topic: Topic::RawBehavior, partition });
    let mut sleeper = ports(&log, "refine", "b", &topics, Part::KeyAndValue);
    assert_eq!(assigned(sleeper.source.as_mut()), places);
    // "a" comes first in the order of members: it takes partition 0, works on it and leaves while "b" sleeps.
    let mut guest = ports(&log, "refine", "a", &topics, Part::KeyAndValue);
    assert_eq!(assigned(guest.source.as_mut()), places[..1]);
    let offset = CommittedOffset { offset: 7, metadata: String::new() };
    guest.committer.commit(CommitUnit { records: Vec::new(), offsets: vec![(places[0], offset.clone())] }).unwrap();
    drop(guest);
    let events = sleeper.source.poll(Duration::ZERO).unwrap();
    assert!(
        matches!(&events[..], [SourceEvent::Revoked(all), SourceEvent::Assigned(again)] if all == again && *all == places)
    );
    assert_eq!(sleeper.source.committed(&places[..1]).unwrap(), [Some(offset)]);
}

#[test]
fn a_neighbour_that_comes_takes_no_more_than_its_share() {
    let options = LogOptions { partitions: 2, ..LogOptions::for_testing() };
    let log = Log::over(Arc::new(MemoryStore::new()), options, CommitMode::Inline).unwrap();
    let topics = [Topic::RawBehavior];
    let mut first = ports(&log, "refine", "a", &topics, Part::KeyAndValue);
    assert_eq!(assigned(first.source.as_mut()).len(), 2);
    let _second = ports(&log, "refine", "b", &topics, Part::KeyAndValue);
    let events = first.source.poll(Duration::ZERO).unwrap();
    assert!(matches!(&events[..], [SourceEvent::Revoked(places)] if places.len() == 1 && places[0].partition == 1));
}
