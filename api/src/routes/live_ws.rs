//! `GET /v1/live`: many subscriptions over one WebSocket.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::live::{CHANNEL, Deliveries, checked_filter, start_from, subscribe};
use super::openapi::ReadProblems;
use super::request_id;
use crate::auth::{Allowance, BrowserCaller, Caller, Grant, Lease, MetricsRead};
use crate::extract::parse;
use crate::feed::follow::Delivery;
use crate::problem::Problem;
use crate::state::ApiState;

const MAX_SUBSCRIPTIONS: usize = 100;
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// A client says little: what each socket has for it is a thirtieth of the library's.
const READ_BUFFER_BYTES: usize = 4 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum ClientMessage {
    Subscribe(Subscribe),
    /// The subscription's id.
    Unsubscribe(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    id: String,
    #[serde(default)]
    metrics: Vec<String>,
    grain: Option<String>,
    #[serde(default)]
    filters: Vec<Filter>,
    last_event_id: Option<String>,
    from: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    dimension: String,
    value: String,
}

/// Revisions of windows over a WebSocket
///
/// JSON messages. Send `{"subscribe":{"id":"a","metrics":["clicks"],"grain":"hour",
/// "filters":[{"dimension":"campaign","value":"men"}],"last_event_id":"…"}}` or `{"unsubscribe":"a"}`; get
/// `{"subscribed":"a"}`, `{"subscription":"a","id":"…","window":{…}}`, `{"subscription":"a","id":"…","reset":"…"}`,
/// `{"unsubscribed":"a"}`, `{"error":{…}}`; and `{"subscription":"a","id":"…"}`, the place to come back to, as soon as
/// the subscription has caught up and with every heartbeat. Each message counts as a request; a socket that sends more than
/// its key's quota is closed with 1008.
#[utoipa::path(
    get, path = "/v1/live", tag = "live", security(("api_key" = [])),
    params(("access_token" = Option<String>, Query, description = "the API key, for browsers")),
    responses((status = 101, description = "a WebSocket"), ReadProblems)
)]
pub async fn live_socket(
    State(state): State<ApiState>,
    BrowserCaller(caller): BrowserCaller<MetricsRead>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|rejection| {
        let status = match rejection {
            WebSocketUpgradeRejection::ConnectionNotUpgradable(_) => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, "open this address as a WebSocket")
    })?;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        // Every message is flushed.
        .write_buffer_size(0);
    let id = request_id::Current::of_request();
    Ok(upgrade.on_upgrade(move |socket| {
        id.scope(async move {
            if let Err(error) = Connection::new(state, caller).run(socket).await {
                tracing::debug!(%error, "a live socket ended");
            }
        })
    }))
}

/// Whether a client may say so.
#[cfg(any(test, fuzzing))]
pub(crate) fn is_client_message(message: &[u8]) -> bool {
    parse::<ClientMessage>(message).is_ok()
}

struct Connection {
    state: ApiState,
    grant: Grant,
    lease: Lease,
    allowance: Allowance,
    subscriptions: HashMap<Arc<str>, AbortHandle>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.subscriptions.values().for_each(AbortHandle::abort);
    }
}

impl Connection {
    fn new(state: ApiState, caller: Caller<MetricsRead>) -> Self {
        let Caller { grant, lease, allowance, .. } = caller;
        Self { state, grant, lease, allowance, subscriptions: HashMap::new() }
    }

    async fn run(mut self, mut socket: WebSocket) -> Result<(), axum::Error> {
        let (out, mut deliveries) = mpsc::channel(CHANNEL);
        let stopping = self.state.clone();
        let lease = self.lease.clone();
        let mut pings = tokio::time::interval(self.state.config().heartbeat);
        loop {
            tokio::select! {
                message = socket.recv() => match message.transpose()? {
                    None | Some(Message::Close(_)) => return Ok(()),
                    // Answers to our own pings.
                    Some(Message::Pong(_)) => {}
                    Some(message) => {
                        // A message is a request: it costs one, whatever it says.
                        if let Err(problem) = self.allowance.take(&self.state) {
                            let frame = CloseFrame { code: close_code::POLICY, reason: problem.detail.into() };
                            return socket.send(Message::Close(Some(frame))).await;
                        }
                        let message = match &message {
                            Message::Text(text) => text.as_bytes(),
                            Message::Binary(bytes) => bytes,
                            _ => continue,
                        };
                        let answer = self.take(message, &out).await;
                        socket.send(Message::Text(answer.into())).await?;
                    }
                },
                Some((tag, delivery)) = deliveries.recv() => {
                    // What was still on its way when the client unsubscribed is dropped.
                    if let Some(text) = self.text(&tag, &delivery) {
                        socket.send(Message::Text(text.into())).await?;
                    }
                }
                _ = pings.tick() => socket.send(Message::Ping(bytes::Bytes::new())).await?,
                () = stopping.stopped() => {
                    return socket.send(Message::Close(None)).await;
                }
                () = lease.ended(&stopping) => {
                    let frame = CloseFrame { code: close_code::POLICY, reason: "the key or token is not in force any more".into() };
                    return socket.send(Message::Close(Some(frame))).await;
                }
            }
        }
    }

    async fn take(&mut self, message: &[u8], out: &Deliveries) -> String {
        let answer = match parse::<ClientMessage>(message) {
            Err(problem) => Err(problem),
            Ok(ClientMessage::Subscribe(wanted)) => self.subscribe(wanted, out).await,
            Ok(ClientMessage::Unsubscribe(id)) => match self.subscriptions.remove(id.as_str()) {
                Some(task) => {
                    task.abort();
                    Ok(json!({"unsubscribed": id}))
                }
                None => Err(Problem::field("unsubscribe", format!("there is no subscription `{id}`"))),
            },
        };
        answer.unwrap_or_else(|problem| json!({"error": problem.body()})).to_string()
    }

    async fn subscribe(&mut self, wanted: Subscribe, out: &Deliveries) -> Result<serde_json::Value, Problem> {
        if !self.lease.is_in_force(&self.state) {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "the key or token is not in force any more"));
        }
        if wanted.id.is_empty() || wanted.id.len() > 128 {
            return Err(Problem::field("subscribe.id", "is 1 to 128 bytes long"));
        }
        if self.subscriptions.contains_key(wanted.id.as_str()) {
            return Err(Problem::field("subscribe.id", format!("`{}` is in use: unsubscribe it first", wanted.id)));
        }
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let detail = format!("a socket has at most {MAX_SUBSCRIPTIONS} subscriptions");
            return Err(Problem::field("subscribe", detail));
        }
        let (metrics, grain) = (wanted.metrics, wanted.grain.as_deref());
        let mut filter = checked_filter(&self.state, &self.grant, metrics, grain, Vec::new()).await?;
        filter.dimensions = wanted.filters.into_iter().map(|filter| (filter.dimension, filter.value)).collect();
        let start = start_from(wanted.last_event_id.as_deref(), wanted.from.as_deref())?;
        let tag: Arc<str> = wanted.id.as_str().into();
        let task = subscribe(&self.state, self.lease.clone(), tag.clone(), filter, start, out.clone())?;
        self.subscriptions.insert(tag, task);
        Ok(json!({"subscribed": wanted.id}))
    }

    fn text(&self, tag: &Arc<str>, delivery: &Delivery) -> Option<String> {
        if !self.subscriptions.contains_key(tag) {
            return None;
        }
        match delivery {
            Delivery::Window(position, update) => {
                let tag = serde_json::to_string(&**tag).ok()?;
                // The window was written as JSON once, for everybody.
                Some(format!(r#"{{"subscription":{tag},"id":"{position}","window":{}}}"#, update.json.get()))
            }
            Delivery::Reset(position, detail) => {
                self.state.telemetry().live_resets.inc();
                Some(json!({"subscription": &**tag, "id": position.to_string(), "reset": detail}).to_string())
            }
            // So that a client that has seen no window yet, or none for long, can come back to where it is.
            Delivery::Heartbeat(position) => {
                Some(json!({"subscription": &**tag, "id": position.to_string()}).to_string())
            }
        }
    }
}
