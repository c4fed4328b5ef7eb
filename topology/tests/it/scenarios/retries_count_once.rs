//! The same batch posted five times with the same messageIds counts once: in events, in windows, and live.

use serde_json::{Value, json};

use crate::stack::{Backbone, Stack};

pub fn run(backbone: Backbone) {
    let stack = Stack::start(backbone);
    let client = stack.client();
    let batch: Vec<Value> = (0..200)
        .map(|number| {
            json!({
                "type": if number % 4 == 0 { "click" } else { "impression" }, "messageId": format!("m-{number}"),
                "campaign": format!("c-{}", number % 3), "anonymousId": format!("a-{}", number % 17),
                "timestamp": format!("2026-01-05T10:{:02}:00Z", number % 60),
            })
        })
        .collect();
    for _ in 0..5 {
        client.accept("/v1/campaigns/events", &batch);
    }
    client.wait_for_events(200);
    let (from, to) = ("2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z");
    client.wait_for_total("clicks", from, to, 50.0);
    client.wait_for_total("impressions", from, to, 150.0);
    stack.assert_audit_clean();
    // A sixth time, after everything has settled.
    client.accept("/v1/campaigns/events", &batch);
    client.accept(
        "/v1/campaigns/events",
        &[json!({
            "type": "click", "messageId": "last", "campaign": "c-0", "timestamp": "2026-01-05T10:00:00Z",
        })],
    );
    client.wait_for_total("clicks", from, to, 51.0);
    client.wait_for_events(201);
    stack.assert_audit_clean();
}
