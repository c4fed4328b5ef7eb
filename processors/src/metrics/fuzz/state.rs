//! Pure: no I/O, no clock, no async.
//!
//! The merge stage over any local state: it says that the state is damaged, or works and keeps to its memory. The bytes are
//! entries: a byte that says what, a byte for the key, a byte for the length, then numbers or a value.

use bytes::Bytes;
use neonhub_schemas::event::Source;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::micros::Micros;
use neonhub_schemas::record::{CommittedOffset, Headers, Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Aggregate, Delta, Grain, Partial, PartialHeader, Sample, WindowState};

use crate::engine::{Change, Marker, Outputs, Stage};
use crate::metrics::stored::{self, StoredWindow};
use crate::metrics::table::LiveWindow;
use crate::metrics::{MergeConfig, MetricsMerge};

const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 0 };
/// Room for a few windows, so that most of them come and go.
const BUDGET: usize = 4_000;
const MINUTE: i64 = 1_600_000_020;

pub(crate) fn check(bytes: &[u8]) {
    let mut changes = Vec::new();
    let mut rest = bytes;
    for _ in 0..64 {
        let [what, which, length, tail @ ..] = rest else { break };
        let (content, after) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = after;
        changes.extend(entry(*what, *which, content));
    }
    // The marker is good: what a bad one does is another target's.
    changes.retain(|(key, _)| key.first() != Some(&0));
    let Some(local) = crate::engine::fuzz::filled(changes) else { return };
    let config = MergeConfig { partitions: 1, memory_per_partition: BUDGET, ..MergeConfig::default() };
    let Ok(stage) = MetricsMerge::new(config) else { return };
    let committed = CommittedOffset { offset: 10, metadata: String::new() };
    let Ok(mut task) = stage.open(PLACE, Some(&committed), Some(local)) else { return };
    let mut now_ms = MINUTE * 1_000;
    for (record, next_offset) in input().iter().zip(11..) {
        let mut out = Outputs::default();
        stage.process(&mut task, record, now_ms, &mut out);
        let _committed = stage.prepare_commit(&mut task, Some(next_offset), now_ms, &mut out);
        if out.failure.is_some() {
            return;
        }
        if stage.may_save(&task) {
            if stage.save(&mut task, &Marker::detached(now_ms)).is_err() {
                return;
            }
            let (_, size) = stage.state_size(&task);
            assert!(size <= BUDGET, "{size} bytes after a save");
        }
        now_ms += 15_000;
    }
}

fn key(which: u8) -> MetricKey {
    let dimensions = [("campaign".to_owned(), (which % 4).to_string())];
    let dimensions = if which & 4 == 0 { dimensions.into() } else { Default::default() };
    MetricKey { workspace: "acme".into(), metric: "spend".into(), series: 0, dimensions }
}

fn entry(what: u8, which: u8, content: &[u8]) -> Vec<Change> {
    let number = |index: usize| {
        let mut number = [0; 8];
        content.iter().skip(index * 8).take(8).zip(&mut number).for_each(|(byte, slot)| *slot = *byte);
        i64::from_be_bytes(number)
    };
    let unsigned = |index: usize| u64::from_be_bytes(number(index).to_be_bytes());
    let grain = Grain::ALL[usize::from(which >> 3) % Grain::ALL.len()];
    let place = |start_s: i64| stored::place(&key(which), grain, start_s);
    match what % 5 {
        0 => {
            let start_s = MINUTE.saturating_add(number(0));
            let window = LiveWindow {
                aggregate: Aggregate {
                    count: unsigned(1),
                    sum: Micros::from_raw(i128::from(number(2)) << 64),
                    ..Aggregate::default()
                },
                length_s: u32::try_from(number(3) >> 32).unwrap_or(60),
                revision: u32::try_from(number(4) >> 32).unwrap_or(u32::MAX),
                epoch: unsigned(5),
                last_applied: unsigned(6),
                touched_at_ms: number(7),
                is_final: which >> 7 == 1,
                ..LiveWindow::default()
            };
            let stored = StoredWindow::of(key(which), Source::Campaign, grain, start_s, &window);
            indexed(&place(start_s), &stored)
        }
        1 => vec![(stored::window_key(&place(MINUTE)), Some(content.to_vec()))],
        2 => vec![(stored::open_key(Source::Campaign, number(0), &place(MINUTE)), Some(Vec::new()))],
        3 => vec![(stored::META_KEY.to_vec(), Some(content.to_vec()))],
        _ => vec![(content.to_vec(), Some(content.to_vec()))],
    }
}

fn indexed(place: &stored::Place, stored: &StoredWindow) -> Vec<Change> {
    let index_key = if stored.is_final {
        stored::final_key(stored.grain, stored.source, stored.end_s(), place)
    } else {
        stored::open_key(stored.source, stored.end_s(), place)
    };
    vec![(stored::window_key(place), Some(stored::encode(stored))), (index_key, Some(Vec::new()))]
}

/// Deltas of keys that the state may have, a watermark that ends some windows, and one that ends all.
fn input() -> Vec<Record> {
    let header = |watermark_ms| PartialHeader {
        topic: Topic::EventsCampaign.name().to_owned(),
        partition: 0,
        watermark_ms,
        idle: false,
    };
    let watermark = |ms: i64| Partial { upstream: header(Some(ms)), key: None, deltas: Vec::new() };
    let mut gained = Aggregate::default();
    let _ = gained.add(Sample::Number(Micros::from_raw(1)));
    let deltas = vec![Delta { minute: MINUTE, state: WindowState::of(&gained) }];
    let delta = |which| Partial { upstream: header(None), key: Some(key(which)), deltas: deltas.clone() };
    let end_ms = (MINUTE + 3_600) * 1_000;
    let partials =
        [delta(0), delta(1), watermark(end_ms), delta(4), delta(0), watermark(i64::MAX), delta(2), watermark(i64::MAX)];
    let as_record = |(partial, offset): (Partial, u64)| Record {
        topic: PLACE.topic,
        partition: PLACE.partition,
        offset,
        timestamp_ms: 0,
        key: Bytes::from_static(b"k"),
        value: Some(Bytes::from(partial.encode())),
        headers: Headers::new(),
    };
    partials.into_iter().zip(10..).map(as_record).collect()
}
