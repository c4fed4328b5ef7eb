//! What holds for every route: keys, problems, health.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Method, Request};
use neonhub_api::ApiConfig;
use neonhub_api::feed::memory::MemoryFeed;
use neonhub_api::olap::OlapError;
use serde_json::json;

use crate::rig::{PATIENCE, Rig};

#[tokio::test]
async fn a_key_is_needed() {
    let rig = Rig::new();
    for authorization in [None, Some("Bearer wrong"), Some("Basic c2VjcmV0"), Some("secret")] {
        let mut request = Request::get("/v1/metrics");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = rig.send(request.body(Body::empty()).unwrap()).await;
        answer.problem(401);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    assert_eq!(rig.get("/v1/metrics").await.status, 200);
    let in_query = Request::get("/v1/metrics?access_token=secret").body(Body::empty()).unwrap();
    rig.send(in_query).await.problem(401);
}

#[tokio::test]
async fn every_wrong_turn_is_a_problem() {
    let rig = Rig::new();
    rig.get("/v2/nothing").await.problem(404);
    rig.call(Method::DELETE, "/v1/metrics", None).await.problem(405);
    rig.call(Method::POST, "/v1/metrics/query", None).await.problem(415);
    let post = |body: String| {
        Request::post("/v1/metrics/query")
            .header("authorization", "Bearer secret")
            .header("content-type", "application/json")
            .body(Body::from(body))
            .unwrap()
    };
    assert_eq!(rig.send(post("{".into())).await.problem(400).as_deref(), Some("body"));
    assert_eq!(rig.send(post(r#"{"metrics":1}"#.into())).await.problem(400).as_deref(), Some("metrics"));
    rig.send(post(" ".repeat(2_000_000))).await.problem(413);
    rig.get("/v1/live").await.problem(400);
    assert_eq!(rig.get("/v1/live/metrics?grain=year").await.problem(400).as_deref(), Some("grain"));
    assert_eq!(rig.get("/v1/live/metrics?last_event_id=x").await.problem(400).as_deref(), Some("last_event_id"));
    rig.olap.answers().failure = Some(OlapError::Away("gone".into()));
    let query =
        json!({"metrics": ["clicks"], "grain": "total", "from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"});
    let away = rig.call(Method::POST, "/v1/metrics/query", Some(query.clone())).await;
    away.problem(503);
    assert_eq!(away.headers["retry-after"], "2");
    rig.olap.answers().failure = Some(OlapError::TimedOut);
    rig.call(Method::POST, "/v1/metrics/query", Some(query.clone())).await.problem(504);
    rig.olap.answers().failure = Some(OlapError::Refused("Code: 62 in SELECT secret_thing".into()));
    let ours = rig.call(Method::POST, "/v1/metrics/query", Some(query)).await;
    ours.problem(500);
    assert!(ours.json["request_id"].is_string() && !ours.text.contains("secret_thing"), "{}", ours.text);
}

#[tokio::test]
async fn readiness_says_which_part_is_away_and_why() {
    let rig = Rig::new();
    assert_eq!(rig.get("/health/live").await.status, 200);
    let ready = async {
        loop {
            rig.elapsed.fetch_add(500, Ordering::SeqCst);
            if rig.get("/health/ready").await.status == 200 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.unwrap();
    rig.store.set_away(true);
    rig.elapsed.fetch_add(499, Ordering::SeqCst);
    assert_eq!(rig.get("/health/ready").await.status, 200, "the parts are asked twice a second at most");
    rig.elapsed.fetch_add(1, Ordering::SeqCst);
    let answer = rig.get("/health/ready").await;
    answer.problem(503);
    assert_eq!(answer.json["parts"]["store"]["ready"], false);
    assert!(answer.json["parts"]["store"]["reason"].as_str().unwrap().contains("switched off"));
    assert_eq!(answer.json["parts"]["clickhouse"]["ready"], true);
    assert!(rig.get("/metrics").await.text.contains("neonhub_api_requests_total"));
}

#[tokio::test]
async fn other_origins_are_a_setting() {
    let preflight = || {
        Request::options("/v1/metrics/query")
            .header("origin", "https://dashboard.example")
            .header("access-control-request-method", "POST")
            .body(Body::empty())
            .unwrap()
    };
    let closed = Rig::new().send(preflight()).await;
    assert!(!closed.headers.contains_key("access-control-allow-origin"));
    let config = ApiConfig { origins: neonhub_api::Origins::Any, ..ApiConfig::for_testing() };
    let open = Rig::with(config, MemoryFeed::new(1)).send(preflight()).await;
    assert_eq!(open.headers["access-control-allow-origin"], "*");
    for (origin, is_let_in) in [("https://dashboard.example", true), ("https://other.example", false)] {
        let origins = neonhub_api::Origins::Named(vec![axum::http::HeaderValue::from_static(origin)]);
        let named = Rig::with(ApiConfig { origins, ..ApiConfig::for_testing() }, MemoryFeed::new(1));
        let allowed = named.send(preflight()).await.headers.get("access-control-allow-origin").cloned();
        assert_eq!(allowed.is_some_and(|allowed| allowed == "https://dashboard.example"), is_let_in, "{origin}");
    }
}

#[tokio::test]
async fn every_answer_says_which_request_it_is_of() {
    let rig = Rig::new();
    let ask = async |path: &str, stated: Option<&[u8]>| {
        let mut request = Request::get(path).header("authorization", "Bearer secret");
        if let Some(stated) = stated {
            request = request.header("x-request-id", stated);
        }
        rig.send(request.body(Body::empty()).unwrap()).await
    };
    for path in ["/v1/metrics", "/v2/nothing", "/docs/", "/openapi.json", "/health/live", "/metrics"] {
        assert_eq!(ask(path, Some(b"page-7/query-2")).await.headers["x-request-id"], "page-7/query-2", "{path}");
        let (one, other) = (ask(path, None).await, ask(path, None).await);
        assert!(
            one.headers["x-request-id"].len() == 36 && one.headers["x-request-id"] != other.headers["x-request-id"]
        );
    }
    for indecent in [&b""[..], b"two words", b"\xff", &[b'a'; 129]] {
        assert_eq!(ask("/v1/metrics", Some(indecent)).await.headers["x-request-id"].len(), 36, "{indecent:?}");
    }
    let lost = ask("/v2/nothing", Some(b"lost")).await;
    assert_eq!((lost.status.as_u16(), &lost.json["request_id"]), (404, &json!("lost")));
}

#[tokio::test]
async fn the_docs_come_from_the_binary() {
    let rig = Rig::new();
    let page = rig.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("https://"), "{}", page.text);
    assert_eq!(rig.get("/docs/swagger-ui-bundle.js").await.status, 200);
    assert!(rig.get("/docs/swagger-initializer.js").await.text.contains("/openapi.json"));
}
