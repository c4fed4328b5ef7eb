//! The local copy of a task's state, and the marker that says what it holds.
//!
//! The marker is written in one batch with the state. Its offsets are those at which the changelogs (of some stages their
//! own output, too) ended just before a commit that went through: the commit proves that nobody else had the partition by
//! then, so everything before them is in the state. What comes after them is read again at the next start; a newer state in
//! the store takes no harm from it, because the whole rest is read in order.

use std::cell::Cell;
use std::time::Duration;

use neonhub_schemas::record::{CommittedOffset, TopicPartition};
use neonhub_schemas::topics::Topic;
use serde::{Deserialize, Serialize};

use super::ports::{Change, EngineError, LogReader, StateStore};
use super::stage::Restore;

/// No other key may begin with this byte.
pub(super) const MARKER_KEY: &[u8] = &[0];

/// Of everything that stages keep in local states. Raised when any of it changes: what is there in another format is emptied.
const FORMAT: u32 = 1;

/// What a local state holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    format: u32,
    /// Every record of the changelogs below these offsets is in the state, as far as it has to be: topic, partition, offset.
    changelogs: Vec<(String, u32, u64)>,
    /// What the commit committed for the task's input.
    committed: u64,
    saved_at_ms: i64,
}

impl Marker {
    /// Where the changelogs end now: for a state that is saved after the next commit has gone through.
    pub(super) fn before_commit(
        reader: &mut dyn LogReader,
        plan: &[Restore],
        committed: u64,
        now_ms: i64,
    ) -> Result<Self, EngineError> {
        let mut changelogs = Vec::new();
        for place in plan.iter().map(Restore::place) {
            let (_, end) = reader.bounds(place)?;
            changelogs.push((place.topic.name().to_owned(), place.partition, end));
        }
        Ok(Self { format: FORMAT, changelogs, committed, saved_at_ms: now_ms })
    }

    /// For a state that is measured: no log stands behind it, and nobody takes it up.
    #[must_use]
    pub fn detached(now_ms: i64) -> Self {
        Self { format: FORMAT, changelogs: Vec::new(), committed: u64::MAX, saved_at_ms: now_ms }
    }

    /// When the commit was prepared, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn saved_at_ms(&self) -> i64 {
        self.saved_at_ms
    }

    fn offset(&self, place: TopicPartition) -> Option<u64> {
        let is_it = |(topic, partition, _): &&(String, u32, u64)| {
            Topic::from_name(topic) == Some(place.topic) && *partition == place.partition
        };
        self.changelogs.iter().find(is_it).map(|(_, _, offset)| *offset)
    }

    /// Whether the log still has everything that came after it, tombstones included. Of what is read by time, retention may
    /// have taken a part: it is too old to be asked for, and lost to a state that is read from the log as well.
    fn is_usable(
        &self,
        reader: &mut dyn LogReader,
        plan: &[Restore],
        committed: Option<&CommittedOffset>,
        now_ms: i64,
        keeps_everything_for: Duration,
    ) -> Result<bool, EngineError> {
        // A log that was made anew is not the one that the state is from.
        if self.format != FORMAT || committed.is_none_or(|committed| committed.offset < self.committed) {
            return Ok(false);
        }
        let keeps_ms = i64::try_from(keeps_everything_for.as_millis()).unwrap_or(i64::MAX);
        let is_young = (0..keeps_ms).contains(&now_ms.saturating_sub(self.saved_at_ms));
        for part in plan {
            let Some(offset) = self.offset(part.place()) else { return Ok(false) };
            let (start, end) = reader.bounds(part.place())?;
            let is_compacted = matches!(part, Restore::Whole(_));
            if offset > end || is_compacted && (offset < start || offset < end && !is_young) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The local store of one task. Every read and write goes through here.
pub struct LocalState {
    store: Box<dyn StateStore>,
    marker: Option<Marker>,
    /// Since the last save.
    has_written: Cell<bool>,
}

impl LocalState {
    /// Takes up what the store has, or empties it when it is of no use.
    pub(super) fn open(
        store: Box<dyn StateStore>,
        reader: &mut dyn LogReader,
        plan: &[Restore],
        committed: Option<&CommittedOffset>,
        now_ms: i64,
    ) -> Result<Self, EngineError> {
        let marker = store.get(MARKER_KEY)?.and_then(|bytes| serde_json::from_slice::<Marker>(&bytes).ok());
        // Half of it, for clocks that differ.
        let keeps_everything_for = neonhub_schemas::topics::COMPACTION_LAG / 2;
        let marker = match marker {
            Some(marker) if marker.is_usable(reader, plan, committed, now_ms, keeps_everything_for)? => Some(marker),
            _ => {
                store.clear()?;
                None
            }
        };
        Ok(Self { store, marker, has_written: Cell::new(false) })
    }

    /// A store that holds nothing yet.
    ///
    /// # Errors
    /// The disk fails.
    pub fn empty(store: Box<dyn StateStore>) -> Result<Self, EngineError> {
        store.clear()?;
        Ok(Self { store, marker: None, has_written: Cell::new(false) })
    }

    pub(super) fn restore_from(&self, place: TopicPartition) -> Option<u64> {
        self.marker.as_ref()?.offset(place)
    }

    /// Whether it holds anything that was saved before it was opened.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.marker.is_some()
    }

    /// # Errors
    /// The disk fails.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.trusting(self.store.get(key))
    }

    /// The entries in `[from, to)` by their keys, until `each` answers `false`.
    ///
    /// # Errors
    /// The disk fails.
    pub fn scan(&self, from: &[u8], to: &[u8], mut each: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), EngineError> {
        self.trusting(self.store.scan(from, to, &mut each))
    }

    /// Hands on what was read, or what was made of it. After a failure the state is not taken up again: who comes next begins
    /// with an empty one, and does not fail at the same place for ever.
    ///
    /// # Errors
    /// Those of the outcome.
    pub fn trusting<T>(&self, outcome: Result<T, EngineError>) -> Result<T, EngineError> {
        if let Err(error) = &outcome {
            tracing::warn!(%error, "a local state is given up; it will be read from the log again");
            if let Err(error) = self.store.write(vec![(MARKER_KEY.to_vec(), None)]) {
                tracing::warn!(%error, "it cannot be marked as such");
            }
        }
        outcome
    }

    /// Writes state that is newer than the marker says: while it is being restored, or before the last part of it is saved.
    ///
    /// # Errors
    /// The disk fails, or another has opened the store since.
    pub fn write(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        self.has_written.set(true);
        self.store.write(changes)
    }

    /// Writes state and marker together. When this is only the last part, the store is flushed: a kill must not leave the
    /// much that went before without the marker that makes it of use.
    ///
    /// # Errors
    /// The disk fails, or another has opened the store since.
    pub fn save(&self, mut changes: Vec<Change>, marker: &Marker) -> Result<(), EngineError> {
        // Numbers and names always have a JSON form.
        changes.push((MARKER_KEY.to_vec(), Some(serde_json::to_vec(marker).unwrap_or_default())));
        self.store.write(changes)?;
        if self.has_written.take() { self.store.flush() } else { Ok(()) }
    }
}

/// A value in the form that stages keep in a local state.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Writing into a vector cannot fail.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// # Errors
/// The bytes are damaged.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, EngineError> {
    postcard::from_bytes(bytes)
        .map_err(|error| EngineError::Unavailable(format!("the local state is damaged: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fuzz::Changelog;
    use crate::engine::{MemoryStates, StateStores};

    const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsWindows, partition: 1 };
    const OTHER: TopicPartition = TopicPartition { topic: Topic::MetricsWindows, partition: 2 };
    const SAVED_AT_MS: i64 = 1_000_000;

    /// Opens what was saved when the changelog ended at 10 and the input was committed up to 5: where to read on, if it is
    /// of any use. If not, it must be empty then.
    fn reopened(log: (u64, u64), committed: Option<u64>, now_ms: i64, wanted: Restore) -> Option<u64> {
        let mut disk = MemoryStates::default();
        let kept = if matches!(wanted, Restore::Whole(_)) { Restore::Whole(PLACE) } else { Restore::Since(PLACE, 7) };
        let marker = Marker::before_commit(&mut Changelog(0, 10), &[kept], 5, SAVED_AT_MS).unwrap();
        let store = disk.open("stage", PLACE).unwrap();
        store.write(vec![(MARKER_KEY.to_vec(), Some(serde_json::to_vec(&marker).unwrap()))]).unwrap();
        store.write(vec![(b"a".to_vec(), Some(b"1".to_vec()))]).unwrap();
        let committed = committed.map(|offset| CommittedOffset { offset, metadata: String::new() });
        let store = disk.open("stage", PLACE).unwrap();
        let plan = [wanted];
        let local = LocalState::open(store, &mut Changelog(log.0, log.1), &plan, committed.as_ref(), now_ms).unwrap();
        assert_eq!(local.get(b"a").unwrap().is_some(), local.is_filled());
        assert_eq!(local.is_filled(), local.restore_from(PLACE).is_some());
        local.restore_from(PLACE)
    }

    #[test]
    fn a_saved_state_is_taken_up_when_the_log_has_all_that_came_after_it() {
        let keeps_ms = i64::try_from(neonhub_schemas::topics::COMPACTION_LAG.as_millis() / 2).unwrap();
        for (log, committed, now_ms) in [
            ((0, 10), 5, SAVED_AT_MS + 100 * keeps_ms),
            ((0, 12), 5, SAVED_AT_MS),
            ((0, 12), 6, SAVED_AT_MS + keeps_ms - 1),
            ((10, 12), 5, SAVED_AT_MS),
        ] {
            let whole = reopened(log, Some(committed), now_ms, Restore::Whole(PLACE));
            assert_eq!(whole, Some(10), "{log:?} {committed} {now_ms}");
        }
        for (log, committed, now_ms) in [
            // Compaction may have taken tombstones; the clock went back; the log lost its beginning, or its end.
            ((0, 12), Some(5), SAVED_AT_MS + keeps_ms),
            ((0, 12), Some(5), SAVED_AT_MS - 1),
            ((11, 12), Some(5), SAVED_AT_MS),
            ((0, 9), Some(5), SAVED_AT_MS),
            // The group stands before what the state holds, or nowhere.
            ((0, 10), Some(4), SAVED_AT_MS),
            ((0, 10), None, SAVED_AT_MS),
        ] {
            let whole = reopened(log, committed, now_ms, Restore::Whole(PLACE));
            assert_eq!(whole, None, "{log:?} {committed:?} {now_ms}");
        }
        let other = reopened((0, 10), Some(5), SAVED_AT_MS, Restore::Whole(OTHER));
        assert_eq!(other, None, "a changelog that it does not name");
    }

    #[test]
    fn what_is_read_by_time_may_have_lost_its_beginning_and_is_never_compacted() {
        let day_ms = 86_400_000;
        for (log, now_ms) in [
            ((0, 10), SAVED_AT_MS),
            ((0, 12), SAVED_AT_MS + day_ms),
            ((11, 12), SAVED_AT_MS),
            ((0, 12), SAVED_AT_MS - 1),
        ] {
            let since = reopened(log, Some(5), now_ms, Restore::Since(PLACE, 99));
            assert_eq!(since, Some(10), "{log:?} {now_ms}");
        }
        assert_eq!(reopened((0, 9), Some(5), SAVED_AT_MS, Restore::Since(PLACE, 7)), None, "another log");
        assert_eq!(reopened((0, 12), Some(4), SAVED_AT_MS, Restore::Since(PLACE, 7)), None, "another group");
        assert_eq!(reopened((0, 12), Some(5), SAVED_AT_MS, Restore::Since(OTHER, 7)), None, "not named");
    }

    #[test]
    fn only_who_opened_a_store_last_may_write() {
        let mut disk = MemoryStates::default();
        let mut former = disk.open("stage", PLACE).unwrap();
        let other = disk.open("stage", OTHER).unwrap();
        for _ in 0..2 {
            let latest = disk.open("stage", PLACE).unwrap();
            assert!(matches!(former.write(Vec::new()), Err(EngineError::Fenced(_))));
            assert!(latest.write(Vec::new()).is_ok() && other.write(Vec::new()).is_ok());
            former = latest;
        }
    }
}
