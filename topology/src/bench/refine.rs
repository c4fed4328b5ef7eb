//! Refine on Kafka.

use std::time::Duration;

use neonhub_processors::refine::{Refine, RefineConfig};
use neonhub_schemas::topics::Topic;
use rdkafka::consumer::BaseConsumer;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Figure;
use super::events::{self, Spread};
use super::ingest::per_second;
use super::scratch::Scratch;
use super::usage::{Meter, peak_rss_mb};
use crate::settings::Settings;

pub async fn run(settings: &Settings, events: u64) -> anyhow::Result<Figure> {
    let scratch = Scratch::new(settings).await?;
    tokio::task::spawn_blocking(move || measure(&scratch, events)).await?
}

/// Puts the events on `raw.campaign`.
pub fn load(scratch: &Scratch, spread: Spread, events: u64) -> anyhow::Result<()> {
    let producer = scratch.producer()?;
    for from in (0..events).step_by(10_000) {
        let mut records = events::raw_records(spread, from..(from + 10_000).min(events))?;
        scratch.begin_traces(&mut records);
        scratch.produce(&producer, &records)?;
    }
    scratch.flush(&producer)
}

/// Refines all of them.
pub fn refine(scratch: &Scratch, events: u64) -> anyhow::Result<u64> {
    scratch.run_stage(|| Ok(Refine::new(RefineConfig::default())), "refine", "0", |records, _| records >= events)
}

fn measure(scratch: &Scratch, events: u64) -> anyhow::Result<Figure> {
    load(scratch, Spread::Few, events)?;
    let meter = Meter::this_process()?;
    refine(scratch, events)?;
    let used = meter.used()?;
    let peak = peak_rss_mb(std::process::id());
    let mut refined = 0;
    scratch.read(Topic::EventsCampaign, |record| {
        refined += u64::from(record.headers.get(neonhub_schemas::codec::header::TYPE).is_none());
    })?;
    let limit = bare(scratch, events)?;
    let figure = Figure {
        bench: "refine".to_owned(),
        value: per_second(events, used.cpu),
        unit: "events/CPU-s",
        events_per_second: Some(per_second(events, used.wall)),
        peak_rss_mb: peak,
        right: refined == events,
        ..Figure::default()
    };
    Ok(figure.against(limit))
}

#[derive(Deserialize)]
struct BareEvent<'a> {
    #[serde(borrow)]
    message_id: &'a str,
    #[serde(borrow)]
    properties: &'a RawValue,
}

/// Events per CPU second of a consumer that parses each and produces it as it is.
fn bare(scratch: &Scratch, events: u64) -> anyhow::Result<f64> {
    // Where the pipeline does not look.
    let topic = scratch.config.topic_name(Topic::EventsIntegration);
    let (consumer, producer) = (scratch.consumer(Topic::RawCampaign)?, scratch.producer()?);
    let meter = Meter::this_process()?;
    pump(&consumer, &producer, &topic, events)?;
    scratch.flush(&producer)?;
    Ok(per_second(events, meter.used()?.cpu))
}

fn pump(consumer: &BaseConsumer, producer: &BaseProducer, topic: &str, events: u64) -> anyhow::Result<()> {
    let mut taken = 0;
    while taken < events {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message?;
        let value = message.payload().unwrap_or_default();
        let event: BareEvent<'_> = serde_json::from_slice(value)?;
        anyhow::ensure!(!event.message_id.is_empty() && !event.properties.get().is_empty(), "an empty event");
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(message.key().unwrap_or_default()).payload(value);
        if let Some(headers) = message.headers() {
            record = record.headers(headers.detach());
        }
        producer.send(record).map_err(|(error, _)| error)?;
        taken += 1;
        if u64::is_multiple_of(taken, 1_000) {
            producer.poll(Duration::ZERO);
        }
    }
    Ok(())
}
