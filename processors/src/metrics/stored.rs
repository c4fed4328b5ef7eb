//! Pure: no I/O, no clock, no async.
//!
//! Windows as the local state has them. Numbers in keys are big-endian, signed ones with their sign turned, so that keys
//! are in the order of time.
//!
//! | key | value |
//! |---|---|
//! | 1, metric (8), grain (1), start (8), key (16) | a window; metric and key are hashes (XXH3) |
//! | 2, source (1), end (8), the key above without its 1 | nothing: a window that is not final |
//! | 3, grain (1), source (1), end (8), the key above without its 1 | nothing: a window that is final |
//! | 4 | watermarks, and the newest delta in any window |

use neonhub_schemas::control::UpstreamWatermarks;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::micros::Micros;
use neonhub_schemas::sketch::{DdSketch, HyperLogLog};
use neonhub_schemas::window::{Aggregate, Grain};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::keys::metric_hash;
use super::table::{LiveWindow, Mark, Stored};
use crate::engine::EngineError;
pub use crate::engine::local_state::{decode, encode};

const WINDOW: u8 = 1;
const OPEN: u8 = 2;
const FINAL: u8 = 3;
const META: u8 = 4;

pub const META_KEY: &[u8] = &[META];

/// Length of [`Place`] in bytes.
const PLACE: usize = 8 + 1 + 8 + 16;

/// A window's place in the local state.
pub type Place = [u8; PLACE];

#[must_use]
pub fn place(key: &MetricKey, grain: Grain, start_s: i64) -> Place {
    let mut place = [0; PLACE];
    place[..17].copy_from_slice(&group(metric_hash(key), grain, start_s));
    place[17..].copy_from_slice(&xxh3_128(key.to_text().as_bytes()).to_be_bytes());
    place
}

/// What the places of all keys of a metric in one window begin with.
#[must_use]
pub fn group(metric: u64, grain: Grain, start_s: i64) -> [u8; 17] {
    let mut group = [0; 17];
    group[..8].copy_from_slice(&metric.to_be_bytes());
    group[8] = grain as u8;
    group[9..].copy_from_slice(&ordered(start_s));
    group
}

#[must_use]
pub fn window_key(place: &[u8]) -> Vec<u8> {
    [&[WINDOW], place].concat()
}

/// From here to there: the windows of all keys of a metric at one time.
#[must_use]
pub fn group_range(group: &[u8; 17]) -> (Vec<u8>, Vec<u8>) {
    let from = window_key(group);
    let to = [from.as_slice(), &[u8::MAX; 17]].concat();
    (from, to)
}

#[must_use]
pub fn open_key(source: Source, end_s: i64, place: &[u8]) -> Vec<u8> {
    [&[OPEN, source as u8], ordered(end_s).as_slice(), place].concat()
}

#[must_use]
pub fn final_key(grain: Grain, source: Source, end_s: i64, place: &[u8]) -> Vec<u8> {
    [&[FINAL, grain as u8, source as u8], ordered(end_s).as_slice(), place].concat()
}

/// The window's key, from its key in one of the two indexes.
#[must_use]
pub fn window_key_of(index_key: &[u8]) -> Option<Vec<u8>> {
    index_key.len().checked_sub(PLACE).map(|begin| window_key(&index_key[begin..]))
}

fn ordered(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

/// A window with its key.
#[derive(Debug, Serialize, Deserialize)]
pub struct StoredWindow {
    pub key: MetricKey,
    pub source: Source,
    pub grain: Grain,
    pub start_s: i64,
    length_s: u32,
    pub epoch: u64,
    revision: u32,
    pub is_final: bool,
    pub last_applied: u64,
    pub touched_at_ms: i64,
    count: u64,
    sum: i128,
    range: Option<(i128, i128)>,
    #[serde(with = "serde_bytes")]
    distinct: Vec<u8>,
    #[serde(with = "serde_bytes")]
    distribution: Vec<u8>,
}

impl StoredWindow {
    #[must_use]
    pub fn of(key: MetricKey, source: Source, grain: Grain, start_s: i64, window: &LiveWindow) -> Self {
        let aggregate = &window.aggregate;
        Self {
            key,
            source,
            grain,
            start_s,
            length_s: window.length_s,
            epoch: window.epoch,
            revision: window.revision,
            is_final: window.is_final,
            last_applied: window.last_applied,
            touched_at_ms: window.touched_at_ms,
            count: aggregate.count,
            sum: aggregate.sum.raw(),
            range: aggregate.range.as_ref().map(|range| (range.0.raw(), range.1.raw())),
            distinct: aggregate.distinct.as_ref().map_or_else(Vec::new, |sketch| sketch.to_bytes()),
            distribution: aggregate.distribution.as_ref().map_or_else(Vec::new, |sketch| sketch.to_bytes()),
        }
    }

    #[must_use]
    pub fn end_s(&self) -> i64 {
        self.start_s.saturating_add(i64::from(self.length_s))
    }

    /// # Errors
    /// The sketches' bytes are damaged, or it ends after the end of time.
    pub fn to_window(&self) -> Result<LiveWindow, EngineError> {
        fn damaged(detail: impl std::fmt::Display) -> EngineError {
            EngineError::Unavailable(format!("a window of the local state is damaged: {detail}"))
        }
        if self.start_s.checked_add(i64::from(self.length_s)).is_none() {
            return Err(damaged("it has no end"));
        }
        let mut aggregate = Aggregate { count: self.count, sum: Micros::from_raw(self.sum), ..Aggregate::default() };
        aggregate.range =
            self.range.map(|(least, greatest)| Box::new((Micros::from_raw(least), Micros::from_raw(greatest))));
        if !self.distinct.is_empty() {
            aggregate.distinct = Some(Box::new(HyperLogLog::from_bytes(&self.distinct).map_err(damaged)?));
        }
        if !self.distribution.is_empty() {
            aggregate.distribution = Some(Box::new(DdSketch::from_bytes(&self.distribution).map_err(damaged)?));
        }
        Ok(LiveWindow {
            aggregate,
            epoch: self.epoch,
            last_applied: self.last_applied,
            restored_as_of: Mark::at(self.last_applied),
            touched_at_ms: self.touched_at_ms,
            revision: self.revision,
            length_s: self.length_s,
            is_final: self.is_final,
            stored: if self.is_final { Stored::Final } else { Stored::Open },
            ..LiveWindow::default()
        })
    }
}

/// What the local state has beside the windows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    pub watermarks: String,
    /// The newest delta that any window holds.
    pub newest_applied: Option<u64>,
}

impl Meta {
    #[must_use]
    pub fn of(watermarks: &UpstreamWatermarks, newest_applied: Option<u64>) -> Self {
        // A struct of names and numbers always has a JSON form.
        Self { watermarks: serde_json::to_string(watermarks).unwrap_or_default(), newest_applied }
    }

    /// # Errors
    /// It is damaged.
    pub fn upstreams(&self) -> Result<UpstreamWatermarks, EngineError> {
        serde_json::from_str(&self.watermarks)
            .map_err(|error| EngineError::Unavailable(format!("the local state is damaged: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use neonhub_schemas::window::Sample;

    #[test]
    fn a_window_comes_back_as_it_was_saved() {
        let mut aggregate = Aggregate::default();
        for sample in ["-1.5", "7"].map(|number| Sample::Distribution(number.parse().unwrap())) {
            aggregate.add(sample).unwrap();
        }
        aggregate.add(Sample::Distinct(0x5bd1_e995_9e37_79b9)).unwrap();
        let key = MetricKey {
            workspace: "acme".into(),
            metric: "spend".into(),
            series: 1,
            dimensions: [("campaign".to_owned(), "men".to_owned())].into(),
        };
        for is_final in [false, true] {
            let window = LiveWindow {
                aggregate: aggregate.clone(),
                epoch: 3,
                last_applied: 5,
                touched_at_ms: 7,
                revision: 11,
                length_s: 3_600,
                is_final,
                ..LiveWindow::default()
            };
            let stored = encode(&StoredWindow::of(key.clone(), Source::Campaign, Grain::Hour, 60, &window));
            let stored: StoredWindow = decode(&stored).unwrap();
            assert_eq!((&stored.key, stored.source, stored.grain), (&key, Source::Campaign, Grain::Hour));
            assert_eq!((stored.start_s, stored.end_s()), (60, 3_660));
            let again = stored.to_window().unwrap();
            assert_eq!(again.aggregate, aggregate);
            let of = |window: &LiveWindow| {
                let LiveWindow { epoch, last_applied, touched_at_ms, revision, length_s, is_final, .. } = *window;
                (epoch, last_applied, touched_at_ms, revision, length_s, is_final)
            };
            assert_eq!(of(&again), of(&window));
            assert_eq!(again.restored_as_of.get(), Some(5), "what it holds is passed over in a replay");
            assert_eq!(again.stored, if is_final { Stored::Final } else { Stored::Open });
        }
    }
}
