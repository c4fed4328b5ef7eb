//! More message ids within the dedup window than memory may hold: what the local state costs refine against all in memory.

use std::path::Path;

use neonhub_processors::engine::{LocalState, StateStores as _};
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::event::{Envelope, Kind};
use neonhub_schemas::record::{NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;

use super::Figure;
use super::children::bench_apart;
use super::memory::BEGIN_S;
use super::spill::{CACHE_BYTES, disk_mb};
use super::stepper::Stepper;
use super::usage::{Meter, peak_rss_mb};
use crate::embedded::state::TreeStates;

const PLACE: TopicPartition = TopicPartition { topic: Topic::RawCampaign, partition: 0 };
/// All messages are received within it, so that none is ever forgotten.
const WINDOW_MS: u64 = 3_600_000;
/// One event in so many is a message that came before, at any time within the window.
const RETRIES: u64 = 20;
/// Events between two commits, as of a partition that has about 5,000 a second.
const COMMIT: u64 = 500;
const PEOPLE: u64 = 100_000;

/// A figure of events a CPU second; the limit has as many, all in memory, in a process of its own.
pub fn run(messages: u64, memory_mb: usize) -> anyhow::Result<Figure> {
    let in_memory = bench_apart(&["spill-refine-in-memory", &messages.to_string()])?;
    anyhow::ensure!(in_memory["right"] == true, "bench spill-refine-in-memory is wrong: {in_memory}");
    let number = |name: &str| in_memory[name].as_f64().ok_or_else(|| anyhow::anyhow!("no {name} in {in_memory}"));
    let folder = tempfile::tempdir()?;
    let mut figure = of(messages, Some((folder.path(), memory_mb)))?.against(number("value")?);
    figure.details.insert("disk_mb", disk_mb(folder.path())?);
    figure.details.insert("in_memory_peak_mb", number("peak_rss_mb")?);
    figure.details.insert("in_memory_state_mb", number("state_mb")?);
    Ok(figure)
}

/// Refines messages and their retries; `local`: the folder of the local state, and the memory that the state may take.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn of(messages: u64, local: Option<(&Path, usize)>) -> anyhow::Result<Figure> {
    let config = RefineConfig {
        memory_per_partition: local.map_or(usize::MAX, |(_, memory_mb)| memory_mb << 20),
        ..RefineConfig::default()
    };
    let local = match local {
        Some((folder, _)) => {
            let store = TreeStates::new(folder.to_path_buf(), CACHE_BYTES)?.open("bench", PLACE)?;
            Some(LocalState::empty(store)?)
        }
        None => None,
    };
    let mut refine = Stepper::with_local(Refine::new(config), Topic::RawCampaign, local)?;
    let (mut events, mut retries, mut refined, mut state_bytes) = (0_u64, 0, 0, 0);
    let meter = Meter::this_process()?;
    for message in 0..messages {
        let received_ms = BEGIN_S * 1_000 + i64::try_from(message * WINDOW_MS / messages)?;
        refine.process(record(message, received_ms), received_ms);
        events += 1;
        if message % (RETRIES - 1) == 7 {
            // Spread over all that came before (by the golden ratio).
            let former = (message.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16) % (message + 1);
            refine.process(record(former, received_ms), received_ms);
            events += 1;
            retries += 1;
        }
        if message % COMMIT == COMMIT - 1 || message + 1 == messages {
            refined += refine.commit(received_ms)?.len() as u64;
            state_bytes = state_bytes.max(refine.state_size().1);
        }
    }
    let used = meter.used()?;
    Ok(Figure {
        bench: "spill-refine".to_owned(),
        value: (events as f64 / used.cpu).round(),
        unit: "events/CPU-s",
        events_per_second: Some((events as f64 / used.wall).round()),
        peak_rss_mb: peak_rss_mb(std::process::id()),
        details: [("messages", messages as f64), ("retries", retries as f64), ("state_mb", (state_bytes >> 20) as f64)]
            .into(),
        // As many came out as there are messages, so that each retry was dropped if nothing else was.
        right: refined == messages && refine.duplicates == retries,
        ..Figure::default()
    })
}

fn record(message: u64, received_ms: i64) -> NewRecord {
    let event = Envelope {
        workspace: "bench".into(),
        message_id: format!("bench-{message:012}").into(),
        kind: Kind::Impression,
        name: "impression".into(),
        // A retry is of the same person.
        anonymous_id: Some(format!("person-{:06}", message.wrapping_mul(7) % PEOPLE).into()),
        campaign: Some("campaign-1".into()),
        timestamp_ms: received_ms,
        received_at_ms: received_ms,
        properties: "{}".into(),
        context: "{}".into(),
        user_id: None,
        group_id: None,
        previous_id: None,
        session_id: None,
        platform: None,
        value: None,
    };
    event.to_raw_record()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_dropped_whether_their_messages_are_in_memory_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = of(200_000, Some((folder.path(), 1))).unwrap();
        let in_memory = of(200_000, None).unwrap();
        assert!(spilled.right && in_memory.right, "{spilled} {in_memory}");
        println!("{spilled}\n{in_memory}");
        assert!(spilled.details["state_mb"] <= 1.0 && in_memory.details["state_mb"] >= 2.0, "{spilled} {in_memory}");
        assert!(disk_mb(folder.path()).unwrap() > 0.0);
    }
}
