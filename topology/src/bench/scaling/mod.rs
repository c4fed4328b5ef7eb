//! How the cost of an event grows: the stages by themselves, without a broker, on one thread, with more keys, definitions,
//! partitions and events a commit. Curves go into SVG files.

mod pipeline;
mod plot;

use std::path::Path;

use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept};
use neonhub_processors::landing::BlockBuilder;
use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::Envelope;
use neonhub_schemas::record::TopicPartition;
use neonhub_schemas::topics::Topic;

use self::pipeline::{Load, Pipeline};
use self::plot::{Curve, draw};
use super::Figure;
use super::events::{self, Spread};
use super::stepper::{Stepper, as_record};
use super::usage::thread_cpu_seconds;

/// Where the curves go, from where the bench is run.
pub const FOLDER: &str = "docs/scaling";

const BASE: Load = Load { keys: 1_000, definitions: 2, partitions: 4, events_a_commit: 1_000 };

/// A curve: what is varied, and the load with so much of it.
struct Sweep {
    file: &'static str,
    title: &'static str,
    axis: &'static str,
    values: &'static [u64],
    load: fn(u64) -> Load,
}

const SWEEPS: [Sweep; 4] = [
    Sweep {
        file: "keys",
        title: "Metrics: cost by keys",
        axis: "keys of each metric",
        values: &[10, 100, 1_000, 10_000, 100_000],
        load: |keys| Load { keys, ..BASE },
    },
    Sweep {
        file: "definitions",
        title: "Metrics: cost by definitions",
        axis: "definitions that an event counts for",
        values: &[1, 2, 5, 10, 20, 50],
        load: |definitions| Load { definitions, ..BASE },
    },
    Sweep {
        file: "partitions",
        title: "Metrics: cost by partitions",
        axis: "partitions of each topic",
        values: &[1, 4, 16, 64],
        load: |partitions| Load { partitions, ..BASE },
    },
    Sweep {
        file: "commit",
        title: "Metrics: cost by events a commit",
        axis: "events between two commits",
        values: &[100, 1_000, 10_000, 100_000],
        load: |events_a_commit| Load { events_a_commit, ..BASE },
    },
];

/// Measures everything and draws the curves into `folder`.
pub fn run(folder: &Path, events: u64) -> anyhow::Result<Figure> {
    std::fs::create_dir_all(folder)?;
    let mut figure = Figure { bench: "scaling".to_owned(), unit: "us/event", right: true, ..Figure::default() };
    for (role, cost) in
        [("accept", accept_cost(events)?), ("refine", refine_cost(events)?), ("rows", rows_cost(events)?)]
    {
        figure.details.insert(role, cost);
    }
    let mut report = Vec::new();
    for sweep in &SWEEPS {
        let mut curves = [Curve::named("metrics.partial"), Curve::named("metrics.merge")];
        for value in sweep.values {
            let mut pipeline = Pipeline::new((sweep.load)(*value))?;
            let costs = pipeline.run(events)?;
            figure.right &= pipeline.is_right(events);
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            for (curve, cost) in curves.iter_mut().zip([costs.partial_us, costs.merge_us]) {
                curve.points.push((*value as f64, cost));
            }
            report.push(serde_json::json!({
                "sweep": sweep.file, "value": value,
                "partial_us": costs.partial_us, "merge_us": costs.merge_us,
                "partials_per_event": costs.partials_per_event, "upserts_per_event": costs.upserts_per_event,
            }));
        }
        draw(&folder.join(format!("{}.svg", sweep.file)), sweep.title, sweep.axis, &curves)?;
    }
    let base = Pipeline::new(BASE)?.run(events)?;
    figure.value = base.partial_us + base.merge_us;
    figure.details.insert("metrics_partial", base.partial_us);
    figure.details.insert("metrics_merge", base.merge_us);
    std::fs::write(folder.join("curves.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(figure)
}

/// Microseconds of CPU for one of so many.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn microseconds(cpu_seconds: f64, events: u64) -> f64 {
    (cpu_seconds * 1e9 / events as f64).round() / 1e3
}

/// A body of a hundred events, read and checked, and written as records.
fn accept_cost(events: u64) -> anyhow::Result<f64> {
    let body = events::body(0..100);
    let sender = Sender { workspace: events::WORKSPACE, received_at_ms: crate::clock::now_ms() };
    let began = thread_cpu_seconds();
    for _ in 0..events / 100 {
        let accepted = accept(Route::Campaign, body.as_bytes(), sender, &Limits::default(), &mut || 0)
            .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
        std::hint::black_box(accepted.events.iter().map(Envelope::to_raw_record).collect::<Vec<_>>());
    }
    Ok(microseconds(thread_cpu_seconds() - began, events))
}

fn refine_cost(events: u64) -> anyhow::Result<f64> {
    let records = events::raw_records(Spread::Uniform, 0..events)?;
    let now_ms = crate::clock::now_ms();
    let mut refine = Stepper::new(Refine::new(RefineConfig::default()), Topic::RawCampaign)?;
    let (began, mut refined) = (thread_cpu_seconds(), 0);
    for records in records.chunks(1_000) {
        records.iter().for_each(|record| refine.process(record.clone(), now_ms));
        refined += refine.commit(now_ms)?.len() as u64;
    }
    anyhow::ensure!(refined == events, "{refined} of {events} events were refined");
    Ok(microseconds(thread_cpu_seconds() - began, events))
}

/// Refined events as rows of ClickHouse.
fn rows_cost(events: u64) -> anyhow::Result<f64> {
    let place = TopicPartition { topic: Topic::EventsCampaign, partition: 0 };
    let records: Vec<_> = (0..)
        .zip(events::raw_records(Spread::Uniform, 0..events)?)
        .map(|(offset, record)| as_record(record, place.topic, offset))
        .collect();
    let (began, mut bytes) = (thread_cpu_seconds(), 0);
    for records in records.chunks(100_000) {
        let mut rows = BlockBuilder::new(place);
        for record in records {
            rows.push(record).map_err(anyhow::Error::msg)?;
        }
        bytes += rows.bytes();
    }
    anyhow::ensure!(bytes > 0, "no rows were written");
    Ok(microseconds(thread_cpu_seconds() - began, events))
}
