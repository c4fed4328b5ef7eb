//! Pure: no I/O, no clock, no async.
//!
//! A revision of a window as live clients see it: read from the log and written as JSON once, whoever listens.

use std::sync::Arc;

use neonhub_schemas::metric::{Aggregation, MetricKey, Number};
use neonhub_schemas::record::Record;
use neonhub_schemas::window::{Aggregate, Grain, WindowUpsert};
use serde_json::value::RawValue;

use crate::query::number::raw_number;

#[derive(Clone, Debug)]
pub struct Update {
    pub partition: u32,
    pub offset: u64,
    pub key: MetricKey,
    pub grain: Grain,
    /// The upsert without its sketches, and its `value`.
    pub json: Arc<RawValue>,
}

/// How a metric's windows are read: by workspace, name and series.
pub type AggregationOf<'a> = &'a dyn Fn(&MetricKey) -> Option<Aggregation>;

/// `None`: a tombstone, or nothing that this version can read.
#[must_use]
pub fn read_update(record: &Record, aggregation_of: AggregationOf<'_>) -> Option<Update> {
    let upsert = WindowUpsert::decode(record.value.as_ref()?).ok()?;
    let aggregate = upsert.state.to_aggregate().ok()?;
    let aggregation = aggregation_of(&upsert.key).or_else(|| guess(&aggregate));
    let value = aggregation.and_then(|aggregation| aggregation.read(&aggregate));
    let key = upsert.key.clone();
    let grain = upsert.grain;
    let json = to_json(upsert, value)?;
    Some(Update { partition: record.partition, offset: record.offset, key, grain, json })
}

/// The definition of an older series is gone; its sketches still tell what it was.
fn guess(aggregate: &Aggregate) -> Option<Aggregation> {
    (aggregate.distinct.is_some()).then_some(Aggregation::Uniques)
}

fn to_json(mut upsert: WindowUpsert, value: Option<Number>) -> Option<Arc<RawValue>> {
    upsert.state.distinct = String::new();
    upsert.state.distribution = String::new();
    let mut text = serde_json::to_string(&upsert).ok()?;
    text.pop();
    let value = value.and_then(raw_number);
    text.push_str(",\"value\":");
    text.push_str(value.as_deref().map_or("null", RawValue::get));
    text.push('}');
    RawValue::from_string(text).ok().map(Arc::from)
}
