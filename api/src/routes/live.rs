//! What SSE and WebSocket share: starting a subscription.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::auth::{Grant, Lease};
use crate::catalog::{Catalog, is_built_in};
use crate::feed::filter::LiveFilter;
use crate::feed::follow::{Delivery, Follow, Start};
use crate::problem::Problem;
use crate::state::ApiState;

/// Deliveries that wait for a client before its subscription waits too.
pub const CHANNEL: usize = 64;

pub type Deliveries = mpsc::Sender<(Arc<str>, Delivery)>;

/// Where to begin: a place, or `earliest`, or `latest`.
///
/// # Errors
/// 400: no place.
pub fn start_from(last_event_id: Option<&str>, from: Option<&str>) -> Result<Start, Problem> {
    if let Some(text) = last_event_id.filter(|text| !text.is_empty()) {
        return text
            .parse()
            .map(Start::At)
            .map_err(|error: crate::feed::position::PositionError| Problem::field("last_event_id", error.to_string()));
    }
    match from {
        None | Some("" | "latest") => Ok(Start::Latest),
        Some("earliest") => Ok(Start::Earliest),
        Some(other) => Err(Problem::field("from", format!("`{other}` is neither earliest nor latest"))),
    }
}

/// What a subscription asks for, once it is known that its metrics are pushed.
///
/// # Errors
/// 400: no such metric, a derived one, no such grain, or a filter without a colon. 403: the grant does not show it. 503: the store does not answer.
pub async fn checked_filter(
    state: &ApiState,
    grant: &Grant,
    metrics: impl IntoIterator<Item = String>,
    grain: Option<&str>,
    filters: impl IntoIterator<Item = String>,
) -> Result<LiveFilter, Problem> {
    let filter = LiveFilter::read(&grant.workspace, metrics, grain, filters)?;
    // Built-in names need no store, so that their subscriptions begin while it is away.
    let named = filter.metrics.iter().chain(grant.metrics.iter().flatten());
    let catalog = match named.into_iter().all(|name| is_built_in(name)) {
        true => Catalog::new(&[]),
        false => state.definitions().catalog(&grant.workspace).await?,
    };
    let filter = filter.within(grant, &catalog)?;
    filter.check_metrics(&catalog)?;
    Ok(filter)
}

/// Spawns a subscription; it ends with the receiver of `out`, with the caller's lease, or when the server stops.
///
/// # Errors
/// 503: there are too many.
pub fn subscribe(
    state: &ApiState,
    lease: Lease,
    tag: Arc<str>,
    filter: LiveFilter,
    start: Start,
    out: Deliveries,
) -> Result<tokio::task::AbortHandle, Problem> {
    let permit = state.live_clients().clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("there are too many live clients", 10))?;
    let gauge = ClientGauge::new(state);
    let follow = Follow {
        hub: state.hub().clone(),
        filter,
        heartbeat: state.config().heartbeat,
        stopping: state.stopping(),
        tag,
        out,
    };
    let of_lease = state.clone();
    let task = tokio::spawn(async move {
        let _held = (permit, gauge);
        tokio::select! {
            () = follow.run(start) => {}
            () = lease.ended(&of_lease) => {}
        }
    });
    Ok(task.abort_handle())
}

/// Counts a client as long as it lives, however it ends.
struct ClientGauge(ApiState);

impl ClientGauge {
    fn new(state: &ApiState) -> Self {
        state.telemetry().live_clients.inc();
        Self(state.clone())
    }
}

impl Drop for ClientGauge {
    fn drop(&mut self) {
        self.0.telemetry().live_clients.dec();
    }
}
