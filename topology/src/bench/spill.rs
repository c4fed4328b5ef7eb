//! Windows beyond the memory budget: what the local state costs against all in memory.

use std::path::Path;

use neonhub_processors::engine::{LocalState, StateStores as _};
use neonhub_processors::metrics::{MergeConfig, MetricsMerge};
use neonhub_schemas::Micros;
use neonhub_schemas::record::{NewRecord, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Sample, WindowUpsert};

use super::Figure;
use super::children::bench_apart;
use super::memory::{BEGIN_S, WINDOWS_A_KEY, partial, watermark};
use super::stepper::Stepper;
use super::usage::{Meter, peak_rss_mb};
use crate::embedded::state::TreeStates;

const PLACE: TopicPartition = TopicPartition { topic: Topic::MetricsPartials, partition: 0 };
pub const CACHE_BYTES: u64 = 16 << 20;
/// One key in so many gets a delta again when all are there, wherever its windows are by then.
const TOUCHED_AGAIN: u64 = 20;
/// Past the end and the grace of every window, months included.
const FAR_S: i64 = 100 * 86_400;

/// A figure of windows opened a CPU second; the limit has a tenth of them, all in memory, in a process of its own.
pub fn run(windows: u64, memory_mb: usize) -> anyhow::Result<Figure> {
    let in_memory = in_a_process(windows / 10)?;
    let folder = tempfile::tempdir()?;
    let mut figure = of(windows, Some((folder.path(), memory_mb)))?;
    figure.details.insert("disk_mb", disk_mb(folder.path())?);
    Ok(figure.against(in_memory))
}

fn in_a_process(windows: u64) -> anyhow::Result<f64> {
    let answer = bench_apart(&["spill-in-memory", &windows.to_string()])?;
    anyhow::ensure!(answer["right"] == true, "bench spill-in-memory is wrong: {answer}");
    answer["value"].as_f64().ok_or_else(|| anyhow::anyhow!("no value in {answer}"))
}

/// Opens windows, touches some of them again, lets them all become final and go; `local`: the folder of the local state, and
/// the memory that windows may take.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn of(windows: u64, local: Option<(&Path, usize)>) -> anyhow::Result<Figure> {
    let keys = windows / WINDOWS_A_KEY;
    let memory_per_partition = local.map_or(usize::MAX, |(_, memory_mb)| memory_mb << 20);
    let config = MergeConfig { partitions: 1, max_keys: u32::MAX, memory_per_partition, ..MergeConfig::default() };
    let local = match local {
        Some((folder, _)) => {
            let store = TreeStates::new(folder.to_path_buf(), CACHE_BYTES)?.open("bench", PLACE)?;
            Some(LocalState::empty(store)?)
        }
        None => None,
    };
    let mut merge = Stepper::with_local(MetricsMerge::new(config)?, Topic::MetricsPartials, local)?;
    let mut seen = Seen::default();
    let meter = Meter::this_process()?;
    let mut now_ms = BEGIN_S * 1_000;
    let again = (0..keys).filter(|key| key % TOUCHED_AGAIN == 7);
    for (turn, key) in (0..keys).chain(again).enumerate() {
        merge.process(partial(key, BEGIN_S, &one)?, now_ms);
        if turn % 100 == 99 {
            // Beyond the longest cadence, so that nothing waits to be put out.
            now_ms += 6_000;
            seen.take(merge.commit(now_ms)?)?;
        }
    }
    let opened = meter.used()?;
    merge.process(watermark(BEGIN_S + FAR_S), now_ms);
    while merge.has_to_commit(now_ms) || !seen.tombstones_are(keys * WINDOWS_A_KEY) {
        now_ms += 120_000;
        seen.take(merge.commit(now_ms)?)?;
        anyhow::ensure!(now_ms < (BEGIN_S + FAR_S) * 1_000, "{} windows never went", merge.state_size().0);
    }
    let whole = meter.used()?;
    let touched = (0..keys).filter(|key| key % TOUCHED_AGAIN == 7).count() as u64;
    // Every minute counts once in each of the six grains.
    let counted = (keys + touched) * 15 * 6;
    Ok(Figure {
        bench: "spill".to_owned(),
        value: (windows as f64 / opened.cpu).round(),
        unit: "windows/CPU-s",
        peak_rss_mb: peak_rss_mb(std::process::id()),
        details: [
            ("windows", windows as f64),
            ("windows_per_second", (windows as f64 / opened.wall).round()),
            ("seconds_to_final_and_gone", (whole.wall - opened.wall).round()),
        ]
        .into(),
        right: seen.final_count == counted,
        ..Figure::default()
    })
}

fn one(_key: u64, _minute: u64) -> Vec<Sample> {
    vec![Sample::Number(Micros::from_raw(1_000_000))]
}

/// What the stage put out.
#[derive(Default)]
struct Seen {
    /// Of the first revision that is final, each window once.
    final_count: u64,
    tombstones: u64,
}

impl Seen {
    fn take(&mut self, records: Vec<NewRecord>) -> anyhow::Result<()> {
        for record in records.iter().filter(|record| record.topic == Topic::MetricsWindows) {
            match &record.value {
                None => self.tombstones += 1,
                Some(value) => {
                    // Everything that is not final comes again as such.
                    let is_final = value.windows(12).any(|text| text == b"\"final\":true");
                    if is_final {
                        self.final_count += WindowUpsert::decode(value)?.state.count;
                    }
                }
            }
        }
        Ok(())
    }

    fn tombstones_are(&self, wanted: u64) -> bool {
        self.tombstones >= wanted
    }
}

#[expect(clippy::cast_precision_loss, reason = "megabytes far below 2^52")]
pub fn disk_mb(folder: &Path) -> anyhow::Result<f64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            match entry.metadata()? {
                about if about.is_dir() => folders.push(entry.path()),
                about => bytes += about.len(),
            }
        }
    }
    Ok((bytes >> 20) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_beyond_the_budget_come_back_become_final_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = of(40_000, Some((folder.path(), 1))).unwrap();
        assert!(spilled.right && of(4_000, None).unwrap().right);
    }
}
