//! Events out of order, late by minutes, a day, a year: every window ends up equal to a batch recount.

use serde_json::{Value, json};

use crate::stack::{Backbone, Options, Stack};

pub fn run(backbone: Backbone) {
    let options = Options { timezone: Some("America/New_York"), ..Options::default() };
    let stack = Stack::start_with(backbone, options, None);
    let client = stack.client();
    let mut number = 0;
    let mut event = |timestamp: &str, kind: &str| -> Value {
        number += 1;
        json!({
            "type": kind, "messageId": format!("m-{number}"), "campaign": format!("c-{}", number % 5),
            "anonymousId": format!("a-{}", number % 23), "timestamp": timestamp, "revenue": 0.1, "cost": "1.005",
        })
    };
    // In order first, so that the watermark is well past what comes after.
    let on_time: Vec<Value> =
        (0..300).map(|i| event(&format!("2026-03-08T{:02}:{:02}:00Z", i / 60 + 4, i % 60), "conversion")).collect();
    client.accept("/v1/campaigns/events", &on_time);
    client.wait_for_events(300);
    let mut late = Vec::new();
    for minutes in 1..40 {
        late.push(event(&format!("2026-03-08T08:{:02}:30Z", 59 - minutes), "conversion"));
    }
    for hour in 0..24 {
        late.push(event(&format!("2026-03-07T{hour:02}:15:00Z"), "spend"));
        late.push(event(&format!("2025-03-08T{hour:02}:45:00Z"), "click"));
    }
    late.reverse();
    client.accept("/v1/campaigns/events", &late);
    client.wait_for_events(300 + late.len());
    client.wait_for_total("clicks", "2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z", 24.0);
    client.wait_for_total("revenue", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 33.9);
    client.wait_for_total("spend", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 24.12);
    stack.assert_audit_clean();
}
