//! ClickHouse as tests play it: prepared answers, and the statements that were asked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{ActivationRow, AuditRow, ClosedRow, EventRow, Olap, OlapError, SketchRow, SqlStatement, WindowRow};

#[derive(Debug, Default)]
pub struct Answers {
    pub windows: VecDeque<Vec<WindowRow>>,
    pub sketches: VecDeque<Vec<SketchRow>>,
    pub events: VecDeque<Vec<EventRow>>,
    /// Told to every query.
    pub closed: Vec<ClosedRow>,
    pub activations: Vec<ActivationRow>,
    pub audit: Vec<AuditRow>,
    pub failure: Option<OlapError>,
    pub asked: Vec<SqlStatement>,
}

#[derive(Debug, Default)]
pub struct MemoryOlap(Mutex<Answers>);

impl MemoryOlap {
    pub fn answers(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, statement: &SqlStatement) -> Result<MutexGuard<'_, Answers>, OlapError> {
        let mut answers = self.answers();
        answers.asked.push(statement.clone());
        answers.failure.clone().map_or(Ok(answers), Err)
    }
}

#[async_trait]
impl Olap for MemoryOlap {
    async fn windows(&self, statement: &SqlStatement) -> Result<Vec<WindowRow>, OlapError> {
        Ok(self.ask(statement)?.windows.pop_front().unwrap_or_default())
    }

    async fn sketches(
        &self,
        statement: &SqlStatement,
        take: &mut (dyn FnMut(SketchRow) + Send),
    ) -> Result<(), OlapError> {
        let rows = self.ask(statement)?.sketches.pop_front().unwrap_or_default();
        rows.into_iter().for_each(take);
        Ok(())
    }

    async fn closed(&self, statement: &SqlStatement) -> Result<Vec<ClosedRow>, OlapError> {
        Ok(self.ask(statement)?.closed.clone())
    }

    async fn events(&self, statement: &SqlStatement) -> Result<Vec<EventRow>, OlapError> {
        Ok(self.ask(statement)?.events.pop_front().unwrap_or_default())
    }

    async fn activations(&self, statement: &SqlStatement) -> Result<Vec<ActivationRow>, OlapError> {
        Ok(self.ask(statement)?.activations.clone())
    }

    async fn audit(&self, statement: &SqlStatement) -> Result<Vec<AuditRow>, OlapError> {
        Ok(self.ask(statement)?.audit.clone())
    }

    async fn ping(&self) -> Result<(), OlapError> {
        self.answers().failure.clone().map_or(Ok(()), Err)
    }
}
