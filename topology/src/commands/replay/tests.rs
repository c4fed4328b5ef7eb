//! A replay against an ingest that misbehaves.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::poster::Poster;
use super::source::Source;
use super::*;
use crate::clients::http_client;

/// What an ingest was sent, and the troubles it still makes.
#[derive(Default)]
struct Ingest {
    troubles: Mutex<Vec<(StatusCode, Option<&'static str>)>>,
    largest_batch: usize,
    /// By route and messageId: how often.
    taken: Mutex<BTreeMap<(String, String), usize>>,
    /// In order, by actor.
    order: Mutex<BTreeMap<String, Vec<u64>>>,
}

async fn answer(State(ingest): State<Arc<Ingest>>, request: Request) -> Response {
    assert_eq!(request.headers()["authorization"], "Basic a2V5Og==");
    let route = request.uri().path().to_owned();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let batch = body["batch"].as_array().unwrap();
    if batch.len() > ingest.largest_batch {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let mut rejected = Vec::new();
    for (index, event) in batch.iter().enumerate() {
        if event["bad"] == true {
            rejected.push(json!({"index": index, "reason": "invalid_field", "field": format!("batch[{index}].bad"),
                "detail": "must not be"}));
            continue;
        }
        let id = event["messageId"].as_str().unwrap().to_owned();
        *ingest.taken.lock().unwrap().entry((route.clone(), id)).or_default() += 1;
        if let (Some(actor), Some(n)) = (event["userId"].as_str(), event["n"].as_u64()) {
            ingest.order.lock().unwrap().entry(actor.to_owned()).or_default().push(n);
        }
    }
    // The trouble comes after the work: what was taken is sent again with the same ids.
    if let Some((status, retry_after)) = ingest.troubles.lock().unwrap().pop() {
        let mut response = status.into_response();
        if let Some(text) = retry_after {
            response.headers_mut().insert("retry-after", text.parse().unwrap());
        }
        return response;
    }
    let accepted = batch.len() - rejected.len();
    json!({"success": true, "accepted": accepted, "rejected": rejected}).to_string().into_response()
}

async fn serve(ingest: Arc<Ingest>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(ingest);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn replay_text(url: &str, text: &str, rate: Option<u32>) -> Summary {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, text).unwrap();
    let options = ReplayOptions {
        client: http_client(None).unwrap(),
        files: vec![file.clone()],
        mapping: None,
        url: url.to_owned(),
        write_key: "key".to_owned(),
        rate,
        batch: 10,
        json: true,
        as_import: false,
    };
    let source = Source { files: vec![file], mapping: None, as_import: false };
    let poster = Poster::new(http_client(None).unwrap(), url, "key").unwrap().with_patience(Duration::from_millis(300));
    replay(source, Arc::new(poster), &options, &ProgressBar::hidden()).await
}

fn events(count: usize) -> String {
    let line = |n: usize| json!({"type": "track", "event": "x", "userId": format!("u{}", n % 7), "n": n}).to_string();
    (0..count).map(line).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn troubles_are_retried_with_the_same_ids_and_actors_keep_their_order() {
    let troubles = vec![(StatusCode::SERVICE_UNAVAILABLE, Some("0")), (StatusCode::TOO_MANY_REQUESTS, None)];
    let ingest = Arc::new(Ingest { troubles: Mutex::new(troubles), largest_batch: 6, ..Ingest::default() });
    let url = serve(ingest.clone()).await;
    let summary = replay_text(&url, &events(200), None).await;
    assert_eq!((summary.sent, summary.accepted, summary.retries), (200, 200, 2), "{summary:?}");
    assert!(summary.is_clean());
    let taken = ingest.taken.lock().unwrap().clone();
    assert_eq!(taken.len(), 200);
    assert!(taken.values().any(|count| *count == 2), "nothing was sent twice");
    for (actor, mut numbers) in ingest.order.lock().unwrap().clone() {
        // Repeated batches are in order too, after what they repeat.
        let mut first_seen = Vec::new();
        numbers.retain(|n| {
            if first_seen.contains(n) {
                false
            } else {
                first_seen.push(*n);
                true
            }
        });
        assert!(numbers.is_sorted(), "{actor}: {numbers:?}");
    }
    let again = replay_text(&url, &events(200), None).await;
    assert_eq!(again.accepted, 200);
    assert_eq!(ingest.taken.lock().unwrap().len(), 200, "replaying makes the same ids");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named_and_the_rest_goes_on() {
    let ingest = Arc::new(Ingest { largest_batch: 100, ..Ingest::default() });
    let url = serve(ingest.clone()).await;
    let text =
        "{\"type\":\"page\"}\n{\"type\":\"page\",\"bad\":true}\nnonsense\n{\"type\":\"send\",\"campaign\":\"a\"}";
    let summary = replay_text(&url, text, Some(1_000)).await;
    assert_eq!((summary.accepted, summary.rejected, summary.unreadable), (2, 2, 1), "{summary:?}");
    let mut reasons = summary.first_reasons.clone();
    reasons.sort();
    assert_eq!(reasons[0], "events.ndjson:2: bad: must not be (invalid_field)");
    assert_eq!(reasons[1], "events.ndjson:3: an event is a JSON object");
    let routes: Vec<String> = ingest.taken.lock().unwrap().keys().map(|(route, _)| route.clone()).collect();
    assert_eq!(routes, ["/v1/batch", "/v1/campaigns/events"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_stays_away_or_knows_no_such_key_ends_the_replay() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let summary = replay_text(&format!("http://{closed}"), &events(5_000), None).await;
    assert!(summary.failure.as_deref().unwrap().contains("gave up after"), "{summary:?}");
    assert_eq!(summary.accepted, 0);
    let troubles = Mutex::new(vec![(StatusCode::UNAUTHORIZED, None); 20]);
    let url = serve(Arc::new(Ingest { troubles, largest_batch: 100, ..Ingest::default() })).await;
    let summary = replay_text(&url, &events(50), None).await;
    assert!(summary.failure.as_deref().unwrap().contains("401"), "{summary:?}");
    assert!(!summary.is_clean());
}

#[test]
fn urls_that_cannot_be_spoken_to_are_refused() {
    let poster = |url| Poster::new(http_client(None).unwrap(), url, "key");
    assert!(poster("localhost").is_err() && poster("https://example.com").is_ok());
    assert!(poster("ftp://example.com").unwrap_err().to_string().contains("http://"));
}

#[test]
fn the_documented_mappings_read_what_they_are_for() {
    let open_bandit = Mapping::parse(include_str!("../../../../docs/replay/open-bandit.toml")).unwrap();
    let headers =
        "timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,user_feature_3";
    let headers: csv::StringRecord = headers.split(',').collect::<Vec<_>>().into();
    let row =
        csv::StringRecord::from(vec!["2019-11-24 00:00:17.004101+00:00", "79", "2", "1", "0.08", "a", "b", "c", "d"]);
    let events = table::Table::bind(&open_bandit, &headers).unwrap().events(&row).unwrap();
    assert_eq!((&events[0]["type"], &events[1]["type"]), (&json!("impression"), &json!("click")));
    assert_eq!(
        events[1]["properties"],
        json!({"policy": "bts", "item_id": 79, "position": 2, "propensity_score": 0.08})
    );
    let yoochoose = Mapping::parse(include_str!("../../../../docs/replay/yoochoose.toml")).unwrap();
    let headers = csv::StringRecord::from(vec!["SessionId", "ItemId", "Time"]);
    let row = csv::StringRecord::from(vec!["8", "214838855", "1396766998.728"]);
    let events = table::Table::bind(&yoochoose, &headers).unwrap().events(&row).unwrap();
    assert_eq!(events[0]["timestamp"], "2014-04-06T06:49:58.728Z");
}
