//! Metric queries: request → plan → statements → rows → answer. All but [`run`] is pure.

pub mod collect;
pub mod number;
pub mod plan;
pub mod request;
pub mod span;
pub mod statement;
pub mod view;

use collect::Table;
use neonhub_schemas::event::Source;
use plan::Plan;
use span::Span;
use view::Answer;

use crate::olap::{ClosedRow, Olap, OlapError};
use crate::problem::Problem;

/// The answer, and whether every window behind it is final: late events alone can change it then.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub answer: Answer,
    pub is_closed: bool,
}

/// # Errors
/// 422 where the answer would be too large; 503, 504 from ClickHouse.
pub async fn run(olap: &dyn Olap, plan: &Plan, now_ms: i64) -> Result<Outcome, Problem> {
    // Asked first: what is closed by now has been written by the time that the windows are read.
    let closed = closed(olap, plan, now_ms.div_euclid(1_000)).await?;
    let mut current = read(olap, plan, &plan.span).await?;
    closed.iter().for_each(|row| current.close(&row.metric_name, row.closed_until));
    let previous = match &plan.previous {
        Some(span) => Some(read(olap, plan, span).await?),
        None => None,
    };
    let is_final = |table: &Table| table.cells().values().all(|cell| cell.all_final);
    let is_closed =
        current.closed_until() >= plan.span.to_s && is_final(&current) && previous.as_ref().is_none_or(is_final);
    Ok(Outcome { answer: view::answer(plan, &current, previous.as_ref())?, is_closed })
}

/// How far time is closed. Mostly the windows around the query's end, or the present, tell; all are asked only if they do not.
async fn closed(olap: &dyn Olap, plan: &Plan, now_s: i64) -> Result<Vec<ClosedRow>, Problem> {
    let around = plan.span.to_s.min(now_s);
    let rows = olap.closed(&statement::closed(plan, Some(around))).await?;
    let is_told = |source: Source| {
        let of_source = plan.witnesses.iter().filter(|witness| witness.source == source);
        let closes = of_source.filter_map(|witness| rows.iter().find(|row| row.metric_name == witness.name));
        let newest = closes.map(|row| row.closed_until).max();
        // Nothing is later than the present; of the past only the query's end matters.
        newest.is_some_and(|newest| newest >= plan.span.to_s || around == now_s)
    };
    if plan.series.iter().all(|series| is_told(series.source)) {
        return Ok(rows);
    }
    Ok(olap.closed(&statement::closed(plan, None)).await?)
}

async fn read(olap: &dyn Olap, plan: &Plan, span: &Span) -> Result<Table, Problem> {
    let mut table = Table::new(plan, span);
    if let Some(statement) = statement::sums(plan, span) {
        for row in olap.windows(&statement).await? {
            table.add_sums(&row).map_err(damaged)?;
        }
    }
    if let Some(statement) = statement::sketches(plan, span) {
        let mut outcome = Ok(());
        olap.sketches(&statement, &mut |row| {
            if outcome.is_ok() {
                outcome = table.add_sketch(&row);
            }
        })
        .await?;
        outcome.map_err(damaged)?;
    }
    if table.len() > plan.max_rows {
        let detail = format!("the answer would have more than {} rows: ask for less", plan.max_rows);
        return Err(Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    Ok(table)
}

fn damaged(detail: String) -> OlapError {
    OlapError::Refused(detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::olap::memory::MemoryOlap;
    use serde_json::json;

    /// How many statements it takes to learn how far time is closed, and the answer.
    async fn ask(now_s: impl Fn(&Span) -> i64, closed_until: impl Fn(&Span) -> Option<i64>) -> usize {
        let plan = plan::tests::plan(json!({"metrics": ["clicks"]})).unwrap();
        let olap = MemoryOlap::default();
        let row = |closed_until| ClosedRow { metric_name: "impressions".into(), closed_until };
        olap.answers().closed = closed_until(&plan.span).map(row).into_iter().collect();
        closed(&olap, &plan, now_s(&plan.span)).await.unwrap();
        olap.answers().asked.len()
    }

    #[tokio::test]
    async fn all_windows_are_asked_only_where_those_nearby_do_not_tell() {
        let (past, future) = (|span: &Span| span.to_s + 1_000_000, |span: &Span| span.to_s - 1_000);
        assert_eq!(ask(past, |span| Some(span.to_s)).await, 1);
        assert_eq!(ask(past, |span| Some(span.to_s - 60)).await, 2, "a later window may close the rest");
        assert_eq!(ask(past, |_| None).await, 2);
        assert_eq!(ask(future, |span| Some(span.to_s - 2_000)).await, 1, "nothing is later than the present");
        assert_eq!(ask(future, |_| None).await, 2);
    }
}
