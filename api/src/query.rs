//! Metric queries: request → plan → statements → rows → answer. All but [`run`] is pure.

pub mod collect;
pub mod number;
pub mod plan;
pub mod request;
pub mod span;
pub mod statement;
pub mod view;

use collect::Table;
use plan::Plan;
use request::MetricQuery;
use span::Span;
use view::Answer;

use crate::catalog::Catalog;
use crate::olap::{Olap, OlapError};
use crate::problem::Problem;

/// # Errors
/// 400 names the field that is wrong; 422 where the answer would be too large; 503, 504 from ClickHouse.
pub async fn run(
    olap: &dyn Olap,
    catalog: &Catalog,
    workspace: &str,
    workspace_zone: &str,
    max_rows: usize,
    query: &MetricQuery,
) -> Result<Answer, Problem> {
    let plan = Plan::new(query, catalog, workspace, workspace_zone, max_rows)?;
    // Asked first: what is closed by now has been written by the time that the windows are read.
    let closed = olap.closed(&statement::closed(&plan)).await?;
    let mut current = read(olap, &plan, &plan.span).await?;
    closed.iter().for_each(|row| current.close(&row.metric_name, row.closed_until));
    let previous = match &plan.previous {
        Some(span) => Some(read(olap, &plan, span).await?),
        None => None,
    };
    view::answer(&plan, &current, previous.as_ref())
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
