//! The demo against a stack that is one process, counts in memory, and loses every tenth answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::rows::tests::text;
use super::*;

#[derive(Clone)]
struct MockStack {
    /// By messageId: campaign, policy, day, kind.
    events: Arc<Mutex<BTreeMap<String, [String; 4]>>>,
    requests: Arc<Mutex<u64>>,
    changes: watch::Sender<u64>,
}

type Groups = BTreeMap<[String; 3], (u64, u64)>;

impl MockStack {
    /// Impressions and clicks by campaign, policy and day, or an empty day.
    fn counts(&self, by_day: bool) -> Groups {
        let mut groups = Groups::new();
        for [campaign, policy, day, kind] in self.events.lock().unwrap().values() {
            let day = if by_day { day.clone() } else { String::new() };
            let counts = groups.entry([campaign.clone(), policy.clone(), day]).or_default();
            if kind == "click" { counts.1 += 1 } else { counts.0 += 1 }
        }
        groups
    }
}

async fn ingest(State(mock): State<MockStack>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers["authorization"], "Basic d3JpdGU6");
    let body: Value = serde_json::from_slice(&body).unwrap();
    let batch = body["batch"].as_array().unwrap();
    assert!(batch.len() <= 100);
    for event in batch {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let day = text(&event["timestamp"])[..10].to_owned();
        let fields = [text(&event["campaign"]), text(&event["properties"]["policy"]), day, text(&event["type"])];
        mock.events.lock().unwrap().insert(text(&event["messageId"]), fields);
    }
    mock.changes.send_modify(|count| *count += 1);
    let mut requests = mock.requests.lock().unwrap();
    *requests += 1;
    if (*requests).is_multiple_of(10) {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], "lost").into_response();
    }
    json!({"success": true, "accepted": batch.len(), "rejected": []}).to_string().into_response()
}

async fn metrics(State(mock): State<MockStack>, headers: HeaderMap, body: Bytes) -> String {
    assert_eq!(headers["authorization"], "Bearer read");
    let query: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&query["from"], &query["to"]), (&json!("2019-11-24T00:00:00Z"), &json!("2019-11-26T00:00:00Z")));
    let row = |([campaign, policy, day], (impressions, clicks)): ([String; 3], (u64, u64))| {
        let ctr = clicks as f64 / impressions as f64;
        json!({"window_start": format!("{day}T00:00:00Z"), "campaign": campaign, "policy": policy,
            "impressions": impressions, "clicks": clicks, "ctr": ctr, "final": false})
    };
    let rows: Vec<Value> = mock.counts(query["grain"] == "day").into_iter().map(row).collect();
    json!({"rows": rows, "meta": {}}).to_string()
}

async fn sql(State(mock): State<MockStack>, RawQuery(query): RawQuery, statement: String) -> String {
    let query = query.unwrap();
    assert!(query.contains("param_workspace=demo") && query.contains("param_database=neonhub"), "{query}");
    if statement.contains("uniqExact") {
        let count = mock.events.lock().unwrap().len();
        return json!({"events": count, "message_ids": count}).to_string();
    }
    let row = |([campaign, policy, day], (impressions, clicks)): ([String; 3], (u64, u64))| {
        json!({"campaign": campaign, "policy": policy, "day": day, "impressions": impressions, "clicks": clicks})
            .to_string()
            + "\n"
    };
    mock.counts(true).into_iter().map(row).collect()
}

async fn live(State(mock): State<MockStack>) -> Response {
    let revisions = stream::unfold((mock.changes.subscribe(), mock), |(mut changes, mock)| async move {
        changes.changed().await.ok()?;
        let revision = *changes.borrow_and_update();
        let mut text = String::from(": beat\n\n");
        for ([campaign, policy, _], (impressions, clicks)) in mock.counts(false) {
            for (metric, count) in [("impressions", impressions), ("clicks", clicks)] {
                let window = json!({"metric": metric, "series": 0, "window_start": "2019-11-24T00:00:00Z",
                    "dimensions": {"campaign": campaign, "policy": policy}, "epoch": "0-0", "revision": revision,
                    "count": count, "value": count});
                text += &format!("id: {revision}\nevent: window\ndata: {window}\n\n");
            }
        }
        Some((text, (changes, mock)))
    });
    Body::from_stream(revisions.map(Ok::<_, std::convert::Infallible>)).into_response()
}

async fn serve() -> (MockStack, DemoStack) {
    let (changes, _) = watch::channel(0);
    let mock = MockStack { events: Arc::default(), requests: Arc::default(), changes };
    let router = Router::new()
        .route("/v1/campaigns/events", post(ingest))
        .route("/v1/metrics/query", post(metrics))
        .route("/v1/live/metrics", get(live))
        .route("/", post(sql))
        .with_state(mock.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let stack = DemoStack {
        ingest_url: url.clone(),
        api_url: url.clone(),
        clickhouse_url: url,
        database: "neonhub".into(),
        workspace: "demo".into(),
        write_key: "write".into(),
        api_key: "read".into(),
    };
    (mock, stack)
}

/// Six files of `rows` each; every seventh row has a click.
fn write_files(folder: &Path, rows: usize) {
    for policy in POLICIES {
        std::fs::create_dir(folder.join(policy)).unwrap();
        for campaign in CAMPAIGNS {
            let lines: Vec<(String, u8)> = (0..rows)
                .map(|n| (format!("2019-11-2{} 00:00:{:02}+00:00", 4 + n % 2, n % 60), u8::from(n % 7 == 0)))
                .collect();
            let lines: Vec<(&str, u8)> = lines.iter().map(|(at, click)| (at.as_str(), *click)).collect();
            std::fs::write(folder.join(policy).join(format!("{campaign}.csv")), text(&lines)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_sent_once_seen_live_and_agrees() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), 700);
    let (mock, stack) = serve().await;
    let options = DemoOptions { data: folder.path().to_owned(), json: true, interactive: false };
    let outcome = run(options.clone(), stack.clone()).await.unwrap();
    assert!(outcome.agree, "{outcome:?}");
    assert_eq!(outcome.sending.events, 6 * 800);
    assert!(outcome.sending.retries >= 4, "{:?}", outcome.sending);
    assert_eq!(mock.events.lock().unwrap().len(), 6 * 800);
    assert_eq!(outcome.results.len(), 6);
    assert!(outcome.results.iter().all(|result| result.counts.impressions == 700 && result.counts.clicks == 100));
    assert_eq!(outcome.live.total, outcome.truth.total);
    assert!(outcome.latency.live_seconds.is_some());
    let refused = run(options, stack).await.unwrap_err();
    assert!(refused.to_string().contains("already holds 4800 events"), "{refused}");
}

#[tokio::test]
async fn missing_data_and_a_stack_that_is_away_are_said_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let (_, stack) = serve().await;
    let options = DemoOptions { data: folder.path().to_owned(), json: true, interactive: false };
    let error = run(options.clone(), stack.clone()).await.unwrap_err();
    assert!(format!("{error:#}").contains("random/all.csv"), "{error:#}");
    write_files(folder.path(), 2);
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = run(options, DemoStack { clickhouse_url: format!("http://{closed}"), ..stack }).await.unwrap_err();
    assert!(format!("{error:#}").contains("counting the workspace's events"), "{error:#}");
}
