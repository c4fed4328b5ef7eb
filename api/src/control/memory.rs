//! `control` in memory: for tests, also of what happens when the log is away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use neonhub_schemas::record::NewRecord;
use neonhub_schemas::topics::Topic;

use super::{ControlError, ControlLog};

#[derive(Debug, Default)]
pub struct MemoryControl {
    records: Mutex<Vec<NewRecord>>,
    is_away: AtomicBool,
}

impl MemoryControl {
    pub fn set_away(&self, is_away: bool) {
        self.is_away.store(is_away, Ordering::SeqCst);
    }

    #[must_use]
    pub fn records(&self) -> Vec<NewRecord> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check(&self) -> Result<(), ControlError> {
        if self.is_away.load(Ordering::SeqCst) { Err(ControlError("switched off".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl ControlLog for MemoryControl {
    async fn append(&self, record: NewRecord) -> Result<(), ControlError> {
        self.check()?;
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        Ok(())
    }

    async fn read_all(&self) -> Result<Vec<(Bytes, Bytes)>, ControlError> {
        self.check()?;
        let of_control = self.records().into_iter().filter(|record| record.topic == Topic::Control);
        Ok(of_control.filter_map(|record| Some((record.key, record.value?))).collect())
    }
}
