//! Bad input gets the right status, a problem that names the field, and a dead letter; the process lives on and counts
//! every good event between.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::bad_queries;
use crate::client::{Answer, Client, LIMIT, basic};
use crate::real_stack::wait_until;
use crate::stack::{Backbone, Stack, WORKSPACE, WRITE_KEY};

/// Of an original, in a dead letter.
const MOST_KEPT_BYTES: usize = 64 * 1024;
/// Of a request, by default.
const MOST_BODY_BYTES: usize = 500 * 1024;

/// Events in a request, at most, by default.
const FULL_BATCH: usize = 10_000;

/// One bad request, and what must come of it.
struct Case {
    name: &'static str,
    path: &'static str,
    body: Vec<u8>,
    encoding: &'static str,
    status: u16,
    code: &'static str,
    field: Option<&'static str>,
    /// What the dead letter keeps, before it is cut; `None`: there is none.
    original: Option<Vec<u8>>,
}

impl Case {
    fn new(name: &'static str, path: &'static str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Self {
        let body = body.into();
        let original = Some(body.clone());
        Self { name, path, body, encoding: "", status, code, field: Some("body"), original }
    }

    fn at(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    fn without_field(self) -> Self {
        Self { field: None, ..self }
    }

    fn keeping(self, original: impl Into<Vec<u8>>) -> Self {
        Self { original: Some(original.into()), ..self }
    }

    /// A body that is refused by its stated size is not read to its end.
    fn keeping_beginning(self) -> Self {
        let beginning = self.body[..MOST_KEPT_BYTES].to_vec();
        self.keeping(beginning)
    }

    fn keeping_nothing(self) -> Self {
        Self { original: None, ..self }
    }

    fn encoded(self, encoding: &'static str) -> Self {
        Self { encoding, ..self }
    }
}

pub fn run(backbone: Backbone) {
    let stack = Stack::start(backbone);
    let client = stack.client();
    let cases = cases();
    for (number, case) in cases.iter().enumerate() {
        assert_refused(&client, case);
        assert_lives_on(&client, number);
    }
    partly_valid(&client);
    full_batch(&client);
    keys(&client);
    routes(&client);
    for (number, text) in ["\u{feff}", " \r\n\t"].iter().enumerate() {
        let body = format!("{text}{}{text}", good_event(number + cases.len()));
        // A byte-order mark is fine in front only.
        let body = if number == 0 { body.trim_end_matches('\u{feff}').to_owned() } else { body };
        assert_eq!(client.try_post("/v1/track", body.as_bytes()).unwrap().status, 200);
    }
    bad_queries::run(&client);
    let good = cases.len() + 2 + 1;
    client.wait_for_events(good + FULL_BATCH);
    assert_dead_letters(&client, &cases);
    client.wait_for_total("visitors", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", good as f64);
    let log = std::fs::read_to_string(stack.log()).unwrap();
    assert!(!log.contains("panicked"), "{log}");
    stack.assert_audit_clean();
}

fn good_event(number: usize) -> Value {
    json!({
        "event": "Good", "messageId": format!("good-{number}"), "userId": format!("user-{number}"),
        "timestamp": "2026-03-01T10:00:00Z",
    })
}

fn track_with(properties: &str) -> String {
    format!(r#"{{"event":"Bad","userId":"u","properties":{properties}}}"#)
}

fn cases() -> Vec<Case> {
    let bad =
        |name, properties: &str, code, field| Case::new(name, "/v1/track", track_with(properties), 400, code).at(field);
    let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let large_event = track_with(&format!(r#"{{"a":"{}"}}"#, "x".repeat(33 * 1024)));
    let large_body = vec![b' '; MOST_BODY_BYTES + 1];
    let one_event = r#"{"type":"page","userId":"u"}"#;
    let batch = |events: &str, count: usize| format!(r#"{{"batch":[{}]}}"#, vec![events; count].join(","));
    let zeros = gzipped_zeros(100 * 1024 * 1024);
    assert!(zeros.len() < MOST_BODY_BYTES, "the bomb is small: {} bytes", zeros.len());
    vec![
        Case::new("cut off", "/v1/track", r#"{"event":"Bad","#, 400, "invalid_json"),
        Case::new("no body", "/v1/track", "", 400, "invalid_json"),
        Case::new("two values", "/v1/track", "{} {}", 400, "invalid_json"),
        Case::new("a list", "/v1/track", "[]", 400, "not_an_object"),
        Case::new("a number", "/v1/batch", "7", 400, "not_an_object"),
        Case::new("no UTF-8", "/v1/track", b"{\"event\":\"\xff\xfe\"}".to_vec(), 400, "invalid_utf8").without_field(),
        Case::new("event is a list", "/v1/track", r#"{"event":["Bad"],"userId":"u"}"#, 400, "invalid_field")
            .at("event"),
        Case::new("event is missing", "/v1/track", r#"{"userId":"u"}"#, 400, "missing_field").at("event"),
        Case::new("nobody", "/v1/track", r#"{"event":"Bad"}"#, 400, "missing_field").at("userId"),
        Case::new(
            "timestamp is a word",
            "/v1/track",
            r#"{"event":"B","userId":"u","timestamp":"soon"}"#,
            400,
            "invalid_timestamp",
        )
        .at("timestamp"),
        Case::new(
            "the future",
            "/v1/track",
            r#"{"event":"B","userId":"u","timestamp":"2100-01-01T00:00:00Z"}"#,
            400,
            "from_the_future",
        )
        .at("timestamp"),
        Case::new("properties is a list", "/v1/track", track_with("[1]"), 400, "invalid_field").at("properties"),
        Case::new("properties is a text", "/v1/track", track_with("\"a\""), 400, "invalid_field").at("properties"),
        bad("1e400", r#"{"a":1e400}"#, "number_out_of_range", "properties.a"),
        bad("10^40", &format!(r#"{{"a":1{}}}"#, "0".repeat(40)), "number_out_of_range", "properties"),
        bad("10^40 within", &format!(r#"{{"a":{{"b":[1{}]}}}}"#, "0".repeat(40)), "number_out_of_range", "properties"),
        bad("40 levels", &nested(40), "too_deep", "*"),
        bad("an escaped NUL", r#"{"a":"\u0000"}"#, "nul_character", "properties.a"),
        bad("a lone surrogate", r#"{"a":"\ud800"}"#, "invalid_string", "properties.a"),
        bad("surrogates turned round", r#"{"a":"\udc00\ud800"}"#, "invalid_string", "properties.a"),
        bad("the same name twice", r#"{"a":1,"a":2}"#, "duplicate_name", "properties.a"),
        Case::new("a NUL", "/v1/track", b"{\"event\":\"e\0\",\"userId\":\"u\"}".to_vec(), 400, "invalid_json"),
        Case::new("a million brackets", "/v1/track", "[".repeat(400_000), 400, "invalid_json"),
        Case::new("33 KB", "/v1/track", large_event, 413, "event_too_large").without_field(),
        Case::new("a large body", "/v1/track", large_body, 413, "body_too_large").keeping_beginning(),
        Case::new("a very large body", "/v1/track", vec![b'['; 3 * 1024 * 1024], 413, "body_too_large")
            .keeping_beginning(),
        Case::new("a bomb", "/v1/track", zeros, 413, "body_too_large")
            .encoded("gzip")
            .keeping(vec![0; MOST_BODY_BYTES]),
        Case::new("not gzip", "/v1/track", "plain", 400, "invalid_encoding").encoded("gzip"),
        Case::new("unknown encoding", "/v1/track", "{}", 415, "unsupported_encoding")
            .encoded("rot13")
            .without_field()
            .keeping_nothing(),
        Case::new("no batch", "/v1/batch", "{}", 400, "missing_field").at("batch"),
        Case::new("an empty batch", "/v1/batch", r#"{"batch":[]}"#, 400, "empty_batch").at("batch"),
        Case::new("batch is a text", "/v1/batch", r#"{"batch":"x"}"#, 400, "invalid_field").at("batch"),
        Case::new("10,001 events", "/v1/batch", batch(one_event, 10_001), 413, "too_many_events").at("batch"),
        Case::new(
            "10,000 larger events",
            "/v1/batch",
            batch(r#"{"type":"page","userId":"u","messageId":"m","name":"Pricing"}"#, 10_000),
            413,
            "body_too_large",
        )
        .keeping_beginning(),
        Case::new(
            "revenue is a word",
            "/v1/campaigns/events",
            r#"{"type":"conversion","campaign":"c","revenue":"much"}"#,
            400,
            "invalid_field",
        )
        .at("*"),
        Case::new("no such kind", "/v1/campaigns/events", r#"{"type":"glance","campaign":"c"}"#, 400, "unknown_type")
            .at("type"),
        Case::new("click on nothing", "/v1/campaigns/events", r#"{"type":"click"}"#, 400, "missing_field")
            .at("campaign"),
    ]
}

fn gzipped_zeros(count: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1024 * 1024];
    for _ in 0..count / block.len() {
        encoder.write_all(&block).unwrap();
    }
    encoder.finish().unwrap()
}

fn send(client: &Client, path: &str, encoding: &str, body: &[u8]) -> Answer {
    let key = basic(WRITE_KEY);
    let mut headers = vec![("authorization", key.as_str()), ("content-type", "application/json")];
    if !encoding.is_empty() {
        headers.push(("content-encoding", encoding));
    }
    client.send(client.ingest_port, "POST", path, &headers, body)
}

/// The status and the code of a problem document.
fn assert_problem(answer: &Answer, status: u16, code: &str, name: &str) {
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (status, "application/problem+json"),
        "{name}: {answer:?}"
    );
    let problem = answer.json();
    assert_eq!(problem["type"], format!("urn:neonhub:problem:{code}"), "{name}: {problem}");
    assert_eq!(problem["status"], status, "{name}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{name}: {problem}");
}

fn assert_refused(client: &Client, case: &Case) {
    let answer = send(client, case.path, case.encoding, &case.body);
    assert_problem(&answer, case.status, case.code, case.name);
    let problem = answer.json();
    match case.field {
        // Some field, whichever it is called.
        Some("*") => assert!(problem["field"].is_string(), "{}: {problem}", case.name),
        Some(field) => assert_eq!(problem["field"], field, "{}: {problem}", case.name),
        None => assert!(problem["field"].is_null(), "{}: {problem}", case.name),
    }
}

fn assert_lives_on(client: &Client, number: usize) {
    assert!(Client::answers(&format!("http://127.0.0.1:{}/health/ready", client.ingest_port)));
    let answer = client.post("/v1/track", &good_event(number));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(1)), "{answer:?}");
}

/// The good event of a batch is taken, the bad ones are told by their places.
fn partly_valid(client: &Client) {
    let mut good = good_event(1_000);
    good["type"] = "track".into();
    let batch = json!({ "batch": [{ "type": "track", "userId": "u" }, good, { "type": "nothing", "userId": "u" }, 7] });
    let answer = client.post("/v1/batch", &batch);
    let verdict = answer.json();
    assert_eq!((answer.status, &verdict["accepted"]), (200, &json!(1)), "{verdict}");
    let rejected: Vec<(u64, &str)> = verdict["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| (event["index"].as_u64().unwrap(), event["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(rejected, [(0, "missing_field"), (2, "unknown_type"), (3, "not_an_object")]);
    assert_eq!(verdict["rejected"][0]["field"], "batch[0].event", "{verdict}");
}

/// As many events as a request may have. Without a timestamp they are of now, so they add nothing to the day of the good.
fn full_batch(client: &Client) {
    let events = vec![json!({ "type": "page", "userId": "u" }); FULL_BATCH];
    let answer = client.post("/v1/batch", &json!({ "batch": events }));
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &json!(FULL_BATCH)), "{answer:?}");
}

fn keys(client: &Client) {
    let event = good_event(2_000).to_string();
    let wrong = basic("no-such-key-anywhere");
    for headers in [vec![], vec![("authorization", wrong.as_str())], vec![("authorization", "Basic %%%")]] {
        let answer = client.send(client.ingest_port, "POST", "/v1/track", &headers, event.as_bytes());
        assert_problem(&answer, 401, "unknown_write_key", "a stranger");
    }
}

fn routes(client: &Client) {
    let ask = |method: &str, path: &str| client.send(client.ingest_port, method, path, &[], b"");
    assert_problem(&ask("GET", "/v1/track"), 405, "wrong_method", "GET on a route for POST");
    assert_problem(&ask("GET", "/v1/nothing/here"), 404, "no_route", "an unknown path");
    assert_problem(&ask("POST", "/v1/../etc/passwd"), 404, "no_route", "a path that climbs");
}

/// A dead letter for each bad request of this workspace, with its reason and the original bytes.
fn assert_dead_letters(client: &Client, cases: &[Case]) {
    let expected: Vec<_> = cases.iter().filter_map(|case| Some((case, case.original.as_deref()?))).collect();
    let from_the_batch = 3;
    let sql = format!("SELECT count() FROM dead_letters WHERE workspace = '{WORKSPACE}'");
    let mut count = String::new();
    let outcome = wait_until("the dead letters are landed", LIMIT, || {
        count = client.sql(&sql);
        Ok(count == (expected.len() + from_the_batch).to_string())
    });
    assert!(outcome.is_ok(), "{count} dead letters, {} were expected", expected.len() + from_the_batch);
    let sql = format!(
        "SELECT reason, field, original, encoding, toString(original_size) AS size, stage FROM dead_letters \
         WHERE workspace = '{WORKSPACE}' FORMAT JSONEachRow"
    );
    let letters: Vec<Value> = client.sql(&sql).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (case, original) in expected {
        let kept = &original[..original.len().min(MOST_KEPT_BYTES)];
        let size = original.len().to_string();
        let is_of_case = |letter: &&Value| {
            letter["reason"] == case.code && letter["size"] == size.as_str() && original_of(letter) == kept
        };
        let letter = letters.iter().find(is_of_case);
        let letter = letter.unwrap_or_else(|| panic!("no dead letter for: {}", case.name));
        assert_eq!(letter["stage"], "ingest", "{}", case.name);
    }
    // Strangers leave letters without a workspace; how many is bounded.
    let strangers =
        client.sql("SELECT count() FROM dead_letters WHERE workspace = '' AND reason = 'unknown_write_key'");
    assert!((1..=3).contains(&strangers.parse::<u64>().unwrap()), "{strangers}");
}

fn original_of(letter: &Value) -> Vec<u8> {
    let text = letter["original"].as_str().unwrap();
    if letter["encoding"] == "base64" { BASE64.decode(text).unwrap() } else { text.as_bytes().to_vec() }
}
