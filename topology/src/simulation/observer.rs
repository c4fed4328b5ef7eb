//! Watches the log like a live client: every upsert, event and activation, in order, before retention or compaction
//! takes it.

use std::collections::BTreeMap;

use crate::embedded::log::Log;
use neonhub_schemas::codec::header;
use neonhub_schemas::event::Source;
use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::TraceContext;
use neonhub_schemas::window::WindowUpsert;

use super::event_time::EventTime;
use super::traces::check_event;

/// In the order in which they follow from each other.
const WATCHED: [Topic; 7] = [
    Topic::RawBehavior,
    Topic::EventsBehavior,
    Topic::EventsCampaign,
    Topic::EventsIntegration,
    Topic::MetricsPartials,
    Topic::MetricsWindows,
    Topic::MetricsActivations,
];

/// The newest word on an epoch of a window.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    revision: u64,
    pub source: Source,
    pub end_s: i64,
    pub is_final: bool,
    is_evicted: bool,
}

pub struct Observer {
    positions: Vec<(TopicPartition, u64)>,
    event_time: EventTime,
    /// By record key, which ends in the epoch.
    pub newest: BTreeMap<String, Seen>,
    pub upserts: u64,
    pub tombstones: u64,
    /// Behaviour as accepted, by partition, in order: what refine saw.
    pub raw_behavior: BTreeMap<u32, Vec<Record>>,
    pub events: Vec<Record>,
    pub activations: Vec<Record>,
    has_traces: bool,
}

impl Observer {
    pub fn new(partitions: u32, has_traces: bool) -> Self {
        let places = WATCHED.into_iter().flat_map(|topic| {
            (0..topic.partitions(partitions)).map(move |partition| (TopicPartition { topic, partition }, 0))
        });
        Self {
            positions: places.collect(),
            event_time: EventTime::new(partitions),
            newest: BTreeMap::new(),
            upserts: 0,
            tombstones: 0,
            raw_behavior: BTreeMap::new(),
            events: Vec::new(),
            activations: Vec::new(),
            has_traces,
        }
    }

    pub fn look(&mut self, log: &Log) -> Result<(), String> {
        let mut news = Vec::new();
        for (place, position) in &mut self.positions {
            while *position < log.end_offset(*place).map_err(|error| error.to_string())? {
                let fetched = log.read(*place, *position, 10_000, 1 << 24).map_err(|error| error.to_string())?;
                news.extend(fetched.records);
                *position = fetched.next_offset;
            }
        }
        for record in news {
            match record.topic {
                Topic::MetricsPartials => self.event_time.take_partial(&record)?,
                Topic::MetricsWindows => self.take_window(&record)?,
                Topic::MetricsActivations => self.activations.push(record),
                Topic::RawBehavior => self.raw_behavior.entry(record.partition).or_default().push(record),
                _ if record.headers.get(header::TYPE).is_some() => {}
                _ => {
                    if self.has_traces {
                        check_event(&record)?;
                    }
                    self.event_time.take_event(&record)?;
                    self.events.push(record);
                }
            }
        }
        Ok(())
    }

    fn take_window(&mut self, record: &Record) -> Result<(), String> {
        let key = String::from_utf8_lossy(&record.key).into_owned();
        let Some(value) = &record.value else {
            self.tombstones += 1;
            return match self.newest.get_mut(&key) {
                Some(seen) if seen.is_final && !seen.is_evicted => {
                    seen.is_evicted = true;
                    Ok(())
                }
                other => Err(format!("{key} was evicted as {other:?}")),
            };
        };
        self.upserts += 1;
        let upsert: WindowUpsert = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let next = Seen {
            revision: upsert.revision,
            source: upsert.source,
            end_s: upsert.window_end,
            is_final: upsert.r#final,
            is_evicted: false,
        };
        // The first word on a window follows from an event.
        if self.has_traces && upsert.revision == 1 && TraceContext::of(record).is_none() {
            return Err(format!("{key} goes on in no trace"));
        }
        let complete_ms = self.event_time.complete_ms(record.partition, next.source);
        if next.is_final && next.end_s * 1_000 > complete_ms {
            return Err(format!("{key} is final, but its source is complete until {complete_ms}: {next:?}"));
        }
        match self.newest.insert(key.clone(), next) {
            Some(seen) if seen.is_evicted => Err(format!("{key} was evicted and is written again")),
            Some(seen) if seen.revision >= next.revision => Err(format!("{key}: {seen:?} is followed by {next:?}")),
            Some(seen) if seen.is_final && !next.is_final => Err(format!("{key} was final and is not any more")),
            _ => Ok(()),
        }
    }
}
