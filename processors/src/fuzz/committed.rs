//! Pure: no I/O, no clock, no async.
//!
//! The metadata of a committed offset: what a stage or the landing wrote down with it. The first byte says whose it is, eight
//! are the offset, the rest is the metadata.

use bytes::Bytes;
use neonhub_schemas::record::{CommittedOffset, Headers, Record, TopicPartition};
use neonhub_schemas::topics::Topic;

use crate::engine::{Outputs, Restore, Stage};
use crate::landing::{BatchLimits, PartitionBuffer};
use crate::metrics::{MetricsPartial, PartialConfig};
use crate::refine::{Refine, RefineConfig};

const NOW_MS: i64 = 1_600_000_000_000;

pub(super) fn check(bytes: &[u8]) {
    let Some((whose, rest)) = bytes.split_first() else { return };
    let Some((offset, metadata)) = rest.split_first_chunk() else { return };
    let Ok(metadata) = std::str::from_utf8(metadata) else { return };
    // No log has larger ones.
    let offset = u64::from_be_bytes(*offset) >> 1;
    let committed = CommittedOffset { offset, metadata: metadata.to_owned() };
    match whose % 3 {
        0 => check_plan(&committed),
        1 => check_refine(&committed),
        _ => check_partial(&committed),
    }
}

/// What follows a prefix, as a number, if it is written as numbers are.
fn number_after<N: std::str::FromStr + ToString>(prefix: &str, text: &str) -> Option<N> {
    let digits = text.strip_prefix(prefix)?;
    digits.parse().ok().filter(|number: &N| number.to_string() == digits)
}

/// A plan is repeated to the record; without one the next batch is planned anew, from the same offset on.
fn check_plan(committed: &CommittedOffset) {
    let place = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    let limits = BatchLimits { max_rows: 1, max_bytes: 1 };
    let mut buffer = PartitionBuffer::open(place, Some(committed), limits);
    let from = committed.offset;
    for offset in from..from + 4 {
        buffer.push(&record(place, offset), NOW_MS);
    }
    match number_after::<u64>("to=", &committed.metadata) {
        Some(to) if (from + 1..=from + 4).contains(&to) => {
            assert_eq!(buffer.plan(NOW_MS), None, "a plan that is written down is written again");
            let batch = buffer.begin().map(|batch| (batch.from, batch.to));
            assert_eq!(batch, Some((from, to)), "another batch than the one that was planned");
            assert!(buffer.is_repeated());
        }
        Some(to) if to > from => {
            assert!(buffer.due_since_ms(NOW_MS, 0).is_none() && buffer.begin().is_none(), "its plan is not whole yet");
        }
        // Signs and zeros in front are read, too, but never written.
        None if committed.metadata.starts_with("to=") => {}
        _ => {
            let metadata = format!("to={}", from + 1);
            assert_eq!(buffer.plan(NOW_MS), Some(CommittedOffset { offset: from, metadata }));
        }
    }
}

fn record(place: TopicPartition, offset: u64) -> Record {
    Record {
        topic: place.topic,
        partition: place.partition,
        offset,
        timestamp_ms: 0,
        key: Bytes::from_static(b"k"),
        value: None,
        headers: Headers::new(),
    }
}

/// The newest time of arrival is remembered, and what is restored reaches back beyond it.
fn check_refine(committed: &CommittedOffset) {
    let stage = Refine::new(RefineConfig::default());
    let place = TopicPartition { topic: Topic::RawBehavior, partition: 0 };
    let received_ms = number_after::<i64>("received=", &committed.metadata);
    for part in stage.restore_plan(place, Some(committed)) {
        if let (Restore::Since(_, since_ms), Some(received_ms)) = (part, received_ms) {
            assert!(since_ms <= received_ms, "from {since_ms} on, where the newest came at {received_ms}");
        }
    }
    let again = committed_again(&stage, place, committed);
    if received_ms.is_some() {
        assert_eq!(again.as_ref(), Some(&committed.metadata), "the time of arrival is another");
    }
}

/// The watermark goes on where it was.
fn check_partial(committed: &CommittedOffset) {
    let stage = MetricsPartial::new(PartialConfig::default());
    let place = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    let again = committed_again(&stage, place, committed);
    let Some((idle, newest)) = committed.metadata.split_once(',') else { return };
    let newest_ms = number_after::<i64>("newest=", newest);
    if matches!(idle, "idle=0" | "idle=1") && (newest_ms.is_some() || newest == "newest=") {
        assert_eq!(again.as_ref(), Some(&committed.metadata), "the watermark is another");
        let watermark_ms = stage.open(place, Some(committed), None).ok().and_then(|task| stage.watermark_ms(&task));
        assert_eq!(watermark_ms, newest_ms.map(|ms| ms.saturating_sub(30_000)));
    }
}

/// What a task that was opened with this metadata writes down when nothing has happened. It reads it as the same again.
fn committed_again<S: Stage>(stage: &S, place: TopicPartition, committed: &CommittedOffset) -> Option<String> {
    let prepared = |committed: &CommittedOffset| {
        let mut task = stage.open(place, Some(committed), None).ok()?;
        stage.prepare_commit(&mut task, Some(committed.offset), NOW_MS, &mut Outputs::default())
    };
    let once = prepared(committed)?;
    assert_eq!(once.offset, committed.offset);
    assert_eq!(prepared(&once).as_ref(), Some(&once), "{:?} is written as another", committed.metadata);
    Some(once.metadata)
}
