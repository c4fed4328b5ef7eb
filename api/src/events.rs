//! Exploring raw events: request → statement → rows → page. All but [`run`] is pure.

pub mod columns;
pub mod cursor;
pub mod request;
pub mod statement;
pub mod view;

use crate::olap::Olap;
use crate::problem::Problem;
use request::{EventsQuery, EventsRequest};
use view::EventsPage;

/// # Errors
/// 400 names the field that is wrong; 503, 504 from ClickHouse.
pub async fn run(olap: &dyn Olap, workspace: &str, query: &EventsQuery) -> Result<EventsPage, Problem> {
    let request = EventsRequest::check(query)?;
    let rows = olap.events(&statement::statement(&request, workspace)).await?;
    Ok(view::page(&request, rows))
}
