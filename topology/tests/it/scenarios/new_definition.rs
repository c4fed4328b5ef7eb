//! A new metric definition by API counts every event posted after the answer, without a restart.

use serde_json::{Value, json};

use crate::stack::{Backbone, Stack};

pub fn run(backbone: Backbone) {
    let stack = Stack::start(backbone);
    let client = stack.client();
    let order = |number: usize, country: &str| -> Value {
        json!({
            "type": "track", "event": "Order Completed", "messageId": format!("o-{number}"),
            "userId": format!("u-{}", number % 7), "timestamp": "2026-05-01T12:00:00Z",
            "properties": { "revenue": 19.99, "country": country },
        })
    };
    let before: Vec<Value> = (0..20).map(|number| order(number, "de")).collect();
    client.accept("/v1/batch", &before);
    client.wait_for_events(20);
    let definition = json!({
        "source": "behavior", "event": "Order Completed", "value": "properties.revenue", "aggregation": "sum",
        "where": [{ "field": "properties.country", "op": "in", "values": ["de", "fr"] }],
        "dimensions": ["properties.country"],
    });
    let answer = client.api("PUT", "/v1/metrics/definitions/order_revenue", Some(&definition));
    assert!(answer.status == 200 || answer.status == 201, "{} {}", answer.status, answer.body);
    let after: Vec<Value> = (20..80).map(|number| order(number, ["de", "fr", "us"][number % 3])).collect();
    client.accept("/v1/batch", &after);
    let query = json!({
        "metrics": ["order_revenue"], "grain": "day", "from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z",
        "group_by": ["country"],
    });
    let rows =
        client.wait_for_rows(&query, |rows| rows.len() == 2 && rows.iter().all(|row| row["order_revenue"] == 399.8));
    let countries: Vec<&str> = rows.iter().filter_map(|row| row["country"].as_str()).collect();
    assert_eq!(countries, ["de", "fr"]);
    // A derived one needs no counting of its own.
    let derived = json!({ "expression": "order_revenue / visitors" });
    assert!(client.api("PUT", "/v1/metrics/definitions/revenue_per_visitor", Some(&derived)).status < 300);
    client.wait_for_total("revenue_per_visitor", "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z", 799.6 / 7.0);
    stack.assert_audit_clean();
    let shown = client.api("GET", "/v1/metrics/definitions/order_revenue", None).json();
    assert!(shown["activations"].as_array().is_some_and(|places| !places.is_empty()), "{shown}");
}
