//! Both metric stages on Kafka.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::DefinitionText;
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Grain, WindowUpsert};
use rdkafka::message::Message as _;
use serde::Deserialize;

use super::events::{self, HOT_CAMPAIGN, Spread};
use super::ingest::per_second;
use super::scratch::Scratch;
use super::usage::{Meter, Used, peak_rss_mb};
use super::{Figure, refine};
use crate::settings::Settings;

const COUNT: &str = r#"{"source":"campaign","aggregation":"count","dimensions":["kind","campaign"]}"#;
const SUM: &str = r#"{"source":"campaign","value":"value","aggregation":"sum","dimensions":["kind","campaign"]}"#;

/// What the stages work on.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub spread: Spread,
    pub events: u64,
    /// All built-in metrics instead of a count and a sum.
    pub builtin: bool,
}

/// What the stages used, and whether what they made of it is right.
pub struct Outcome {
    pub used: Used,
    pub peak_rss_mb: Option<f64>,
    /// Records between the two stages: what events were combined to.
    pub partials: u64,
    pub right: bool,
}

pub async fn run(settings: &Settings, events: u64, builtin: bool) -> anyhow::Result<Figure> {
    let load = Load { spread: Spread::Few, events, builtin };
    let (scratch, outcome) = measure(settings, load, 1).await?;
    let limit = tokio::task::spawn_blocking(move || bare(&scratch, events)).await??;
    let name = if builtin { "metrics --builtin" } else { "metrics" };
    Ok(outcome.figure(name, events).against(limit))
}

impl Outcome {
    pub fn figure(&self, bench: &str, events: u64) -> Figure {
        Figure {
            bench: bench.to_owned(),
            value: per_second(events, self.used.cpu),
            unit: "events/CPU-s",
            events_per_second: Some(per_second(events, self.used.wall)),
            peak_rss_mb: self.peak_rss_mb,
            right: self.right,
            ..Figure::default()
        }
    }
}

/// Refines the events on topics of their own, and then counts them with so many workers of each stage.
pub async fn measure(settings: &Settings, load: Load, workers: usize) -> anyhow::Result<(Scratch, Outcome)> {
    let scratch = Scratch::new(settings).await?;
    tokio::task::spawn_blocking(move || {
        refine::load(&scratch, load.spread, load.events)?;
        refine::refine(&scratch, load.events)?;
        if !load.builtin {
            define(&scratch)?;
        }
        let meter = Meter::this_process()?;
        work(&scratch, load, workers)?;
        let used = meter.used()?;
        let peak_rss_mb = peak_rss_mb(std::process::id());
        let right = is_right(&scratch, load)?;
        let mut partials = 0;
        scratch.read(Topic::MetricsPartials, |_| partials += 1)?;
        Ok((scratch, Outcome { used, peak_rss_mb, partials, right }))
    })
    .await?
}

fn define(scratch: &Scratch) -> anyhow::Result<()> {
    let producer = scratch.producer()?;
    for (name, text) in [("counts", COUNT), ("sums", SUM)] {
        scratch.produce(&producer, &[definition(name, text)?])?;
    }
    scratch.flush(&producer)
}

/// A record of `control`.
pub fn definition(name: &str, text: &str) -> anyhow::Result<NewRecord> {
    let record = DefinitionRecord {
        workspace: events::WORKSPACE.to_owned(),
        name: name.to_owned(),
        revision: 1,
        definition: Some(serde_json::from_str::<DefinitionText>(text)?),
        updated_at: 0,
    };
    Ok(NewRecord {
        topic: Topic::Control,
        partition: Some(0),
        key: record.key().into(),
        value: Some(serde_json::to_vec(&record)?.into()),
        headers: Headers::new(),
        timestamp_ms: 0,
    })
}

/// So many workers of each stage, all at once.
fn work(scratch: &Scratch, load: Load, workers: usize) -> anyhow::Result<()> {
    // Windows of the longest cadence go out after five seconds.
    let quiet = Duration::from_secs(if load.builtin { 6 } else { 1 });
    let (partials, merges) = (Crew::of(workers), Crew::of(workers));
    // A rebalance makes records come again, so that enough of them is not the end: it is when no more come.
    let are_combined = || partials.records() >= load.events && partials.quiet() > Duration::from_secs(1);
    std::thread::scope(|scope| {
        let (partials, merges, are_combined) = (&partials, &merges, &are_combined);
        let mut threads = Vec::new();
        for number in 0..workers {
            threads.push(named("metrics.merge").spawn_scoped(scope, move || {
                let config = MergeConfig { partitions: scratch.partitions, ..MergeConfig::default() };
                let merge = || MetricsMerge::new(config.clone()).map_err(anyhow::Error::from);
                scratch.run_stage(merge, "metrics-merge", &number.to_string(), |records, quiet_for| {
                    merges.note(number, records, quiet_for);
                    are_combined() && merges.quiet() > quiet
                })
            })?);
            threads.push(named("metrics.partial").spawn_scoped(scope, move || {
                let config = PartialConfig {
                    partials_partitions: scratch.partitions,
                    has_built_in_metrics: load.builtin,
                    ..PartialConfig::default()
                };
                let partial = || Ok(MetricsPartial::new(config));
                // Heartbeats of refine come beside the events.
                scratch.run_stage(partial, "metrics-partial", &number.to_string(), |records, quiet_for| {
                    partials.note(number, records, quiet_for);
                    are_combined()
                })
            })?);
        }
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a stage panicked"))??;
        }
        Ok(())
    })
}

/// How far the workers of a stage are, by worker. They end together: one that went before would hand its partitions to the
/// others, which had to begin with them.
struct Crew(Vec<(AtomicU64, AtomicU64)>);

impl Crew {
    fn of(workers: usize) -> Self {
        Self((0..workers).map(|_| Default::default()).collect())
    }

    fn note(&self, worker: usize, records: u64, quiet: Duration) {
        let (taken, quiet_ms) = &self.0[worker];
        taken.store(records, Ordering::Relaxed);
        quiet_ms.store(u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn records(&self) -> u64 {
        self.0.iter().map(|(taken, _)| taken.load(Ordering::Relaxed)).sum()
    }

    /// For how long all of them have had nothing to do.
    fn quiet(&self) -> Duration {
        let quiet_ms = self.0.iter().map(|(_, quiet_ms)| quiet_ms.load(Ordering::Relaxed));
        Duration::from_millis(quiet_ms.min().unwrap_or_default())
    }
}

/// A thread that profilers call by its stage.
fn named(stage: &str) -> std::thread::Builder {
    std::thread::Builder::new().name(stage.to_owned())
}

fn is_right(scratch: &Scratch, load: Load) -> anyhow::Result<bool> {
    let mut newest: HashMap<Vec<u8>, WindowUpsert> = HashMap::new();
    scratch.read(Topic::MetricsWindows, |record| {
        let upsert = record.value.as_deref().and_then(|value| WindowUpsert::decode(value).ok());
        if let Some(upsert) = upsert.filter(|upsert| upsert.grain == Grain::Minute) {
            newest.insert(record.key.to_vec(), upsert);
        }
    })?;
    let of = |metric: &str| newest.values().filter(|upsert| upsert.key.metric == metric).collect::<Vec<_>>();
    let count = |metric: &str| of(metric).iter().map(|upsert| upsert.state.count).sum::<u64>();
    let sum = |metric: &str| of(metric).iter().map(|upsert| upsert.state.sum.raw()).sum::<i128>();
    if load.spread == Spread::Skewed {
        let is_hot = |upsert: &&&WindowUpsert| upsert.key.dimensions.values().any(|value| value == HOT_CAMPAIGN);
        let of_hot: u64 = of("counts").iter().filter(is_hot).map(|upsert| upsert.state.count).sum();
        if of_hot != load.events.div_ceil(2) {
            return Ok(false);
        }
    }
    let (counts, sums, expected) = if load.builtin {
        (count("impressions"), sum("revenue"), events::impressions(load.events))
    } else {
        (count("counts"), sum("sums"), load.events)
    };
    Ok(counts == expected && sums == events::revenue_micros(load.events))
}

#[derive(Deserialize)]
struct BareEvent<'a> {
    kind: &'a str,
    campaign: &'a str,
    timestamp: &'a str,
    value: Option<&'a str>,
}

/// Events per CPU second of a consumer, a parser and a hash map on one thread, with nothing committed.
fn bare(scratch: &Scratch, events: u64) -> anyhow::Result<f64> {
    let consumer = scratch.consumer(Topic::EventsCampaign)?;
    let meter = Meter::this_process()?;
    let mut windows: HashMap<(String, String, String), (u64, f64)> = HashMap::new();
    let mut taken = 0;
    while taken < events {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        // Heartbeats have no campaign.
        let Ok(event) = serde_json::from_slice::<BareEvent<'_>>(message.payload().unwrap_or_default()) else {
            continue;
        };
        let minute = event.timestamp.get(..16).unwrap_or_default();
        let place = (event.kind.to_owned(), event.campaign.to_owned(), minute.to_owned());
        let window = windows.entry(place).or_default();
        window.0 += 1;
        window.1 += event.value.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        taken += 1;
    }
    let used = meter.used()?;
    anyhow::ensure!(windows.values().map(|window| window.0).sum::<u64>() == events, "the limit counts wrongly");
    Ok(per_second(events, used.cpu))
}
