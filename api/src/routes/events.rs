//! `POST /v1/events/query`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;

use super::openapi::QueryProblems;
use crate::auth::{Caller, EventsRead};
use crate::events;
use crate::events::request::EventsQuery;
use crate::events::view::EventsPage;
use crate::extract::{JsonBody, UrlQuery};
use crate::problem::Problem;
use crate::state::ApiState;

#[derive(Debug, Deserialize)]
pub struct PageQuery {
    cursor: Option<String>,
}

/// Raw events, newest first
///
/// `next_cursor`, also in the `Link` header, leads to the next page: send the same body there.
#[utoipa::path(
    post, path = "/v1/events/query", tag = "events", security(("api_key" = [])),
    params(("cursor" = Option<String>, Query, description = "as in the body")),
    request_body = EventsQuery,
    responses(
        (status = 200, body = EventsPage, headers(("Link" = String, description = "rel=\"next\": the next page"))),
        QueryProblems
    )
)]
pub async fn query_events(
    State(state): State<ApiState>,
    caller: Caller<EventsRead>,
    UrlQuery(page_query): UrlQuery<PageQuery>,
    JsonBody(mut request): JsonBody<EventsQuery>,
) -> Result<(HeaderMap, Json<EventsPage>), Problem> {
    request.cursor = page_query.cursor.or(request.cursor);
    let page = events::run(state.olap(), caller.workspace(), &request).await?;
    let mut headers = HeaderMap::new();
    if let Some(cursor) = &page.next_cursor {
        let link = format!("</v1/events/query?cursor={cursor}>; rel=\"next\"");
        headers.insert(header::LINK, HeaderValue::try_from(link).map_err(|error| Problem::internal(&error))?);
    }
    Ok((headers, Json(page)))
}
