//! How far time has come, recounted from what is on the log: what the stages say of it must not be ahead.

use std::collections::BTreeMap;

use neonhub_schemas::codec::header;
use neonhub_schemas::event::{Envelope, Source};
use neonhub_schemas::record::Record;
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::Partial;

/// How far behind the newest event the watermark stays (the default of `PartialConfig`).
pub const OUT_OF_ORDERNESS_MS: i64 = 30_000;

/// A source and one of the partitions of its events.
type Upstream = (Source, u32);

/// What a partition of `metrics.partials` was told.
#[derive(Default)]
struct Told {
    /// Watermark, and whether there is nothing more for now.
    upstreams: BTreeMap<Upstream, (i64, bool)>,
    /// Until when each source is complete. Who wakes up does not turn it back.
    complete_ms: BTreeMap<Source, i64>,
}

pub struct EventTime {
    partitions: u32,
    newest_ms: BTreeMap<Upstream, i64>,
    told: BTreeMap<u32, Told>,
}

impl EventTime {
    pub fn new(partitions: u32) -> Self {
        Self { partitions, newest_ms: BTreeMap::new(), told: BTreeMap::new() }
    }

    pub fn take_event(&mut self, record: &Record) -> Result<(), String> {
        let value = record.value.as_deref().ok_or("an event without a value")?;
        let event = Envelope::decode(value).map_err(|error| error.to_string())?;
        let source = Source::of_topic(record.topic).ok_or("an event of no source")?;
        let newest_ms = self.newest_ms.entry((source, record.partition)).or_insert(i64::MIN);
        *newest_ms = event.timestamp_ms.max(*newest_ms);
        Ok(())
    }

    /// A word on how far a partition has come: not further than its events.
    pub fn take_partial(&mut self, record: &Record) -> Result<(), String> {
        if record.headers.get(header::TYPE).is_none() {
            return Ok(());
        }
        let value = record.value.as_deref().ok_or("a partial without a value")?;
        let said = Partial::decode(value).map_err(|error| error.to_string())?.upstream;
        let source = Topic::from_name(&said.topic).and_then(Source::of_topic).ok_or("a watermark of no source")?;
        let upstream = (source, said.partition);
        let newest_ms = self.newest_ms.get(&upstream).copied().unwrap_or(i64::MIN);
        if said.watermark_ms.is_some_and(|watermark_ms| watermark_ms + OUT_OF_ORDERNESS_MS > newest_ms) {
            return Err(format!("the watermark {said:?} is ahead of the newest event, {newest_ms}"));
        }
        let told = self.told.entry(record.partition).or_default();
        let watermark_ms = said.watermark_ms.unwrap_or(i64::MIN);
        let known = told.upstreams.entry(upstream).or_insert((i64::MIN, false));
        *known = (known.0.max(watermark_ms), said.idle);
        let of_source = || (0..self.partitions).map(|partition| told.upstreams.get(&(source, partition)));
        // Who was never heard of may be slow.
        if of_source().all(|state| state.is_some()) {
            let live = of_source().flatten().filter(|(_, is_idle)| !is_idle).map(|(watermark_ms, _)| *watermark_ms);
            let slowest_ms = live.min().or_else(|| of_source().flatten().map(|(watermark_ms, _)| *watermark_ms).max());
            let complete_ms = told.complete_ms.entry(source).or_insert(i64::MIN);
            *complete_ms = slowest_ms.unwrap_or(i64::MIN).max(*complete_ms);
        }
        Ok(())
    }

    /// Until when a source is complete, as far as a partition of `metrics.partials` can know.
    pub fn complete_ms(&self, partition: u32, source: Source) -> i64 {
        self.told.get(&partition).and_then(|told| told.complete_ms.get(&source)).copied().unwrap_or(i64::MIN)
    }
}
