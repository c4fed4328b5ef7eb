//! A WebSocket gets what it subscribed to, and nothing of it any more after it unsubscribed.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::client::Client;
use crate::stack::API_KEY;

const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// `revisions_of`: how many there are of a grain's windows of a campaign's impressions.
pub fn run(client: &Client, revisions_of: impl Fn(&str, &str) -> usize) {
    let mut socket = LiveSocket::open(client.api_port);
    socket.subscribe("hours", "hour", "c-1", revisions_of("hour", "c-1"));
    socket.send(&json!({ "unsubscribe": "hours" }));
    assert_eq!(socket.next_answer(), json!({ "unsubscribed": "hours" }));
    socket.subscribe("days", "day", "c-2", revisions_of("day", "c-2"));
    // A client that goes away before its first window can come back to where it was.
    socket.send(&json!({ "subscribe": { "id": "next", "metrics": ["impressions"], "grain": "day" } }));
    assert_eq!(socket.next_answer(), json!({ "subscribed": "next" }));
    let place = socket.next_place("next");
    socket.send(&json!({ "unsubscribe": "next" }));
    assert_eq!(socket.next_answer(), json!({ "unsubscribed": "next" }));
    // An event for both: only the subscription that is left hears of it.
    let event = |campaign: &str| -> Value {
        json!({ "type": "impression", "campaign": campaign, "timestamp": "2026-03-01T00:00:00Z" })
    };
    client.accept("/v1/campaigns/events", &[event("c-1"), event("c-2")]);
    loop {
        let message = socket.next();
        assert_eq!(message["subscription"], "days", "{message}");
        // Its instant makes older windows final, which is news of theirs.
        if message["window"]["window_start"] == "2026-03-01T00:00:00Z" {
            break;
        }
    }
    let wanted = json!({ "id": "next", "metrics": ["impressions"], "grain": "day", "last_event_id": place });
    socket.send(&json!({ "subscribe": wanted }));
    assert_eq!(socket.next_answer(), json!({ "subscribed": "next" }));
    loop {
        let message = socket.next();
        assert!(message.get("reset").is_none(), "{message}");
        if message["subscription"] == "next" && message["window"]["window_start"] == "2026-03-01T00:00:00Z" {
            break;
        }
    }
    socket.send(&json!({ "subscribe": { "id": "ratio", "metrics": ["ctr"] } }));
    assert_eq!(socket.next_answer()["error"]["field"], "metrics");
    socket.send(&json!({ "subscribe": { "id": "" } }));
    assert_eq!(socket.next_answer()["error"]["field"], "subscribe.id");
    socket.send(&json!([1]));
    assert_eq!(socket.next_answer()["error"]["status"], 400);
}

struct LiveSocket(WebSocket<TcpStream>);

impl LiveSocket {
    fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(SILENCE_LIMIT)).unwrap();
        // As a browser does it, which cannot set headers here.
        let url = format!("ws://127.0.0.1:{port}/v1/live?access_token={API_KEY}");
        let (socket, _) = tungstenite::client(url, stream).unwrap();
        Self(socket)
    }

    fn send(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    fn next(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.0.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The next message that is of no subscription.
    fn next_answer(&mut self) -> Value {
        loop {
            let message = self.next();
            if message.get("subscription").is_none() {
                return message;
            }
        }
    }

    /// Where a subscription is, as it is told without a window.
    fn next_place(&mut self, id: &str) -> Value {
        loop {
            let message = self.next();
            if message["subscription"] == id && message.get("window").is_none() {
                return message["id"].clone();
            }
        }
    }

    /// From the beginning; receives as many revisions as there are.
    fn subscribe(&mut self, id: &str, grain: &str, campaign: &str, revisions: usize) {
        assert!(revisions > 0, "{grain} windows of {campaign} have revisions");
        self.send(&json!({ "subscribe": {
            "id": id, "metrics": ["impressions"], "grain": grain, "from": "earliest",
            "filters": [{ "dimension": "campaign", "value": campaign }],
        } }));
        assert_eq!(self.next(), json!({ "subscribed": id }));
        let mut seen_revisions = 0;
        while seen_revisions < revisions {
            let message = self.next();
            // Only its place, when it has caught up.
            let Some(window) = message.get("window") else { continue };
            seen_revisions += 1;
            let seen = [&message["subscription"], &window["grain"], &window["dimensions"]["campaign"]];
            assert_eq!(seen, [id, grain, campaign], "{message}");
        }
    }
}
