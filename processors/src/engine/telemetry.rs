//! Prometheus metrics of the engine, by processor.

use std::collections::BTreeMap;

use neonhub_schemas::record::TopicPartition;
use prometheus::core::Collector as _;
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Registered once a process; labels are the processors' and topics' names.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    pub records: IntCounterVec,
    pub bytes: IntCounterVec,
    pub outputs: IntCounterVec,
    pub commits: IntCounterVec,
    pub commit_seconds: HistogramVec,
    pub restore_seconds: HistogramVec,
    pub duplicates: IntCounterVec,
    pub late: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub capped: IntCounterVec,
    pub restarts: IntCounterVec,
    pub state_entries: IntGaugeVec,
    pub state_bytes: IntGaugeVec,
    pub lag: IntGaugeVec,
    pub watermark_delay_seconds: IntGaugeVec,
    pub landed_rows: IntCounterVec,
    pub landing_seconds: Histogram,
    pub landing_failures: IntCounter,
    pub landing_retries: IntGaugeVec,
}

impl EngineMetrics {
    /// # Errors
    /// A name is registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["processor", "topic", "partition"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = || prometheus::exponential_buckets(0.001, 2.0, 14);
        let histogram = |name: &str, help: &str| -> Result<HistogramVec, prometheus::Error> {
            let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(seconds()?), &["processor"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let landing_seconds = Histogram::with_opts(
            HistogramOpts::new("neonhub_landing_insert_seconds", "Time of one insert into ClickHouse.")
                .buckets(seconds()?),
        )?;
        registry.register(Box::new(landing_seconds.clone()))?;
        let landing_failures =
            IntCounter::new("neonhub_landing_insert_failures_total", "Inserts that failed and are tried again.")?;
        registry.register(Box::new(landing_failures.clone()))?;
        Ok(Self {
            records: counter("neonhub_processor_records_total", "Records read.", "processor")?,
            bytes: counter("neonhub_processor_read_bytes_total", "Bytes of keys and values read.", "processor")?,
            outputs: counter("neonhub_processor_outputs_total", "Records committed.", "processor")?,
            commits: counter("neonhub_processor_commits_total", "Atomic commits.", "processor")?,
            commit_seconds: histogram("neonhub_processor_commit_seconds", "Time of one atomic commit.")?,
            restore_seconds: histogram("neonhub_processor_restore_seconds", "Time to restore one partition's state.")?,
            duplicates: counter("neonhub_processor_duplicates_total", "Messages seen before, dropped.", "processor")?,
            late: counter("neonhub_processor_late_events_total", "Deltas behind the watermark, counted.", "processor")?,
            dead_letters: counter("neonhub_processor_dead_letters_total", "Records set aside.", "processor")?,
            capped: counter("neonhub_processor_capped_keys_total", "Deltas counted under __other__.", "processor")?,
            restarts: counter("neonhub_processor_restarts_total", "Workers begun again after an error.", "processor")?,
            state_entries: gauge("neonhub_processor_state_entries", "Entries of state held in memory.")?,
            state_bytes: gauge("neonhub_processor_state_bytes", "Bytes of state held in memory, estimated.")?,
            lag: gauge("neonhub_processor_lag_records", "Records that wait to be read.")?,
            watermark_delay_seconds: gauge(
                "neonhub_processor_watermark_delay_seconds",
                "How far event time is behind the clock.",
            )?,
            landed_rows: counter("neonhub_landing_rows_total", "Rows inserted into ClickHouse.", "table")?,
            landing_seconds,
            landing_failures,
            landing_retries: gauge(
                "neonhub_landing_retries",
                "How often the insert of the batch under way has failed.",
            )?,
        })
    }

    /// Partitions whose batch ClickHouse has not taken yet, though it was tried.
    #[must_use]
    pub fn landings_that_fail(&self) -> usize {
        let families = self.landing_retries.collect();
        families.iter().flat_map(|family| family.get_metric()).filter(|one| one.get_gauge().get_value() > 0.0).count()
    }

    /// Records that wait to be read, all partitions together, as they were observed last.
    #[must_use]
    pub fn lag_by_processor(&self) -> BTreeMap<String, u64> {
        let mut lags = BTreeMap::new();
        for metric in self.lag.collect().iter().flat_map(|family| family.get_metric()) {
            let processor = metric.get_label().iter().find(|label| label.name() == "processor");
            if let Some(processor) = processor {
                // Gauges are doubles in Prometheus; each was set from a whole number that is not negative.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as above")]
                let lag = metric.get_gauge().get_value() as u64;
                *lags.entry(processor.value().to_owned()).or_default() += lag;
            }
        }
        lags
    }

    /// Another process tells of the partition from now on.
    pub fn forget(&self, processor: &str, place: TopicPartition) {
        let partition = place.partition.to_string();
        let labels = [processor, place.topic.name(), partition.as_str()];
        let of_partitions =
            [&self.lag, &self.watermark_delay_seconds, &self.state_entries, &self.state_bytes, &self.landing_retries];
        for gauges in of_partitions {
            // Not all of them were ever set.
            let _unset = gauges.remove_label_values(&labels);
        }
    }

    /// Failures of the batch that a partition of the landing has under way.
    pub fn observe_retries(&self, place: TopicPartition, failures: u32) {
        let partition = place.partition.to_string();
        self.landing_retries.with_label_values(&["landing", place.topic.name(), &partition]).set(i64::from(failures));
    }

    pub fn observe_lag(&self, processor: &str, lags: &[(TopicPartition, u64)]) {
        for (place, lag) in lags {
            let partition = place.partition.to_string();
            let labels = [processor, place.topic.name(), partition.as_str()];
            self.lag.with_label_values(&labels).set(i64::try_from(*lag).unwrap_or(i64::MAX));
        }
    }
}
