//! Pure: no I/O, no clock, no async.
//!
//! What events added since the last commit, combined by metric key and minute.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashMap;
use neonhub_schemas::codec::header;
use neonhub_schemas::metric::{Hit, MetricKey, Program};
use neonhub_schemas::record::{Headers, NewRecord};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::trace::TraceContext;
use neonhub_schemas::window::{Aggregate, Delta, Overflow, Partial, PartialHeader, WindowState};

/// A record carries at most about so many bytes of deltas; a key with more minutes gets several records.
const RECORD_BYTES: usize = 256 * 1024;

/// Combined samples. The key's bytes are built in a buffer that is used again, so that a hit on a known key allocates
/// nothing.
#[derive(Debug, Default)]
pub struct Deltas {
    by_key: HashMap<Box<[u8]>, Entry>,
    /// By the keys of `by_key`: the last traced event that added to it. Beside them, since few are traced.
    traces: HashMap<Box<[u8]>, TraceContext>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    program: usize,
    metric: usize,
    minute: i64,
    dimensions: Vec<String>,
    aggregate: Aggregate,
}

impl Deltas {
    /// # Errors
    /// The sum of the minute would overflow; nothing was added.
    pub fn add(
        &mut self,
        program: usize,
        minute: i64,
        hit: &Hit<'_>,
        trace: Option<TraceContext>,
    ) -> Result<(), Overflow> {
        self.buffer.clear();
        self.buffer.extend_from_slice(&(program as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(hit.metric as u32).to_le_bytes());
        self.buffer.extend_from_slice(&minute.to_le_bytes());
        for value in &hit.dimensions {
            self.buffer.extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(value.as_bytes());
        }
        if let Some(trace) = trace {
            self.traces.insert(self.buffer.as_slice().into(), trace);
        }
        if let Some(entry) = self.by_key.get_mut(self.buffer.as_slice()) {
            return entry.aggregate.add(hit.sample);
        }
        let mut aggregate = Aggregate::default();
        aggregate.add(hit.sample)?;
        let dimensions = hit.dimensions.iter().map(|value| value.clone().into_owned()).collect();
        let entry = Entry { program, metric: hit.metric, minute, dimensions, aggregate };
        self.by_key.insert(self.buffer.as_slice().into(), entry);
        Ok(())
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The records for `metrics.partials`, in a stable order; empties the deltas.
    pub fn drain(&mut self, programs: &[(String, Program)], upstream: &PartialHeader, now_ms: i64) -> Vec<NewRecord> {
        let mut by_metric: BTreeMap<MetricKey, Vec<(i64, Aggregate, Option<TraceContext>)>> = BTreeMap::new();
        for (place, entry) in self.by_key.drain() {
            let trace = self.traces.remove(&place);
            let Some((workspace, program)) = programs.get(entry.program) else { continue };
            let Some(metric) = program.metrics().get(entry.metric) else { continue };
            let key = metric.key(workspace, entry.dimensions.iter().map(String::as_str));
            by_metric.entry(key).or_default().push((entry.minute, entry.aggregate, trace));
        }
        // Of events whose sum overflowed.
        self.traces.clear();
        let mut records = Vec::new();
        for (key, mut minutes) in by_metric {
            minutes.sort_by_key(|(minute, ..)| *minute);
            let (mut deltas, mut last_trace) = (Vec::new(), None);
            let mut bytes = 0;
            for (minute, aggregate, trace) in &minutes {
                last_trace = trace.or(last_trace);
                let state = WindowState::of(aggregate);
                bytes += 100 + state.distinct.len() + state.distribution.len();
                deltas.push(Delta { minute: *minute, state });
                if bytes >= RECORD_BYTES {
                    records.push(partial_record(
                        &key,
                        std::mem::take(&mut deltas),
                        upstream,
                        last_trace.take(),
                        now_ms,
                    ));
                    bytes = 0;
                }
            }
            if !deltas.is_empty() {
                records.push(partial_record(&key, deltas, upstream, last_trace, now_ms));
            }
        }
        records
    }
}

fn partial_record(
    key: &MetricKey,
    deltas: Vec<Delta>,
    upstream: &PartialHeader,
    trace: Option<TraceContext>,
    now_ms: i64,
) -> NewRecord {
    let headers = Headers::new().with(header::SCHEMA, Bytes::from_static(b"1"));
    let partial = Partial { upstream: upstream.clone(), key: Some(key.clone()), deltas };
    NewRecord {
        topic: Topic::MetricsPartials,
        partition: None,
        key: Bytes::from(key.to_text()),
        value: Some(Bytes::from(partial.encode())),
        headers: TraceContext::stamp_if(trace, headers),
        timestamp_ms: now_ms,
    }
}
