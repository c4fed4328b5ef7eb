//! What runs for every event, every delta and every window that is read back.
#![expect(clippy::unwrap_used, reason = "a bench on fixed input")]

mod runner;

use std::hint::black_box;

use neonhub_schemas::event::Source;
use neonhub_schemas::metric::{Definition, MetricKey, Program, built_in};
use neonhub_schemas::sketch::{DdSketch, HyperLogLog};
use neonhub_schemas::window::{
    Aggregate, Delta, Epoch, Grain, Partial, PartialHeader, Sample, WindowState, WindowUpsert,
};
use neonhub_schemas::{Envelope, Micros};
use runner::HotPath;
use xxhash_rust::xxh3::xxh3_64;

const TRACK: &str = include_str!("../../golden/envelope-v1-track.json");
const CAMPAIGN: &str = include_str!("../../golden/envelope-v1-campaign.json");
const SKETCHED: u64 = 20_000;

fn main() {
    let mut paths = events();
    paths.extend(windows());
    paths.extend(sketches());
    runner::run(paths);
}

fn events() -> Vec<HotPath> {
    let metrics = built_in().into_iter().filter_map(|(name, text)| match text.check() {
        Ok(Definition::Events(metric)) => Some((name.to_owned(), 0, metric)),
        _ => None,
    });
    let program = Program::compile(metrics);
    let event = Envelope::decode(CAMPAIGN.trim_end().as_bytes()).unwrap();
    let to_encode = event.clone();
    vec![
        HotPath::new("event decode, track", || Envelope::decode(black_box(TRACK.trim_end().as_bytes())).unwrap()),
        HotPath::new("event decode, campaign", || Envelope::decode(black_box(CAMPAIGN.trim_end().as_bytes())).unwrap()),
        HotPath::new("event encode, campaign", move || black_box(&to_encode).encode()),
        HotPath::new("program evaluate, built-in metrics", move || {
            let mut hits = 0;
            program.evaluate(black_box(&event), |hit| hits += hit.dimensions.len());
            hits
        }),
    ]
}

fn upsert(aggregate: &Aggregate) -> WindowUpsert {
    let dimensions = [("campaign", "campaign-17"), ("channel", "display"), ("policy", "random")];
    WindowUpsert {
        key: MetricKey {
            workspace: "acme".to_owned(),
            metric: "revenue".to_owned(),
            series: 0,
            dimensions: dimensions.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
        source: Source::Campaign,
        grain: Grain::Hour,
        zone: "Europe/Berlin".to_owned(),
        window_start: 1_770_076_800,
        window_end: 1_770_080_400,
        epoch: Epoch { partition: 2, offset: 77 },
        revision: 5,
        r#final: false,
        state: WindowState::of(aggregate),
        as_of: 80,
        updated_at: 1_770_076_800_123,
    }
}

fn windows() -> Vec<HotPath> {
    let mut numbers = Aggregate::default();
    for cents in [199, 1_050, 99_999] {
        numbers.add(Sample::Number(Micros::from_raw(cents * 10_000))).unwrap();
    }
    let mut people = Aggregate::default();
    (0..40_u64).for_each(|person| people.add(Sample::Distinct(hash(person))).unwrap());
    let upsert_of_numbers = upsert(&numbers);
    let encoded = upsert_of_numbers.encode();
    let encoded_people = upsert(&people).encode();
    let upstream =
        PartialHeader { topic: "events.campaign".to_owned(), partition: 3, watermark_ms: Some(5), idle: false };
    let minutes = (0..4).map(|minute| Delta { minute: minute * 60, state: WindowState::of(&numbers) });
    let partial = Partial { upstream, key: Some(upsert_of_numbers.key.clone()), deltas: minutes.collect() };
    let encoded_partial = partial.encode();
    vec![
        HotPath::new("window encode", move || black_box(&upsert_of_numbers).encode()),
        HotPath::new("window decode", move || WindowUpsert::decode(black_box(&encoded)).unwrap()),
        HotPath::new("window decode, 40 uniques", move || {
            let upsert = WindowUpsert::decode(black_box(&encoded_people)).unwrap();
            upsert.state.to_aggregate().unwrap()
        }),
        HotPath::new("partial encode, 4 minutes", move || black_box(&partial).encode()),
        HotPath::new("partial decode, 4 minutes", move || Partial::decode(black_box(&encoded_partial)).unwrap()),
    ]
}

fn hash(value: u64) -> u64 {
    xxh3_64(&value.to_le_bytes())
}

fn amount(value: u64) -> Micros {
    Micros::from_raw(i128::from(hash(value) % 10_000_000_000))
}

fn sketches() -> Vec<HotPath> {
    let uniques = |range: std::ops::Range<u64>| {
        let mut sketch = HyperLogLog::default();
        range.for_each(|value| sketch.insert_hash(hash(value)));
        sketch
    };
    let quantiles = |range: std::ops::Range<u64>| {
        let mut sketch = DdSketch::default();
        range.for_each(|value| sketch.insert(amount(value)));
        sketch
    };
    let (mut many, some) = (uniques(0..SKETCHED), uniques(0..40));
    let (mut merged_many, more) = (many.clone(), uniques(0..2 * SKETCHED));
    let (mut spread, narrow) = (quantiles(0..SKETCHED), quantiles(0..40));
    let (mut merged_spread, mut next) = (spread.clone(), 0);
    vec![
        HotPath::new("uniques add, 40 to none", move || uniques(black_box(0..40))),
        HotPath::new("uniques add, many", move || {
            next += 1;
            many.insert_hash(hash(black_box(next)));
        }),
        HotPath::new("uniques merge, many", move || merged_many.merge(black_box(&more))),
        HotPath::new("uniques merge, 40 to none", move || {
            let mut sketch = HyperLogLog::default();
            sketch.merge(black_box(&some));
            sketch
        }),
        HotPath::new("quantiles add", move || spread.insert(amount(black_box(7)))),
        HotPath::new("quantiles merge, 40 to many", move || merged_spread.merge(black_box(&narrow))),
    ]
}
