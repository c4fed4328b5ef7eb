//! Bad requests to the query API: each is refused with a problem, none is the server's fault, and no text from outside
//! becomes SQL.

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::stack::API_KEY;

const INJECTIONS: [&str; 6] = [
    "'; DROP TABLE events; --",
    "x') OR 1=1 --",
    "campaign'] FROM system.tables; --",
    "\\'; SELECT 1; --",
    "{p0:String}",
    "`; DETACH DATABASE neonhub; --",
];

pub fn run(client: &Client) {
    bodies(client);
    metric_queries(client);
    event_queries(client);
    definitions(client);
    live(client);
    strangers(client);
    injections(client);
    assert!(Client::answers(&format!("http://127.0.0.1:{}/health/ready", client.api_port)));
    let tables = client
        .sql("SELECT count() FROM system.tables WHERE database = 'neonhub' AND name IN ('events', 'metric_windows')");
    assert_eq!(tables, "2");
}

fn assert_problem(answer: &Answer, status: u16, field: Option<&str>, what: &str) {
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (status, "application/problem+json"),
        "{what}: {answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["status"], status, "{what}: {problem}");
    if let Some(field) = field {
        assert_eq!(problem["field"], field, "{what}: {problem}");
    }
}

fn metric_query(changes: Value) -> Value {
    let mut query = json!({
        "metrics": ["clicks"], "grain": "day", "from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z",
    });
    let Value::Object(changes) = changes else { panic!("an object is expected") };
    query.as_object_mut().unwrap().extend(changes);
    query
}

fn ask(client: &Client, path: &str, body: &Value) -> Answer {
    client.api("POST", path, Some(body))
}

fn bodies(client: &Client) {
    let bearer = format!("Bearer {API_KEY}");
    let json_headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"7",
        b"[]",
        b"\xff\xfe",
        b"{\"metrics\":[\"clicks\0\"]}",
        deep.as_bytes(),
        b"{\"metrics\":[\"\\ud800\"]}",
    ];
    for path in ["/v1/metrics/query", "/v1/events/query"] {
        for body in bodies {
            let answer = client.send(client.api_port, "POST", path, &json_headers, body);
            assert_problem(
                &answer,
                400,
                None,
                &format!("{path} {}", String::from_utf8_lossy(&body[..body.len().min(40)])),
            );
        }
        let text = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
        assert_problem(&client.send(client.api_port, "POST", path, &text, b"{}"), 415, None, "not said to be JSON");
        let large = vec![b' '; 1024 * 1024 + 1];
        assert_problem(&client.send(client.api_port, "POST", path, &json_headers, &large), 413, None, "over 1 MB");
        assert_problem(&client.send(client.api_port, "GET", path, &json_headers[..1], b""), 405, None, "GET");
    }
    assert_problem(&client.api("GET", "/v1/nothing", None), 404, None, "an unknown path");
}

fn metric_queries(client: &Client) {
    let cases = [
        (json!({ "metrics": ["nope"] }), "metrics[0]"),
        (json!({ "metrics": [] }), "metrics"),
        (json!({ "metrics": 7 }), "metrics"),
        (json!({ "grain": "fortnight" }), "grain"),
        (json!({ "timezone": "Mars/Olympus" }), "timezone"),
        (json!({ "timezone": "../../etc/passwd" }), "timezone"),
        (json!({ "from": "2026-03-03T00:00:00Z" }), "to"),
        (json!({ "from": "yesterday" }), "from"),
        (json!({ "to": "9999-12-31T23:59:59Z" }), "to"),
        (json!({ "from": 1e300 }), "from"),
        (json!({ "group_by": ["planet"] }), "group_by[0]"),
        (json!({ "filters": [{ "dimension": "planet", "op": "eq", "value": "x" }] }), "filters[0].dimension"),
        (json!({ "filters": [{ "dimension": "policy", "op": "in", "values": [] }] }), "filters[0]"),
        (json!({ "filters": [{ "dimension": "policy", "op": "eq", "value": { "a": 1 } }] }), "filters[0]"),
        (json!({ "order": [{ "by": "1; DROP TABLE events" }] }), "order[0].by"),
        (json!({ "limit": -1 }), "limit"),
        (json!({ "limit": 0 }), "limit"),
    ];
    for (changes, field) in cases {
        let answer = ask(client, "/v1/metrics/query", &metric_query(changes.clone()));
        assert_problem(&answer, 400, Some(field), &changes.to_string());
    }
    let unknown = ask(client, "/v1/metrics/query", &metric_query(json!({ "limits": 1 })));
    assert_problem(&unknown, 400, None, "an unknown member");
    let endless = metric_query(json!({ "grain": "minute", "from": "1980-01-01T00:00:00Z" }));
    assert_problem(&ask(client, "/v1/metrics/query", &endless), 422, None, "46 years of minutes");
}

fn event_queries(client: &Client) {
    let cases = [
        (json!({ "columns": ["secret"] }), "columns[0]"),
        (json!({ "columns": ["name FROM system.users --"] }), "columns[0]"),
        (json!({ "filters": [{ "field": "name) OR (1", "op": "eq", "value": "x" }] }), "filters[0].field"),
        (json!({ "filters": [{ "field": "name", "op": "like", "value": "x" }] }), "filters[0].op"),
        (json!({ "from": "2026-03-02T00:00:00Z", "to": "2026-03-01T00:00:00Z" }), "to"),
        (json!({ "limit": 100_000 }), "limit"),
        (json!({ "cursor": "'; DROP TABLE events; --" }), "cursor"),
    ];
    for (query, field) in cases {
        assert_problem(&ask(client, "/v1/events/query", &query), 400, Some(field), &query.to_string());
    }
}

fn definitions(client: &Client) {
    let put = |name: &str, definition: Value| {
        client.api("PUT", &format!("/v1/metrics/definitions/{name}"), Some(&definition))
    };
    let count = json!({ "source": "behavior", "event": "Good", "aggregation": "count" });
    let bad = [
        ("wrong-name!", count.clone()),
        ("clicks", count),
        ("bad_1", json!({ "expression": "clicks / (" })),
        ("bad_2", json!({ "expression": "no_such_metric / clicks" })),
        ("bad_3", json!({ "source": "space", "aggregation": "count" })),
        ("bad_4", json!({ "source": "behavior", "aggregation": "median" })),
        ("bad_5", json!({ "source": "behavior", "aggregation": "sum" })),
        ("bad_6", json!({ "expression": "(".repeat(5_000) })),
        ("bad_7", json!({ "expression": "bad_7 + 1" })),
    ];
    for (name, definition) in bad {
        let answer = put(name, definition.clone());
        let is_refused = (400..500).contains(&answer.status) && answer.content_type == "application/problem+json";
        assert!(is_refused, "{name} {definition}: {answer:?}");
    }
    assert_problem(&client.api("GET", "/v1/metrics/definitions/nothing", None), 404, None, "no such definition");
    assert_problem(&client.api("DELETE", "/v1/metrics/definitions/nothing", None), 404, None, "no such definition");
}

fn live(client: &Client) {
    let cases = [
        ("/v1/live/metrics?last_event_id=soon", 400),
        ("/v1/live/metrics?last_event_id=1.2.99999999999999999999999999", 400),
        ("/v1/live/metrics?from=somewhere", 400),
        ("/v1/live/metrics?grain=fortnight", 400),
        ("/v1/live/metrics?filter=campaign", 400),
    ];
    for (path, status) in cases {
        assert_problem(&client.api("GET", path, None), status, None, path);
    }
    let no_socket = client.api("GET", "/v1/live", None);
    assert!([400, 426].contains(&no_socket.status), "{no_socket:?}");
}

fn strangers(client: &Client) {
    let query = metric_query(json!({})).to_string();
    for headers in [vec![], vec![("authorization", "Bearer wrong")], vec![("authorization", "Basic %%%")]] {
        let mut headers = headers;
        headers.push(("content-type", "application/json"));
        let answer = client.send(client.api_port, "POST", "/v1/metrics/query", &headers, query.as_bytes());
        assert_problem(&answer, 401, None, "a stranger");
    }
}

/// As a value, such a text is a value that no event has; as a name, it is an unknown name.
fn injections(client: &Client) {
    for text in INJECTIONS {
        for operator in ["eq", "in", "contains", "prefix"] {
            let member = if operator == "in" { "values" } else { "value" };
            let value = if operator == "in" { json!([text]) } else { json!(text) };
            let filters = json!([{ "dimension": "policy", "op": operator, member: value }]);
            let answer = ask(client, "/v1/metrics/query", &metric_query(json!({ "filters": filters })));
            assert_eq!((answer.status, &answer.json()["rows"]), (200, &json!([])), "{text} {operator}: {answer:?}");
            let filters = json!([{ "field": "properties.item", "op": operator, member: value }]);
            let answer = ask(client, "/v1/events/query", &json!({ "filters": filters }));
            assert_eq!(answer.status, 200, "{text} {operator}: {answer:?}");
        }
        for changes in [
            json!({ "metrics": [text] }),
            json!({ "group_by": [text] }),
            json!({ "timezone": text }),
            json!({ "from": text }),
            json!({ "filters": [{ "dimension": text, "op": "eq", "value": "x" }] }),
        ] {
            let answer = ask(client, "/v1/metrics/query", &metric_query(changes.clone()));
            assert_problem(&answer, 400, None, &changes.to_string());
        }
        // A path into the properties may have any name; it stays a name.
        let answer = ask(client, "/v1/events/query", &json!({ "columns": [format!("properties.{text}")] }));
        assert!(answer.status < 500, "{text}: {answer:?}");
    }
}
