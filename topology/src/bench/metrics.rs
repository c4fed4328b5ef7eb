//! Both metric stages on Kafka.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::DefinitionText;
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::{Grain, WindowUpsert};
use rdkafka::message::Message as _;
use serde::Deserialize;

use super::ingest::per_second;
use super::scratch::Scratch;
use super::usage::{Meter, peak_rss_mb};
use super::{Figure, events, refine};
use crate::settings::Settings;

const COUNT: &str = r#"{"source":"campaign","aggregation":"count","dimensions":["kind","campaign"]}"#;
const SUM: &str = r#"{"source":"campaign","value":"value","aggregation":"sum","dimensions":["kind","campaign"]}"#;

pub async fn run(settings: &Settings, events: u64, builtin: bool) -> anyhow::Result<Figure> {
    let scratch = Scratch::new(settings).await?;
    tokio::task::spawn_blocking(move || measure(&scratch, events, builtin)).await?
}

fn measure(scratch: &Scratch, events: u64, builtin: bool) -> anyhow::Result<Figure> {
    refine::load(scratch, events)?;
    refine::refine(scratch, events)?;
    if !builtin {
        define(scratch)?;
    }
    let meter = Meter::this_process()?;
    work(scratch, events, builtin)?;
    let used = meter.used()?;
    let peak = peak_rss_mb(std::process::id());
    let right = is_right(scratch, events, builtin)?;
    let limit = bare(scratch, events)?;
    let figure = Figure {
        bench: if builtin { "metrics --builtin" } else { "metrics" }.to_owned(),
        value: per_second(events, used.cpu),
        unit: "events/CPU-s",
        events_per_second: Some(per_second(events, used.wall)),
        peak_rss_mb: peak,
        right,
        ..Figure::default()
    };
    Ok(figure.against(limit))
}

fn define(scratch: &Scratch) -> anyhow::Result<()> {
    let producer = scratch.producer()?;
    for (name, text) in [("counts", COUNT), ("sums", SUM)] {
        let record = DefinitionRecord {
            workspace: events::WORKSPACE.to_owned(),
            name: name.to_owned(),
            revision: 1,
            definition: Some(serde_json::from_str::<DefinitionText>(text)?),
            updated_at: 0,
        };
        let record = NewRecord {
            topic: Topic::Control,
            partition: Some(0),
            key: record.key().into(),
            value: Some(serde_json::to_vec(&record)?.into()),
            headers: Headers::new(),
            timestamp_ms: 0,
        };
        scratch.produce(&producer, &[record])?;
    }
    scratch.flush(&producer)
}

/// One worker of each stage, both at once.
fn work(scratch: &Scratch, events: u64, builtin: bool) -> anyhow::Result<()> {
    let partial_config = PartialConfig {
        partials_partitions: scratch.partitions,
        has_built_in_metrics: builtin,
        ..PartialConfig::default()
    };
    let merge = MetricsMerge::new(MergeConfig { partitions: scratch.partitions, ..MergeConfig::default() })
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let is_counted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merging = scope.spawn(|| {
            // Windows of the longest cadence go out after five seconds.
            let quiet = Duration::from_secs(if builtin { 6 } else { 1 });
            scratch.run_stage(merge, "metrics-merge", "0", |_, idle| is_counted.load(Ordering::Relaxed) && idle > quiet)
        });
        let partial = MetricsPartial::new(partial_config);
        // Heartbeats of refine come beside the events.
        let counted = scratch.run_stage(partial, "metrics-partial", "0", |records, idle| {
            records >= events && idle > Duration::from_millis(300)
        });
        is_counted.store(true, Ordering::Relaxed);
        counted?;
        merging.join().map_err(|_| anyhow::anyhow!("the merge stage panicked"))??;
        Ok(())
    })
}

fn is_right(scratch: &Scratch, events: u64, builtin: bool) -> anyhow::Result<bool> {
    let mut newest: HashMap<Vec<u8>, WindowUpsert> = HashMap::new();
    scratch.read(Topic::MetricsWindows, |record| {
        let upsert = record.value.as_deref().and_then(|value| serde_json::from_slice::<WindowUpsert>(value).ok());
        if let Some(upsert) = upsert.filter(|upsert| upsert.grain == Grain::Minute) {
            newest.insert(record.key.to_vec(), upsert);
        }
    })?;
    let of = |metric: &str| newest.values().filter(|upsert| upsert.key.metric == metric).collect::<Vec<_>>();
    let count = |metric: &str| of(metric).iter().map(|upsert| upsert.state.count).sum::<u64>();
    let sum = |metric: &str| of(metric).iter().map(|upsert| upsert.state.sum.raw()).sum::<i128>();
    let (counts, sums, expected) = if builtin {
        (count("impressions"), sum("revenue"), events::impressions(events))
    } else {
        (count("counts"), sum("sums"), events)
    };
    Ok(counts == expected && sums == events::revenue_micros(events))
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
