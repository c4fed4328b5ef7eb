//! What a live window of the merge stage weighs, by what the process has resident; and whether a week of traffic, under a
//! virtual clock, leaves anything behind.

use std::collections::HashMap;

use clap::ValueEnum as _;
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_schemas::Micros;
use neonhub_schemas::metric::MetricKey;
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Aggregate, Delta, Grain, Partial, PartialHeader, Sample, WindowState, WindowUpsert};

use super::children::bench_apart;
use super::metrics::definition;
use super::stepper::{Stepper, as_record};
use super::usage::{peak_rss_mb, resident_bytes};
use super::{Figure, events};

/// What is wanted.
const BYTES_WANTED: f64 = 200.0;
/// A quarter of an hour of minutes, and the window of each longer grain.
pub const WINDOWS_A_KEY: u64 = 15 + 5;
/// 2026-02-03T00:00:00Z.
pub const BEGIN_S: i64 = 1_770_076_800;
const KEYS_A_METRIC: u64 = 5_000;
const SPARSE_SAMPLES: u64 = 3;
const UNIT: &str = "B/window";

/// What the windows hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Content {
    /// Count, sum, minimum and maximum.
    Numbers,
    /// Three distinct values.
    Uniques,
    /// Three numbers and their distribution.
    Quantiles,
}

/// Each in a process of its own: what one leaves behind would count for the next.
pub fn run(windows: u64, days: u32) -> anyhow::Result<Figure> {
    let numbers = in_a_process(Content::Numbers, windows)?;
    let uniques = in_a_process(Content::Uniques, windows)?;
    let quantiles = in_a_process(Content::Quantiles, windows)?;
    let week = week(days)?;
    let mut figure = Figure { bench: "memory".to_owned(), right: week.right, ..numbers.clone() }.against(BYTES_WANTED);
    figure.details.insert("uniques_of_3_bytes", uniques.value);
    figure.details.insert("quantiles_of_3_bytes", quantiles.value);
    figure.details.insert("state_says_bytes", numbers.details.get("state_says_bytes").copied().unwrap_or(0.0));
    figure.details.insert("week_resident_growth", week.growth);
    figure.details.insert("week_windows_growth", week.entries_growth);
    Ok(figure)
}

fn in_a_process(content: Content, windows: u64) -> anyhow::Result<Figure> {
    let content = content.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    let answer = bench_apart(&["memory-of", &content, &windows.to_string()])?;
    let number = |name: &str| answer[name].as_f64();
    Ok(Figure {
        value: number("value").unwrap_or(f64::NAN),
        unit: UNIT,
        peak_rss_mb: number("peak_rss_mb"),
        details: [("state_says_bytes", number("state_says_bytes").unwrap_or(f64::NAN))].into(),
        ..Figure::default()
    })
}

/// Bytes of a window with such content, in this process.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn of(content: Content, windows: u64) -> anyhow::Result<Figure> {
    let samples = |key, minute| -> Vec<Sample> {
        let number = |index| Micros::from_raw(i128::from(hash(key, minute, index) % 10_000_000_000));
        match content {
            Content::Numbers => vec![Sample::Number(number(0))],
            Content::Uniques => (0..SPARSE_SAMPLES).map(|index| Sample::Distinct(hash(key, minute, index))).collect(),
            Content::Quantiles => (0..SPARSE_SAMPLES).map(|index| Sample::Distribution(number(index))).collect(),
        }
    };
    let before = resident_bytes()?;
    let merge = filled(windows / WINDOWS_A_KEY, &samples)?;
    let bytes = resident_bytes()? - before;
    let (entries, estimated) = merge.state_size();
    Ok(Figure {
        bench: "memory-of".to_owned(),
        value: bytes / entries as f64,
        unit: UNIT,
        peak_rss_mb: peak_rss_mb(std::process::id()),
        details: [("state_says_bytes", estimated as f64 / entries as f64)].into(),
        right: entries as u64 == windows / WINDOWS_A_KEY * WINDOWS_A_KEY,
        ..Figure::default()
    })
}

fn hash(key: u64, minute: u64, index: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&minute.to_le_bytes());
    bytes[16..].copy_from_slice(&index.to_le_bytes());
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

/// The quarter of an hour that `begin_s` begins, of one key: a record of `metrics.partials`.
pub fn partial(key: u64, begin_s: i64, samples: &dyn Fn(u64, u64) -> Vec<Sample>) -> anyhow::Result<NewRecord> {
    // None meets the limit of keys in a window.
    let dimensions =
        [("campaign".to_owned(), format!("campaign-{}", key % KEYS_A_METRIC)), ("kind".to_owned(), "click".to_owned())];
    let metric_key = MetricKey {
        workspace: events::WORKSPACE.to_owned(),
        metric: format!("metric_{}", key / KEYS_A_METRIC),
        series: 1,
        dimensions: dimensions.into(),
    };
    let mut deltas = Vec::new();
    for minute in 0..15 {
        let mut aggregate = Aggregate::default();
        for sample in samples(key, minute) {
            aggregate.add(sample)?;
        }
        let minute = begin_s + i64::try_from(minute)? * 60;
        deltas.push(Delta { minute, state: WindowState::of(&aggregate) });
    }
    // Without a watermark no window ends.
    let topic = Topic::EventsCampaign.name().to_owned();
    let upstream = PartialHeader { topic, partition: 0, watermark_ms: None, idle: false };
    let text = metric_key.to_text();
    Ok(record(text, &Partial { upstream, key: Some(metric_key), deltas }))
}

/// Every event before this has been seen: a record of `metrics.partials`.
pub fn watermark(second: i64) -> NewRecord {
    let topic = Topic::EventsCampaign.name().to_owned();
    let upstream = PartialHeader { topic, partition: 0, watermark_ms: Some(second * 1_000), idle: false };
    record("watermark".to_owned(), &Partial { upstream, key: None, deltas: Vec::new() })
}

fn record(key: String, partial: &Partial) -> NewRecord {
    NewRecord {
        topic: Topic::MetricsPartials,
        partition: None,
        key: key.into(),
        value: Some(partial.encode().into()),
        headers: Headers::new(),
        timestamp_ms: crate::clock::now_ms(),
    }
}

/// A merge stage with so many keys in one partition, all windows put out.
fn filled(keys: u64, samples: &dyn Fn(u64, u64) -> Vec<Sample>) -> anyhow::Result<Stepper<MetricsMerge>> {
    let config = MergeConfig { partitions: 1, max_keys: u32::MAX, ..MergeConfig::default() };
    let mut merge = Stepper::new(MetricsMerge::new(config)?, Topic::MetricsPartials)?;
    let mut now_ms = BEGIN_S * 1_000;
    for key in 0..keys {
        merge.process(partial(key, BEGIN_S, samples)?, now_ms);
        if key % 100 == 99 || key == keys - 1 {
            // Beyond the longest cadence, so that nothing waits to be put out.
            now_ms += 6_000;
            drop(merge.commit(now_ms)?);
        }
    }
    Ok(merge)
}

struct Week {
    /// What the process has resident after the last day, by what it had after the second.
    growth: f64,
    entries_growth: f64,
    right: bool,
}

/// A thousand campaigns, each with an event every ten minutes, through both stages; a commit every ten seconds.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn week(days: u32) -> anyhow::Result<Week> {
    const KEYS: u64 = 1_000;
    const STEP_MS: i64 = 10_000;
    let mut stages = Stages::new()?;
    let mut posted = 0;
    let (mut resident, mut entries) = (Vec::new(), Vec::new());
    for day in 0..i64::from(days) {
        for step in 0..86_400_000 / STEP_MS {
            let now_ms = BEGIN_S * 1_000 + day * 86_400_000 + step * STEP_MS;
            // A sixtieth of the keys each step.
            let first = u64::try_from(step % 60)?;
            for key in (first..KEYS).step_by(60) {
                stages.post(posted, key, now_ms);
                posted += 1;
            }
            stages.commit(now_ms)?;
        }
        resident.push(resident_bytes()?);
        entries.push(stages.merge.state_size().0 as f64);
    }
    let growth = |samples: &[f64]| match (samples.get(1), samples.last()) {
        (Some(second), Some(last)) => last / second,
        _ => 1.0,
    };
    Ok(Week { growth: growth(&resident), entries_growth: growth(&entries), right: stages.counted() == posted })
}

/// Both stages, and what the minutes that came out add up to.
struct Stages {
    partial: Stepper<MetricsPartial>,
    merge: Stepper<MetricsMerge>,
    /// The newest count of each minute that is still in memory.
    live: HashMap<bytes::Bytes, u64>,
    forgotten: u64,
}

impl Stages {
    fn new() -> anyhow::Result<Self> {
        let config = PartialConfig { partials_partitions: 1, has_built_in_metrics: false, ..PartialConfig::default() };
        let mut partial = MetricsPartial::new(config);
        let of_aggregation = |aggregation: &str, value: &str| {
            format!(
                r#"{{"source":"campaign","aggregation":"{aggregation}","value":"{value}","dimensions":["campaign"]}}"#
            )
        };
        let definitions = [("amount", "sum", "value"), ("people", "uniques", "actor"), ("amounts", "p95", "value")];
        for (offset, (name, aggregation, value)) in (0..).zip(definitions) {
            let record = definition(name, &of_aggregation(aggregation, value))?;
            neonhub_processors::engine::Stage::observe_global(&mut partial, &as_record(record, Topic::Control, offset));
        }
        let merge = MetricsMerge::new(MergeConfig { partitions: 1, ..MergeConfig::default() })?;
        Ok(Self {
            partial: Stepper::new(partial, Topic::EventsCampaign)?,
            merge: Stepper::new(merge, Topic::MetricsPartials)?,
            live: HashMap::new(),
            forgotten: 0,
        })
    }

    fn post(&mut self, number: u64, key: u64, now_ms: i64) {
        let record = NewRecord {
            topic: Topic::EventsCampaign,
            partition: Some(0),
            key: format!("{}|{key}", events::WORKSPACE).into(),
            value: Some(events::refined(number, key, now_ms).into()),
            headers: Headers::new(),
            timestamp_ms: now_ms,
        };
        self.partial.process(record, now_ms);
    }

    fn commit(&mut self, now_ms: i64) -> anyhow::Result<()> {
        for record in self.partial.commit(now_ms)? {
            if record.topic == Topic::MetricsPartials {
                self.merge.process(record, now_ms);
            }
        }
        for record in self.merge.commit(now_ms)? {
            if record.topic != Topic::MetricsWindows {
                continue;
            }
            let Some(value) = &record.value else {
                self.forgotten += self.live.remove(&record.key).unwrap_or(0);
                continue;
            };
            let upsert = WindowUpsert::decode(value)?;
            if upsert.grain == Grain::Minute && upsert.key.metric == "amount" {
                self.live.insert(record.key, upsert.state.count);
            }
        }
        Ok(())
    }

    /// Events that some minute has counted.
    fn counted(&self) -> u64 {
        self.forgotten + self.live.values().sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_count_every_event_once_and_forget_old_minutes() {
        let mut stages = Stages::new().unwrap();
        for number in 0..300_u32 {
            let now_ms = BEGIN_S * 1_000 + i64::from(number) * 10_000;
            stages.post(u64::from(number), u64::from(number % 3), now_ms);
            stages.commit(now_ms).unwrap();
        }
        assert_eq!(stages.counted(), 300);
        assert!(stages.forgotten > 100, "{}", stages.forgotten);
    }

    #[test]
    fn a_key_has_twenty_windows() {
        let sample = |key, minute| vec![Sample::Distinct(hash(key, minute, 0))];
        assert_eq!(filled(50, &sample).unwrap().state_size().0 as u64, 50 * WINDOWS_A_KEY);
    }
}
