//! SSE and WebSocket: every revision seen, none twice, however slow the client is and whenever it comes back.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use futures::{SinkExt, StreamExt};
use neonhub_api::feed::memory::MemoryFeed;
use neonhub_api::routes::ToldToStop;
use neonhub_api::{ApiConfig, serve};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;
use tower::ServiceExt;

use crate::rig::{PATIENCE, Rig, upsert};

async fn axum_on(listener: TcpListener, router: Router, told: ToldToStop) {
    axum::serve(listener, router).with_graceful_shutdown(told).await.unwrap();
}

#[derive(Debug, Default)]
struct SseEvent {
    id: String,
    event: String,
    data: String,
}

/// A client that reads one event at a time.
struct Client {
    body: BodyDataStream,
    text: String,
    events: VecDeque<SseEvent>,
}

impl Client {
    async fn open(rig: &Rig, query: &str, last_event_id: Option<&str>) -> Self {
        let uri = format!("/v1/live/metrics?{query}");
        let mut request = Request::get(uri).header("authorization", "Bearer secret");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = rig.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new(), events: VecDeque::new() }
    }

    /// The next event, heartbeats included.
    async fn next_raw(&mut self) -> Option<SseEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.unwrap()?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((whole, rest)) = self.text.split_once("\n\n") {
                let mut event = SseEvent::default();
                for line in whole.lines() {
                    match line.split_once(':') {
                        Some(("id", value)) => event.id = value.trim().to_owned(),
                        Some(("event", value)) => event.event = value.trim().to_owned(),
                        Some(("data", value)) => event.data = value.trim().to_owned(),
                        _ => {}
                    }
                }
                self.events.push_back(event);
                self.text = rest.to_owned();
            }
        }
    }

    async fn next(&mut self) -> SseEvent {
        loop {
            let event = self.next_raw().await.unwrap();
            if !event.event.is_empty() {
                return event;
            }
        }
    }

    async fn revisions(&mut self, count: usize) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for _ in 0..count {
            let event = self.next().await;
            let window: Value = serde_json::from_str(&event.data).unwrap();
            let campaign = window["dimensions"]["campaign"].as_str().unwrap().to_owned();
            found.push((campaign, window["revision"].as_u64().unwrap()));
        }
        found
    }
}

/// Waits until a subscription tails the hub: its first heartbeat says where it is.
async fn ready(client: &mut Client) -> String {
    client.next_raw().await.unwrap().id
}

#[tokio::test]
async fn a_client_sees_what_it_asked_for_with_its_value() {
    let rig = Rig::new();
    let mut client = Client::open(&rig, "metrics=clicks&grain=hour&filter=campaign:men", None).await;
    ready(&mut client).await;
    rig.feed.append(0, Some(&upsert("women", 1)));
    rig.feed.append(0, None);
    rig.feed.append_bytes(0, Some("damaged".into()));
    let mut foreign = upsert("men", 9);
    foreign.key.workspace = "other".into();
    rig.feed.append(1, Some(&foreign));
    rig.feed.append(1, Some(&upsert("men", 3)));
    let event = client.next().await;
    let window: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!((event.event.as_str(), &window["value"], &window["revision"]), ("window", &json!(3), &json!(3)));
    assert!(window.get("distinct").is_none());
    assert!(event.id.ends_with(".3"), "{}", event.id);
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_long_keeps_no_reader_and_misses_nothing() {
    let rig = Rig::new();
    for revision in 1..=200 {
        rig.feed.append(0, Some(&upsert("men", revision)));
    }
    let mut client = Client::open(&rig, "from=earliest", None).await;
    let feed = rig.feed.clone();
    // The hub has one for itself.
    let given_back = move || feed.await_readers_left(1, 2, PATIENCE);
    assert!(tokio::task::spawn_blocking(given_back).await.unwrap());
    let expected: Vec<_> = (1..=200).map(|revision| ("men".to_owned(), revision)).collect();
    assert_eq!(client.revisions(200).await, expected);
}

#[tokio::test]
async fn coming_back_replays_every_revision_once() {
    let rig = Rig::new();
    let mut client = Client::open(&rig, "from=latest", None).await;
    let mut id = ready(&mut client).await;
    let mut seen = Vec::new();
    for round in 0..5_u64 {
        for revision in 0..6 {
            rig.feed.append((revision % 2) as usize, Some(&upsert("men", round * 6 + revision + 1)));
        }
        // It goes away in the middle of each round.
        for _ in 0..3 {
            let event = client.next().await;
            let window: Value = serde_json::from_str(&event.data).unwrap();
            seen.push(window["revision"].as_u64().unwrap());
            id = event.id;
        }
        drop(client);
        client = Client::open(&rig, "", Some(&id)).await;
    }
    seen.extend(client.revisions(15).await.into_iter().map(|(_, revision)| revision));
    seen.sort_unstable();
    assert_eq!(seen, (1..=30).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_slow_client_loses_nothing() {
    let config = ApiConfig { live_buffer: 4, ..ApiConfig::for_testing() };
    let rig = Rig::with(config, MemoryFeed::new(1));
    let mut client = Client::open(&rig, "", None).await;
    ready(&mut client).await;
    // More than the hub's buffer and the client's channel hold together, while nobody reads.
    for revision in 1..=500 {
        rig.feed.append(0, Some(&upsert("men", revision)));
    }
    let expected: Vec<(String, u64)> = (1..=500).map(|revision| ("men".to_owned(), revision)).collect();
    assert_eq!(client.revisions(500).await, expected);
}

#[tokio::test]
async fn earliest_replays_and_a_place_that_is_gone_is_told() {
    let rig = Rig::new();
    for revision in 1..=4 {
        rig.feed.append(0, Some(&upsert("men", revision)));
    }
    let mut client = Client::open(&rig, "from=earliest", None).await;
    assert_eq!(client.revisions(4).await.len(), 4);
    // Offsets 0 and 2 are deleted; 4 and 6 stay.
    rig.feed.delete_before(0, 4);
    let mut client = Client::open(&rig, "last_event_id=1.0", None).await;
    let reset = client.next().await;
    assert_eq!((reset.event.as_str(), reset.id.as_str()), ("reset", "4.0"));
    let revisions: Vec<u64> = client.revisions(2).await.into_iter().map(|(_, revision)| revision).collect();
    assert_eq!(revisions, [3, 4]);
}

#[tokio::test]
async fn an_outage_of_the_log_only_delays() {
    let rig = Rig::new();
    let mut client = Client::open(&rig, "", None).await;
    ready(&mut client).await;
    rig.feed.set_away(true);
    rig.feed.append(0, Some(&upsert("men", 1)));
    let noticed = async {
        while rig.state.hub().failure().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, noticed).await.unwrap();
    rig.feed.set_away(false);
    assert_eq!(client.revisions(1).await, [("men".to_owned(), 1)]);
}

#[tokio::test]
async fn idle_clients_get_heartbeats_and_the_end_comes_with_the_server() {
    let config = ApiConfig { heartbeat: Duration::from_millis(20), max_live_clients: 1, ..ApiConfig::for_testing() };
    let rig = Rig::with(config, MemoryFeed::new(3));
    let mut client = Client::open(&rig, "", None).await;
    for _ in 0..3 {
        assert_eq!(client.next_raw().await.unwrap().id, "0.0.0");
    }
    rig.get("/v1/live/metrics").await.problem(503);
    rig.state.stop();
    while client.next_raw().await.is_some() {}
}

#[tokio::test]
async fn a_socket_can_come_back_before_its_first_window() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let axum = |router, told| axum_on(listener, router, told);
    let server = tokio::spawn(serve(rig.state.clone(), std::future::pending(), axum));
    // What came before is not of interest.
    rig.feed.append(0, Some(&upsert("men", 1)));
    let mut tail = Client::open(&rig, "from=earliest", None).await;
    tail.revisions(1).await;
    let address = format!("ws://{address}/v1/live?access_token=secret");
    // The first message with `what`.
    let subscribe = async |wanted: Value, what: &str| {
        let (mut socket, _) = tokio_tungstenite::connect_async(&address).await.unwrap();
        socket.send(Message::Text(json!({ "subscribe": wanted }).to_string().into())).await.unwrap();
        loop {
            let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let json: Value = serde_json::from_str(&text).unwrap();
            if json.get(what).is_some() {
                return json;
            }
        }
    };
    let place = subscribe(json!({"id": "a"}), "subscription").await;
    assert_eq!(place, json!({"subscription": "a", "id": "1.0"}));
    // It is gone; meanwhile comes what it would have seen.
    rig.feed.append(0, Some(&upsert("men", 2)));
    let missed = subscribe(json!({"id": "a", "last_event_id": place["id"]}), "window").await;
    assert_eq!((&missed["window"]["revision"], &missed["id"]), (&json!(2), &json!("3.0")));
    server.abort();
}

#[tokio::test]
async fn metrics_without_windows_are_refused() {
    let rig = Rig::new();
    let unknown = rig.get("/v1/live/metrics?metrics=clicks,clixs").await;
    assert_eq!(unknown.problem(400).as_deref(), Some("metrics"));
    assert!(unknown.text.contains("`clixs` is no metric"), "{}", unknown.text);
    let derived = rig.get("/v1/live/metrics?metrics=ctr").await;
    assert_eq!(derived.problem(400).as_deref(), Some("metrics"));
    assert!(derived.text.contains("`ctr` is derived: subscribe to clicks, impressions"), "{}", derived.text);
    rig.put("orders", json!({"source": "behavior", "event": "Order Completed", "aggregation": "count"})).await;
    drop(Client::open(&rig, "metrics=orders", None).await);
    rig.store.set_away(true);
    rig.get("/v1/live/metrics?metrics=orders").await.problem(503);
    drop(Client::open(&rig, "metrics=clicks", None).await);
}

#[tokio::test]
async fn a_socket_carries_many_subscriptions() {
    let rig = Rig::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        let _told = stopped.await;
    };
    let axum = |router, told| axum_on(listener, router, told);
    let server = tokio::spawn(serve(rig.state.clone(), shutdown, axum));
    rig.feed.append(0, Some(&upsert("men", 1)));
    let (refused, _) = (tokio_tungstenite::connect_async(format!("ws://{address}/v1/live")).await.is_err(), ());
    assert!(refused);
    let (mut socket, _) =
        tokio_tungstenite::connect_async(format!("ws://{address}/v1/live?access_token=secret")).await.unwrap();
    let say = |json: Value| Message::Text(json.to_string().into());
    let men = json!({"subscribe": {"id": "m", "metrics": ["clicks"], "from": "earliest",
        "filters": [{"dimension": "campaign", "value": "men"}]}});
    socket.send(say(men)).await.unwrap();
    socket.send(say(json!({"subscribe": {"id": "all", "last_event_id": "0.0"}}))).await.unwrap();
    socket.send(say(json!({"subscribe": {"id": "m"}}))).await.unwrap();
    socket.send(say(json!({"unsubscribe": "nobody"}))).await.unwrap();
    socket.send(say(json!({"subscribe": {"id": "g", "grain": "year"}}))).await.unwrap();
    socket.send(say(json!({"subscribe": {"id": "d", "metrics": ["clicks", "ctr"]}}))).await.unwrap();
    let (mut windows, mut errors, mut acknowledged, mut places) = (Vec::new(), Vec::new(), 0, BTreeSet::new());
    while windows.len() < 2 || errors.len() < 4 || acknowledged < 2 || places.len() < 2 {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let json: Value = serde_json::from_str(&text).unwrap();
        if json.get("window").is_some() {
            assert_eq!((&json["window"]["value"], &json["id"]), (&json!(1), &json!("1.0")));
            windows.push(json["subscription"].as_str().unwrap().to_owned());
        } else if json.get("error").is_some() {
            errors.push(json["error"]["field"].as_str().unwrap().to_owned());
        } else if let Some(tag) = json["subscription"].as_str() {
            // It may catch up before or after the window.
            assert!(["0.0", "1.0"].iter().any(|id| json == json!({"subscription": tag, "id": id})), "{json}");
            places.insert(tag.to_owned());
        } else {
            assert!(json.get("subscribed").is_some(), "{json}");
            acknowledged += 1;
        }
    }
    windows.sort_unstable();
    assert_eq!(windows, ["all", "m"]);
    assert_eq!(errors, ["subscribe.id", "unsubscribe", "grain", "metrics"]);
    stop.send(()).unwrap();
    let closed = async { while socket.next().await.is_some_and(|message| message.is_ok()) {} };
    tokio::time::timeout(PATIENCE, closed).await.unwrap();
    tokio::time::timeout(PATIENCE, server).await.unwrap().unwrap();
}

#[tokio::test]
async fn each_message_of_a_socket_counts_as_a_request() {
    let config = ApiConfig { requests_per_minute: 4, ..ApiConfig::for_testing() };
    let rig = Rig::with(config, MemoryFeed::new(2));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}/v1/live?access_token=secret", listener.local_addr().unwrap());
    let axum = |router, told| axum_on(listener, router, told);
    let server = tokio::spawn(serve(rig.state.clone(), std::future::pending(), axum));
    // One for the socket itself, and what it answers to pings is free.
    let (mut socket, _) = tokio_tungstenite::connect_async(&address).await.unwrap();
    let (mut answers, mut end) = (0, None);
    while end.is_none() {
        socket.send(Message::Pong(bytes::Bytes::new())).await.unwrap();
        socket.send(Message::Text(json!({"unsubscribe": "nobody"}).to_string().into())).await.unwrap();
        // Pings come between.
        let answered = loop {
            let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            match message {
                Message::Text(_) => break None,
                Message::Close(frame) => break frame,
                _ => {}
            }
        };
        answers += usize::from(answered.is_none());
        end = answered;
    }
    let end = end.unwrap();
    assert_eq!((answers, u16::from(end.code), &*end.reason), (3, 1008, "more than 4 requests a minute"));
    assert!(tokio_tungstenite::connect_async(&address).await.is_err(), "the key's quota is used up");
    server.abort();
}
