//! Pure: no I/O, no clock, no async.
//!
//! Rows from ClickHouse, put together by window and group.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use neonhub_schemas::Micros;
use neonhub_schemas::event::Source;
use neonhub_schemas::sketch::{DdSketch, HyperLogLog};
use neonhub_schemas::window::Aggregate;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::plan::Plan;
use super::span::Span;
use crate::olap::{SketchRow, WindowRow};

/// The metrics of one window and group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// By series of the plan; the empty aggregate where nothing was counted.
    pub aggregates: Vec<Aggregate>,
    /// Every stored window behind it is final.
    pub all_final: bool,
}

/// By number of the window and values of the group.
pub type Cells = BTreeMap<(usize, Vec<String>), Cell>;

#[derive(Debug)]
pub struct Table {
    buckets: HashMap<i64, usize>,
    series: HashMap<String, usize>,
    cells: Cells,
    max_cells: usize,
    sources: HashMap<String, Source>,
    /// By source that was asked: the greatest end of a final window.
    closed: BTreeMap<Source, i64>,
}

fn decimal(text: &str) -> Result<Micros, String> {
    let deserializer: StrDeserializer<'_, ValueError> = text.into_deserializer();
    Micros::deserialize(deserializer).map_err(|_| format!("`{text}` is no decimal"))
}

impl Table {
    #[must_use]
    pub fn new(plan: &Plan, span: &Span) -> Self {
        let series = plan.series.iter().enumerate().map(|(index, series)| (series.name.clone(), index));
        Self {
            buckets: span.bucket_keys().enumerate().map(|(index, key)| (key, index)).collect(),
            series: series.collect(),
            cells: Cells::new(),
            max_cells: plan.max_rows,
            sources: plan.witnesses.iter().map(|series| (series.name.clone(), series.source)).collect(),
            closed: plan.series.iter().map(|series| (series.source, 0)).collect(),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    #[must_use]
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Final windows of every asked source end here or later: everything before has been seen (but for late events).
    /// Unix seconds.
    #[must_use]
    pub fn closed_until(&self) -> i64 {
        self.closed.values().copied().min().unwrap_or(0)
    }

    /// A final window of `metric` ends at `until`, so time is closed until then for the metric's source.
    pub fn close(&mut self, metric: &str, until: i64) {
        if let Some(closed) = self.sources.get(metric).and_then(|source| self.closed.get_mut(source)) {
            *closed = until.max(*closed);
        }
    }

    /// # Errors
    /// The row is damaged.
    pub fn add_sums(&mut self, row: &WindowRow) -> Result<(), String> {
        let range = match (row.least.as_str(), row.greatest.as_str()) {
            ("", _) | (_, "") => None,
            (least, greatest) => Some((decimal(least)?, decimal(greatest)?)),
        };
        let aggregate = Aggregate {
            count: row.total_count,
            sum: decimal(&row.total_sum)?,
            range: range.map(Box::new),
            ..Aggregate::default()
        };
        self.add(&row.metric_name, row.bucket, &row.group_values, &aggregate, row.all_final != 0, row.final_until)
    }

    /// # Errors
    /// The row is damaged.
    pub fn add_sketch(&mut self, row: &SketchRow) -> Result<(), String> {
        let decode = |text: &str| BASE64.decode(text).map_err(|_| "a sketch is not base64".to_owned());
        let (distinct, distribution) = (decode(&row.distinct_base64)?, decode(&row.distribution_base64)?);
        let mut aggregate = Aggregate { count: row.total_count, ..Aggregate::default() };
        if !distinct.is_empty() {
            let sketch = HyperLogLog::from_bytes(&distinct).map_err(|error| error.to_string())?;
            aggregate.distinct = Some(Box::new(sketch));
        }
        if !distribution.is_empty() {
            let sketch = DdSketch::from_bytes(&distribution).map_err(|error| error.to_string())?;
            aggregate.distribution = Some(Box::new(sketch));
        }
        self.add(&row.metric_name, row.bucket, &row.group_values, &aggregate, row.all_final != 0, row.final_until)
    }

    fn add(
        &mut self,
        metric: &str,
        bucket: i64,
        groups: &[String],
        aggregate: &Aggregate,
        all_final: bool,
        final_until: i64,
    ) -> Result<(), String> {
        self.close(metric, final_until);
        // Windows outside of the span do not come, but for an hour's label before the first.
        let Some(bucket) = self.buckets.get(&bucket) else { return Ok(()) };
        let series = *self.series.get(metric).ok_or_else(|| format!("`{metric}` was not asked for"))?;
        if self.cells.len() > self.max_cells {
            return Ok(());
        }
        let empty = || Cell { aggregates: vec![Aggregate::default(); self.series.len()], all_final: true };
        let cell = self.cells.entry((*bucket, groups.to_vec())).or_insert_with(empty);
        cell.all_final &= all_final;
        cell.aggregates[series].merge(aggregate).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::plan::tests::plan;
    use serde_json::json;

    #[test]
    fn sums_keep_every_digit_and_sketches_merge() {
        let plan = plan(json!({"metrics": ["revenue", "visitors"], "grain": "total"})).unwrap();
        let mut table = Table::new(&plan, &plan.span);
        let sums = WindowRow {
            metric_name: "revenue".into(),
            total_count: 2,
            total_sum: "12345678901234567890.123456".into(),
            least: "-0.5".into(),
            greatest: "7".into(),
            all_final: 1,
            final_until: 9,
            ..WindowRow::default()
        };
        table.add_sums(&sums).unwrap();
        for hash in [1_u64, 2, 2] {
            let mut sketch = HyperLogLog::default();
            sketch.insert_hash(hash);
            let distinct_base64 = BASE64.encode(sketch.to_bytes());
            let row =
                SketchRow { metric_name: "visitors".into(), total_count: 1, distinct_base64, ..SketchRow::default() };
            table.add_sketch(&row).unwrap();
        }
        let cell = table.cells().values().next().unwrap();
        assert_eq!(cell.aggregates[0].sum.to_string(), "12345678901234567890.123456");
        assert_eq!(cell.aggregates[1].distinct.as_ref().unwrap().estimate(), 2);
        assert!(!cell.all_final);
        // Revenue is the campaigns'; visitors are behavior, of which nothing is known yet.
        assert_eq!(table.closed_until(), 0);
        table.close("sessions", 7);
        table.close("nothing_known", 99);
        assert_eq!(table.closed_until(), 7);
        table.close("page_views", 12);
        assert_eq!(table.closed_until(), 9);
        assert!(table.add_sums(&WindowRow { total_sum: "x".into(), ..sums }).is_err());
    }
}
