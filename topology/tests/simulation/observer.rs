//! Watches `metrics.windows` like a live client: every upsert, in order, before compaction takes it.

use std::collections::BTreeMap;

use neonhub_schemas::record::{Record, TopicPartition};
use neonhub_schemas::topics::Topic;
use neonhub_schemas::window::WindowUpsert;
use neonhub_topology::embedded::log::{Log, LogError};

/// The newest word on an epoch of a window.
#[derive(Clone, Copy, Debug)]
struct Seen {
    revision: u64,
    is_final: bool,
    is_evicted: bool,
}

pub struct Observer {
    positions: Vec<u64>,
    /// By record key, which ends in the epoch.
    newest: BTreeMap<String, Seen>,
    pub upserts: u64,
    pub tombstones: u64,
}

impl Observer {
    pub fn new(partitions: u32) -> Self {
        Self { positions: vec![0; partitions as usize], newest: BTreeMap::new(), upserts: 0, tombstones: 0 }
    }

    pub fn look(&mut self, log: &Log) -> Result<(), String> {
        for partition in 0..u32::try_from(self.positions.len()).unwrap_or(0) {
            let place = TopicPartition { topic: Topic::MetricsWindows, partition };
            loop {
                let position = self.positions[partition as usize];
                if position >= log.end_offset(place).map_err(|error| error.to_string())? {
                    break;
                }
                let fetched =
                    log.read(place, position, 10_000, 1 << 24).map_err(|error: LogError| error.to_string())?;
                for record in fetched.records {
                    self.take(&record)?;
                }
                self.positions[partition as usize] = fetched.next_offset;
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record) -> Result<(), String> {
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
        let next = Seen { revision: upsert.revision, is_final: upsert.r#final, is_evicted: false };
        match self.newest.insert(key.clone(), next) {
            Some(seen) if seen.is_evicted => Err(format!("{key} was evicted and is written again")),
            Some(seen) if seen.revision >= next.revision => Err(format!("{key}: {seen:?} is followed by {next:?}")),
            Some(seen) if seen.is_final && !next.is_final => Err(format!("{key} was final and is not any more")),
            _ => Ok(()),
        }
    }
}
