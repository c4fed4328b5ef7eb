//! Pure: no I/O, no clock, no async.
//!
//! Local states as a worker finds them: with any marker, or with any content behind a good one.

use neonhub_schemas::record::{CommittedOffset, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::local_state::MARKER_KEY;
use super::{Change, EngineError, LocalState, LogReader, Marker, MemoryStates, Restore, StateStores};

const CHANGELOG: TopicPartition = TopicPartition { topic: Topic::MetricsWindows, partition: 0 };
const PLAN: [Restore; 1] = [Restore::Whole(CHANGELOG)];
/// Offsets that the changelog has.
const START: u64 = 5;
const END: u64 = 20;
const COMMITTED: u64 = 7;
const NOW_MS: i64 = 1_600_000_000_000;

/// A changelog from an offset to another, with nothing in it.
pub(crate) struct Changelog(pub u64, pub u64);

impl LogReader for Changelog {
    fn bounds(&mut self, _place: TopicPartition) -> Result<(u64, u64), EngineError> {
        Ok((self.0, self.1))
    }

    fn offset_for_time(&mut self, _place: TopicPartition, _timestamp_ms: i64) -> Result<u64, EngineError> {
        Ok(self.0)
    }

    fn read(
        &mut self,
        _place: TopicPartition,
        _from: u64,
        _to: u64,
        _each: &mut dyn FnMut(Record),
    ) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Whatever the marker says: the state is taken up, and read on from a place that the changelog has, or is emptied.
pub(crate) fn check(marker: &[u8]) {
    let entry = (b"a".to_vec(), Some(b"1".to_vec()));
    let Ok(local) = opened(vec![(MARKER_KEY.to_vec(), Some(marker.to_vec())), entry.clone()]) else { return };
    let is_there = local.get(b"a").is_ok_and(|value| value.is_some());
    assert_eq!(is_there, local.is_filled(), "half of a state");
    let from = local.restore_from(CHANGELOG);
    assert_eq!(from.is_some(), local.is_filled());
    assert!(from.is_none_or(|from| (START..=END).contains(&from)), "{from:?} is not in the changelog");
    let Ok(read) = serde_json::from_slice::<Marker>(marker) else {
        assert!(!local.is_filled(), "a marker that cannot be read");
        return;
    };
    let written = serde_json::to_vec(&read).unwrap_or_default();
    assert_eq!(serde_json::from_slice::<Marker>(&written).ok(), Some(read), "a marker is another after a round trip");
    let again = opened(vec![(MARKER_KEY.to_vec(), Some(written)), entry]);
    assert_eq!(again.ok().and_then(|again| again.restore_from(CHANGELOG)), from);
}

/// A state that is taken up, and holds this. `None`: it was not, and no test may rely on it.
pub(crate) fn filled(changes: Vec<Change>) -> Option<LocalState> {
    let marker = Marker::before_commit(&mut Changelog(START, END), &PLAN, COMMITTED, NOW_MS).ok()?;
    let marker = (MARKER_KEY.to_vec(), serde_json::to_vec(&marker).ok());
    opened(changes.into_iter().chain([marker]).collect()).ok().filter(LocalState::is_filled)
}

fn opened(changes: Vec<Change>) -> Result<LocalState, EngineError> {
    let mut disk = MemoryStates::default();
    disk.open("stage", CHANGELOG)?.write(changes)?;
    let committed = CommittedOffset { offset: COMMITTED, metadata: String::new() };
    LocalState::open(disk.open("stage", CHANGELOG)?, &mut Changelog(START, END), &PLAN, Some(&committed), NOW_MS)
}

#[test]
fn what_is_saved_is_taken_up() {
    assert!(filled(Vec::new()).is_some());
}
