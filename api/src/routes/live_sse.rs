//! `GET /v1/live/metrics`: window revisions as server-sent events.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::mpsc;

use super::live::{CHANNEL, checked_filter, start_from, subscribe};
use super::openapi::ReadProblems;
use crate::auth::{BrowserCaller, MetricsRead};
use crate::extract::UrlQuery;
use crate::feed::follow::Delivery;
use crate::problem::Problem;
use crate::state::ApiState;

/// Revisions of windows as server-sent events
///
/// Every revision of the workspace's windows, as it is committed. `event: window`, `data`: the window without its
/// sketches, with `value`; `id`: the place in the log, which `Last-Event-ID` goes on from, every revision once.
/// `event: reset` says that the place is gone and that older revisions were missed.
#[utoipa::path(
    get, path = "/v1/live/metrics", tag = "live", security(("api_key" = [])),
    params(
        ("metrics" = Option<String>, Query, description = "names, separated by commas, none derived; all where absent"),
        ("grain" = Option<String>, Query, description = "minute, quarter, hour, day, week, month; all where absent"),
        ("filter" = Option<String>, Query, description = "`campaign:men`; may be repeated, all must hold"),
        ("from" = Option<String>, Query, description = "earliest or latest (the default)"),
        ("last_event_id" = Option<String>, Query, description = "as the header Last-Event-ID"),
        ("access_token" = Option<String>, Query, description = "the API key, for browsers"),
        ("Last-Event-ID" = Option<String>, Header)
    ),
    responses((status = 200, description = "a stream", content_type = "text/event-stream"), ReadProblems)
)]
pub async fn live_metrics(
    State(state): State<ApiState>,
    BrowserCaller(caller): BrowserCaller<MetricsRead>,
    UrlQuery(pairs): UrlQuery<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let all = |name: &'static str| pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.clone());
    let one = |name: &'static str| all(name).next();
    let metrics = all("metrics").flat_map(|names| names.split(',').map(str::to_owned).collect::<Vec<_>>());
    let filter = checked_filter(&state, &caller.grant, metrics, one("grain").as_deref(), all("filter")).await?;
    let from_header = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let start = start_from(from_header.or_else(|| one("last_event_id")).as_deref(), one("from").as_deref())?;
    let (out, deliveries) = mpsc::channel(CHANNEL);
    // It ends by itself when the stream is dropped.
    let _task = subscribe(&state, caller.lease, "".into(), filter, start, out)?;
    let events = stream::unfold((deliveries, state), |(mut deliveries, state)| async move {
        let (_, delivery) = deliveries.recv().await?;
        if matches!(delivery, Delivery::Reset(..)) {
            state.telemetry().live_resets.inc();
        }
        Some((Ok::<_, Infallible>(event(&delivery)), (deliveries, state)))
    });
    let mut response = Sse::new(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies like nginx must not hold the stream back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn event(delivery: &Delivery) -> Event {
    match delivery {
        Delivery::Window(position, update) => {
            Event::default().id(position.to_string()).event("window").data(update.json.get())
        }
        Delivery::Reset(position, detail) => {
            let data = serde_json::json!({"detail": detail}).to_string();
            Event::default().id(position.to_string()).event("reset").data(data)
        }
        // Without data, only the client's place moves on.
        Delivery::Heartbeat(position) => Event::default().comment("heartbeat").id(position.to_string()),
    }
}
