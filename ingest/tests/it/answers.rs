//! The table of answers.

use neonhub_ingest::sink::memory::Fault;
use neonhub_ingest::{IngestConfig, SinkError, WriteKey};
use neonhub_schemas::{Envelope, Topic};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::house::{House, request};
use axum::body::Body;
use axum::http::StatusCode;

const TRACK: &str = r#"{"event":"Order Completed","userId":"u","messageId":"m","properties":{"revenue":2}}"#;

#[tokio::test]
async fn what_an_sdk_counts_of_itself_is_thrown_away() {
    let house = House::new();
    let answer = house.post("/v1/m", r#"{"series": [{"type": "Counter", "metric": "analytics_js.invoke"}]}"#).await;
    assert_eq!((answer.status.as_u16(), house.sink.records().len()), (204, 0));
}

#[tokio::test]
async fn two_hundred_once_the_events_are_on_the_log() {
    let house = House::new();
    let paths = ["/v1/track", "/v1/t"];
    for path in paths {
        let answer = house.post(path, TRACK).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json(), serde_json::json!({"success": true, "accepted": 1, "rejected": []}));
    }
    let records = house.records(Topic::RawBehavior);
    assert_eq!((records.len(), records[0].key.as_ref()), (2, b"acme|u".as_slice()));
    let value = records[0].value.clone().unwrap();
    let event = Envelope::decode(&value).unwrap();
    assert_eq!((event.workspace.as_ref(), event.name.as_ref()), ("acme", "Order Completed"));
}

#[tokio::test]
async fn every_route_takes_its_events() {
    let house = House::new();
    let cases = [
        ("/v1/identify", r#"{"userId":"u"}"#),
        ("/v1/i", r#"{"userId":"u"}"#),
        ("/v1/page", r#"{"userId":"u"}"#),
        ("/v1/p", r#"{"userId":"u"}"#),
        ("/v1/screen", r#"{"userId":"u"}"#),
        ("/v1/s", r#"{"userId":"u"}"#),
        ("/v1/group", r#"{"userId":"u","groupId":"g"}"#),
        ("/v1/g", r#"{"userId":"u","groupId":"g"}"#),
        ("/v1/alias", r#"{"userId":"u","previousId":"p"}"#),
        ("/v1/a", r#"{"userId":"u","previousId":"p"}"#),
        ("/v1/batch", r#"{"batch":[{"type":"page","userId":"u"}]}"#),
        ("/v1/b", r#"{"batch":[{"type":"page","userId":"u"}]}"#),
        ("/beacon/v1/batch", r#"{"batch":[{"type":"page","userId":"u"}]}"#),
        ("/v1/import", r#"{"batch":[{"type":"page","userId":"u","timestamp":"2019-01-01T00:00:00Z"}]}"#),
        ("/v1/campaigns/events", r#"{"type":"click","campaign":"men"}"#),
        ("/v1/integrations/stripe/events", r#"{"type":"invoice.paid","payload":{}}"#),
    ];
    for (path, body) in cases {
        let answer = house.post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {:?}", answer.json());
    }
    assert_eq!(house.records(Topic::RawCampaign).len(), 1);
    let linkedin = house.post("/v1/integrations/LinkedIn/events", r#"{"type":"lead","payload":{}}"#).await;
    assert_eq!(linkedin.status, StatusCode::OK);
    let records = house.records(Topic::RawIntegration);
    let platforms: Vec<_> = records.iter().map(|record| record.value.clone().unwrap()).collect();
    let platforms: Vec<_> =
        platforms.iter().map(|value| Envelope::decode(value).unwrap().platform.unwrap().into_owned()).collect();
    assert_eq!(platforms, ["stripe", "linkedin"]);
    assert_eq!(house.post("/v1/integrations/St%20ripe/events", "{}").await.problem(), "unknown_platform");
}

#[tokio::test]
async fn a_batch_that_is_partly_valid() {
    let house = House::new();
    let body = r#"{"batch":[{"type":"track","event":"e","userId":"u"},{"type":"track","userId":"u"}]}"#;
    let answer = house.post("/v1/batch", body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json();
    assert_eq!((&json["accepted"], &json["rejected"][0]["index"]), (&1.into(), &1.into()));
    assert_eq!(json["rejected"][0]["field"], "batch[1].event");
    assert_eq!(json["rejected"][0]["reason"], "missing_field");
    let letters = house.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].original, r#"{"type":"track","userId":"u"}"#);
    assert_eq!((letters[0].workspace.as_str(), letters[0].stage.as_str()), ("acme", "ingest"));
    // The same request again leaves the same letter.
    house.post("/v1/batch", body).await;
    let letters = house.dead_letters();
    assert_eq!(letters[0].place, letters[1].place);
}

#[tokio::test]
async fn nothing_valid_is_a_400_even_without_the_log() {
    let house = House::new();
    let answer = house.post("/v1/batch", r#"{"batch":[{"type":"x"},{"type":"track"}]}"#).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "unknown_type"));
    assert_eq!(answer.json()["field"], "batch[0].type");
    assert_eq!(answer.json()["rejected"][1]["field"], "batch[1].userId");
    house.sink.inject(Fault::Fail(SinkError::unavailable("away")));
    let answer = house.post("/v1/track", r#"{"event":"e"}"#).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["field"]), (400, &"userId".into()));
    let metrics = String::from_utf8(house.get("/metrics").await.body).unwrap();
    assert!(metrics.contains("neonhub_ingest_dead_letters_lost_total 1"), "{metrics}");
}

#[tokio::test]
async fn keys_are_found_in_head_query_and_body_or_the_answer_is_401() {
    let house = House::new();
    let without = |path: &str, body: &str| request("POST", path).body(Body::from(body.to_owned())).unwrap();
    let body_key = r#"{"event":"e","userId":"u","writeKey":"test-key"}"#;
    let batch_key = r#"{"batch":[{"type":"page","userId":"u","writeKey":"test-key"}]}"#;
    for sent in
        [without("/v1/track", body_key), without("/v1/batch", batch_key), without("/v1/track?writeKey=test-key", TRACK)]
    {
        assert_eq!(house.send(sent).await.status, StatusCode::OK);
    }
    let wrong_basic = request("POST", "/v1/track").header("authorization", "Basic bm9wZTo=");
    for sent in [
        without("/v1/track", TRACK),
        without("/v1/track?writeKey=wrong", body_key),
        without("/v1/track", "{"),
        wrong_basic.body(Body::from(TRACK)).unwrap(),
    ] {
        let answer = house.send(sent).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "unknown_write_key"));
        assert!(answer.header("www-authenticate").starts_with("Basic"));
    }
    let letters = house.dead_letters();
    assert!(letters.iter().all(|letter| letter.workspace.is_empty() && letter.reason == "unknown_write_key"));
    // Strangers cannot fill the log.
    for _ in 0..50 {
        house.send(without("/v1/track", TRACK)).await;
    }
    assert_eq!(house.dead_letters().len(), 10);
}

#[tokio::test]
async fn a_quota_that_is_used_up() {
    let mut config = IngestConfig::for_testing();
    config.keys = vec![WriteKey { events_per_second: 2, burst: 4, ..WriteKey::new("acme", "test-key", "t") }];
    let house = House::with(config);
    let three = r#"[{"type":"click","campaign":"c"},{"type":"click","campaign":"c"},{"type":"click","campaign":"c"}]"#;
    let answer = house.post("/v1/campaigns/events", three).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("ratelimit-policy"), "\"events\";q=4;w=2");
    assert_eq!(answer.header("ratelimit"), "\"events\";r=1;t=2");
    let answer = house.post("/v1/campaigns/events", three).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (429, "quota_exceeded"));
    assert_eq!((answer.header("retry-after"), answer.header("ratelimit")), ("1", "\"events\";r=0;t=1"));
    // Whatever becomes of the wall clock.
    house.now_ms.fetch_sub(86_400_000, Ordering::SeqCst);
    house.elapsed_ms.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!(house.post("/v1/campaigns/events", three).await.status, StatusCode::OK);
    let five = format!("[{}]", [r#"{"type":"click","campaign":"c"}"#; 5].join(","));
    let answer = house.post("/v1/campaigns/events", five).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "batch_exceeds_quota"));
    assert_eq!(answer.header("ratelimit-policy"), "\"events\";q=4;w=2");
    assert_eq!(answer.header("ratelimit"), "\"events\";r=0;t=2");
}

#[tokio::test]
async fn a_log_that_is_away_or_full_is_503_and_a_retry_succeeds() {
    let house = House::new();
    house.sink.inject(Fault::Fail(SinkError::unavailable("away")));
    house.sink.inject(Fault::Fail(SinkError::queue_full()));
    house.sink.inject(Fault::UnknownOutcome);
    house.sink.inject(Fault::Fail(SinkError::Rejected { detail: "too large".to_owned() }));
    let expected = [
        (503, "log_unavailable", "5"),
        (503, "queue_full", "1"),
        (503, "log_unavailable", "5"),
        (500, "log_refused", ""),
    ];
    for (status, code, wait) in expected {
        let answer = house.post("/v1/track", TRACK).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code));
        assert_eq!(answer.header("retry-after"), wait);
    }
    assert_eq!(house.post("/v1/track", TRACK).await.status, StatusCode::OK);
    let mids: Vec<_> = house.records(Topic::RawBehavior).iter().map(|one| one.headers.get("mid").cloned()).collect();
    assert_eq!(mids, vec![Some("m".into()); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_is_503_in_the_end() {
    let house = House::new();
    house.sink.hold(true);
    let answer = house.post("/v1/track", TRACK).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "timeout"));
    assert_eq!(answer.header("retry-after"), "1");
    house.sink.hold(false);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(house.post("/v1/track", TRACK).await.status, StatusCode::OK);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let house = House::new();
    assert_eq!(house.get("/nothing").await.problem(), "no_route");
    let answer = house.get("/v1/track").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (405, "wrong_method"));
    let named = request("POST", "/nothing").header("x-request-id", "abc-1").body(Body::empty()).unwrap();
    assert_eq!(house.send(named).await.json()["request_id"], "abc-1");
}

#[tokio::test]
async fn health_metrics_and_the_document() {
    let house = House::new();
    house.post("/v1/track", TRACK).await;
    assert_eq!(house.get("/health/live").await.status, StatusCode::OK);
    assert_eq!(house.get("/health/ready").await.status, StatusCode::OK);
    house.sink.set_ready(Err("no broker".to_owned()));
    let answer = house.get("/health/ready").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["log"]), (503, &"no broker".into()));
    let metrics = String::from_utf8(house.get("/metrics").await.body).unwrap();
    for line in [
        "neonhub_ingest_requests_total{route=\"track\",status=\"200\"} 1",
        "neonhub_ingest_events_accepted_total{source=\"behavior\"} 1",
        "neonhub_ingest_in_flight_bytes 0",
        "neonhub_ingest_append_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let document = house.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    for path in ["/v1/track", "/v1/b", "/v1/import", "/v1/campaigns/events", "/v1/pixel.gif", "/health/ready"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let takes_events = |path: &str| path.contains("/v1/") && path != "/v1/m";
    for (path, item) in paths.iter().filter(|(path, _)| takes_events(path)) {
        let operation = item.get("post").or_else(|| item.get("get")).unwrap();
        for status in ["200", "400", "401", "408", "413", "415", "429", "500", "503"] {
            assert!(operation["responses"][status].is_object(), "{path} {status}");
        }
    }
    assert_eq!(document["paths"]["/v1/batch"]["post"]["operationId"], "batch");
    assert_eq!(document["paths"]["/beacon/v1/batch"]["post"]["operationId"], "beacon_batch");
    assert_eq!(document["paths"]["/pixel/v1/{kind}"]["get"]["operationId"], "rudderstack_pixel");
    let webhook = &document["paths"]["/v1/integrations/{platform}/webhook"]["post"];
    assert!(webhook["responses"]["404"].is_object());
    assert!(webhook["responses"]["401"]["description"].as_str().unwrap().contains("signature"), "{webhook}");
}
