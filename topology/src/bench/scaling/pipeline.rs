//! Both metric stages, every partition of them stepped on one thread.

use neonhub_processors::engine::Stage as _;
use neonhub_processors::metrics::{MergeConfig, MetricsMerge, MetricsPartial, PartialConfig};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::{Topic, partition_for};
use neonhub_schemas::window::{Grain, WindowUpsert};

use super::microseconds;
use crate::bench::events;
use crate::bench::metrics::definition;
use crate::bench::stepper::{Stepper, as_record};
use crate::bench::usage::thread_cpu_seconds;

const SUM: &str = r#"{"source":"campaign","value":"value","aggregation":"sum","dimensions":["campaign"]}"#;
/// 2026-02-03T00:00:00Z.
const BEGIN_MS: i64 = 1_770_076_800_000;
/// Events come at this rate: a commit with ten times the events is ten times as late.
const COMMIT_MS: i64 = 100;

/// What the stages work on.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub keys: u64,
    pub definitions: u64,
    pub partitions: u64,
    /// Of all partitions together.
    pub events_a_commit: u64,
}

/// Of one event.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    pub partial_us: f64,
    pub merge_us: f64,
    pub partials_per_event: f64,
    pub upserts_per_event: f64,
}

pub struct Pipeline {
    load: Load,
    partials: Vec<Stepper<MetricsPartial>>,
    merges: Vec<Stepper<MetricsMerge>>,
    /// By record key, of the first metric's months.
    counted: std::collections::HashMap<bytes::Bytes, u64>,
    upserts: u64,
}

impl Pipeline {
    pub fn new(load: Load) -> anyhow::Result<Self> {
        let partitions = u32::try_from(load.partitions)?;
        let mut partials = Vec::new();
        let mut merges = Vec::new();
        for _ in 0..partitions {
            let mut stage = MetricsPartial::new(PartialConfig {
                partials_partitions: partitions,
                has_built_in_metrics: false,
                ..PartialConfig::default()
            });
            for number in 0..load.definitions {
                let record = definition(&format!("metric_{number}"), SUM)?;
                stage.observe_global(&as_record(record, Topic::Control, number));
            }
            partials.push(Stepper::new(stage, Topic::EventsCampaign)?);
            let config = MergeConfig { partitions, max_keys: u32::MAX, ..MergeConfig::default() };
            merges.push(Stepper::new(MetricsMerge::new(config)?, Topic::MetricsPartials)?);
        }
        Ok(Self { load, partials, merges, counted: std::collections::HashMap::new(), upserts: 0 })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub fn run(&mut self, events: u64) -> anyhow::Result<Costs> {
        let (mut partial_cpu, mut merge_cpu, mut partials) = (0.0, 0.0, 0);
        let mut now_ms = BEGIN_MS;
        let mut next = 0;
        while next < events {
            let end = (next + self.load.events_a_commit).min(events);
            let records: Vec<NewRecord> = (next..end).map(|number| self.event(number, now_ms)).collect();
            next = end;
            now_ms += COMMIT_MS;
            let began = thread_cpu_seconds();
            for (record, number) in records.into_iter().zip(0_usize..) {
                let partition = number % self.partials.len();
                self.partials[partition].process(record, now_ms);
            }
            let mut deltas = Vec::new();
            for partial in &mut self.partials {
                deltas.extend(partial.commit(now_ms)?);
            }
            partial_cpu += thread_cpu_seconds() - began;
            partials += deltas.len() as u64;
            let began = thread_cpu_seconds();
            let mut upserts = Vec::new();
            for record in deltas.into_iter().filter(|record| record.topic == Topic::MetricsPartials) {
                let partition = record
                    .partition
                    .unwrap_or_else(|| partition_for(&record.key, u32::try_from(self.merges.len()).unwrap_or(1)));
                self.merges[partition as usize].process(record, now_ms);
            }
            for merge in &mut self.merges {
                upserts.extend(merge.commit(now_ms)?);
            }
            merge_cpu += thread_cpu_seconds() - began;
            self.count(upserts)?;
        }
        // Beyond the longest cadence; the windows may be too many for one commit.
        now_ms += 10_000;
        let began = thread_cpu_seconds();
        let mut upserts = Vec::new();
        for merge in &mut self.merges {
            while merge.has_to_commit(now_ms) {
                upserts.extend(merge.commit(now_ms)?);
            }
        }
        merge_cpu += thread_cpu_seconds() - began;
        self.count(upserts)?;
        Ok(Costs {
            partial_us: microseconds(partial_cpu, events),
            merge_us: microseconds(merge_cpu, events),
            partials_per_event: partials as f64 / events as f64,
            upserts_per_event: self.upserts as f64 / events as f64,
        })
    }

    fn event(&self, number: u64, now_ms: i64) -> NewRecord {
        // Neighbours have other keys; every key comes as often as any other.
        let campaign = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % self.load.keys;
        NewRecord {
            topic: Topic::EventsCampaign,
            partition: None,
            key: format!("{}|{campaign}", events::WORKSPACE).into(),
            value: Some(events::refined(number, campaign, now_ms).into()),
            headers: Headers::new(),
            timestamp_ms: now_ms,
        }
    }

    fn count(&mut self, upserts: Vec<NewRecord>) -> anyhow::Result<()> {
        self.upserts += upserts.len() as u64;
        upserts.iter().try_for_each(|record| note(record, &mut self.counted))
    }

    /// Whether the first metric has counted every event once.
    pub fn is_right(&self, events: u64) -> bool {
        self.counted.values().sum::<u64>() == events
    }
}

fn note(record: &NewRecord, counted: &mut std::collections::HashMap<bytes::Bytes, u64>) -> anyhow::Result<()> {
    const FIRST_METRIC: &[u8] = b"bench|metric_0|";
    let Some(value) = record.value.as_ref().filter(|_| record.key.starts_with(FIRST_METRIC)) else { return Ok(()) };
    let upsert = WindowUpsert::decode(value)?;
    if upsert.grain == Grain::Month {
        counted.insert(record.key.clone(), upsert.state.count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_counts_once_however_the_load_is_cut() {
        for (keys, definitions, partitions, events_a_commit) in
            [(7, 1, 1, 10), (50, 3, 4, 1_000), (5, 2, 3, 1), (20_000, 1, 1, 20_000)]
        {
            let load = Load { keys, definitions, partitions, events_a_commit };
            let events = events_a_commit.max(500);
            let mut pipeline = Pipeline::new(load).unwrap();
            let costs = pipeline.run(events).unwrap();
            assert!(pipeline.is_right(events), "{load:?}");
            assert!(costs.partials_per_event > 0.0 && costs.upserts_per_event > 0.0);
        }
    }
}
