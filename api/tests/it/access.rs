//! Keys that people make, and what each may do.

use axum::http::Method;
use neonhub_schemas::access::{Lookup, Scope};
use neonhub_schemas::topics::Topic;
use serde_json::{Value, json};

use crate::rig::{Answer, Rig};

impl Rig {
    /// Makes a key; its id and the key itself.
    pub async fn make_key(&self, body: Value) -> (String, String) {
        let answer = self.call(Method::POST, "/v1/keys", Some(body)).await;
        assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&answer.json["key"]["id"]), text(&answer.json["secret"]))
    }

    pub async fn with_key(&self, key: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, body, &[("authorization", &format!("Bearer {key}"))]).await
    }
}

/// Every operation of the document that needs a key: a request for it, and the scope that it needs.
fn operations() -> Vec<(Method, &'static str, Option<Value>, Scope)> {
    let query = json!({
        "metrics": ["clicks"], "grain": "day", "from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"
    });
    let events = json!({"from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"});
    let definition = json!({"source": "behavior", "aggregation": "count"});
    let key = json!({"label": "another", "scopes": ["metrics:read"]});
    vec![
        (Method::GET, "/v1/metrics", None, Scope::MetricsRead),
        (Method::POST, "/v1/metrics/query", Some(query), Scope::MetricsRead),
        (Method::GET, "/v1/live/metrics", None, Scope::MetricsRead),
        (Method::GET, "/v1/live", None, Scope::MetricsRead),
        (Method::GET, "/v1/metrics/definitions/{name}", None, Scope::MetricsRead),
        (Method::POST, "/v1/events/query", Some(events), Scope::EventsRead),
        (Method::PUT, "/v1/metrics/definitions/{name}", Some(definition), Scope::DefinitionsWrite),
        (Method::DELETE, "/v1/metrics/definitions/{name}", None, Scope::DefinitionsWrite),
        (Method::GET, "/v1/keys", None, Scope::Admin),
        (Method::POST, "/v1/keys", Some(key), Scope::Admin),
        (Method::POST, "/v1/keys/{id}/rotate", Some(json!({})), Scope::Admin),
        (Method::DELETE, "/v1/keys/{id}", None, Scope::Admin),
        (Method::GET, "/v1/audit", None, Scope::Admin),
    ]
}

fn concrete(path: &str, name: &str) -> String {
    path.replace("{name}", name).replace("{id}", name)
}

#[tokio::test]
async fn every_operation_refuses_a_key_without_its_scope() {
    let rig = Rig::new();
    let document = rig.get("/openapi.json").await.json;
    let documented: usize = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().values().filter(|operation| operation.get("security").is_some()).count())
        .sum();
    assert_eq!(operations().len(), documented, "an operation is missing here");
    for scope in Scope::ALL {
        let (_, key) = rig.make_key(json!({"label": "one scope", "scopes": [scope]})).await;
        for (method, path, body, needed) in operations() {
            // Live streams would go on; that they open is seen elsewhere.
            if scope == needed && path == "/v1/live/metrics" {
                continue;
            }
            let answer = rig.with_key(&key, method.clone(), &concrete(path, "orders"), body).await;
            let is_refused = answer.status.as_u16() == 403;
            assert_eq!(
                is_refused,
                scope != needed,
                "{method} {path} with {scope:?}: {} {}",
                answer.status,
                answer.text
            );
            assert_ne!(answer.status.as_u16(), 401, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_key_reaches_its_own_workspace_only() {
    let mut config = neonhub_api::ApiConfig::for_testing();
    config.keys.push(neonhub_api::ApiKey { workspace: "other".into(), key: "others-secret".into() });
    let rig = Rig::with(config, neonhub_api::feed::memory::MemoryFeed::new(2));
    let (id, _) = rig.make_key(json!({"label": "acme's", "scopes": ["metrics:read"]})).await;
    assert!(rig.put("orders", json!({"source": "behavior", "aggregation": "count"})).await.status.is_success());
    for (method, path, body, _) in operations() {
        if path == "/v1/live/metrics" {
            continue;
        }
        let is_change_of_ours = path.contains('{') && method != Method::PUT;
        // What they define is theirs: it must not stand in for ours.
        let name = match (path.contains("keys"), method == Method::PUT) {
            (true, _) => id.as_str(),
            (false, true) => "theirs",
            (false, false) => "orders",
        };
        let answer = rig.with_key("others-secret", method.clone(), &concrete(path, name), body).await;
        if is_change_of_ours {
            // It says no more than the request did.
            assert_eq!(answer.status.as_u16(), 404, "{method} {path}: {}", answer.text);
            continue;
        }
        assert!(!answer.text.contains(&id), "{method} {path} shows the other's key: {}", answer.text);
    }
    // What the walk did in the other workspace left ours as it was.
    let keys = rig.get("/v1/keys").await.json;
    assert_eq!(keys["keys"][0]["id"], id);
    assert_eq!(keys["keys"][0]["in_force"], true);
    assert_eq!(rig.get("/v1/metrics/definitions/orders").await.json["revision"], 1);
    let asked = rig.olap.answers().asked.clone();
    assert!(!asked.is_empty());
    for statement in asked {
        let binds_workspace =
            statement.params.iter().any(|(_, value)| *value == neonhub_api::olap::Param::Text("other".into()));
        let is_of_ours =
            statement.params.iter().any(|(_, value)| *value == neonhub_api::olap::Param::Text("acme".into()));
        assert!(binds_workspace != is_of_ours, "{statement:?}");
    }
}

#[tokio::test]
async fn a_key_is_shown_once_and_kept_as_a_digest() {
    let rig = Rig::new();
    let (id, key) = rig.make_key(json!({"label": "dashboards", "scopes": ["metrics:read"]})).await;
    assert!(key.starts_with(&format!("nhk_{id}_")), "{key}");
    let list = rig.get("/v1/keys").await;
    assert!(!list.text.contains(&key) && !list.text.contains("digest"), "{}", list.text);
    assert_eq!(list.json["keys"][0]["prefix"], format!("nhk_{id}"));
    for record in rig.control.records() {
        let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
        assert!(!value.contains(&key), "{value}");
        let digest = rig.keys.read().unwrap().secret().unwrap().digest(&key);
        assert_eq!(value.contains(&digest), record.topic == Topic::Control, "only `control` has the digest: {value}");
    }
    assert_eq!(rig.with_key(&key, Method::GET, "/v1/metrics", None).await.status.as_u16(), 200);
    let changed = format!("{}x", &key[..key.len() - 1]);
    rig.with_key(&changed, Method::GET, "/v1/metrics", None).await.problem(401);
}

#[tokio::test]
async fn rotation_leaves_two_keys_in_force_for_a_while() {
    let rig = Rig::new();
    let (id, old) = rig.make_key(json!({"label": "server", "scopes": ["events:read"]})).await;
    let body = json!({"overlap_seconds": 60});
    let answer = rig.call(Method::POST, &format!("/v1/keys/{id}/rotate"), Some(body)).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text);
    let new = answer.json["secret"].as_str().unwrap().to_owned();
    assert_eq!(answer.json["key"]["label"], "server");
    assert_eq!(answer.json["key"]["scopes"], json!(["events:read"]));
    let status = async |key: &str| {
        let body = json!({"from": "2019-11-24T00:00:00Z", "to": "2019-11-25T00:00:00Z"});
        rig.with_key(key, Method::POST, "/v1/events/query", Some(body)).await.status.as_u16()
    };
    assert_eq!((status(&old).await, status(&new).await), (200, 200));
    rig.now.fetch_add(60_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!((status(&old).await, status(&new).await), (401, 200));
    // An expired key has no successor.
    rig.call(Method::POST, &format!("/v1/keys/{id}/rotate"), Some(json!({}))).await.problem(409);
}

#[tokio::test]
async fn a_revoked_key_opens_nothing_here_and_on_control() {
    let rig = Rig::new();
    let (id, key) = rig.make_key(json!({"label": "leaked", "scopes": ["metrics:read"]})).await;
    for _ in 0..2 {
        let answer = rig.call(Method::DELETE, &format!("/v1/keys/{id}"), None).await;
        assert_eq!(answer.status.as_u16(), 204, "{}", answer.text);
        rig.with_key(&key, Method::GET, "/v1/metrics", None).await.problem(401);
    }
    rig.call(Method::DELETE, "/v1/keys/0000000000000000", None).await.problem(404);
    // Whoever follows `control` knows it, too.
    let mut ring = neonhub_schemas::access::KeyRing::new(rig.keys.read().unwrap().secret().cloned());
    for record in rig.control.records().into_iter().filter(|record| record.topic == Topic::Control) {
        ring.take(serde_json::from_slice(&record.value.unwrap()).unwrap());
    }
    ring.complete();
    assert_eq!(ring.find(&key, 0), Lookup::Unknown);
}

#[tokio::test]
async fn a_live_stream_ends_with_its_key() {
    let rig = Rig::new();
    let (id, key) = rig.make_key(json!({"label": "watcher", "scopes": ["metrics:read"]})).await;
    let request = axum::http::Request::get("/v1/live/metrics").header("authorization", format!("Bearer {key}"));
    let request = request.body(axum::body::Body::empty()).unwrap();
    let response = tower::ServiceExt::oneshot(rig.router.clone(), request).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    assert_eq!(rig.call(Method::DELETE, &format!("/v1/keys/{id}"), None).await.status.as_u16(), 204);
    let read_to_end = http_body_util::BodyExt::collect(response.into_body());
    tokio::time::timeout(crate::rig::PATIENCE, read_to_end).await.expect("the stream ends").unwrap();
}

#[tokio::test]
async fn a_change_goes_on_when_its_client_leaves() {
    let rig = Rig::new();
    let state = rig.state.clone();
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
    let change = |state: neonhub_api::ApiState| async move {
        begun.send(()).unwrap();
        may_go_on.await.unwrap();
        let wish = neonhub_api::keys::KeyWish {
            label: "left alone".to_owned(),
            purpose: neonhub_schemas::access::Purpose::Bearer,
            scopes: [Scope::MetricsRead].into(),
            events_per_second: None,
            expires_at_ms: None,
        };
        state.keys().create("acme", wish, "somebody").await.map(drop)
    };
    let client = tokio::spawn(async move { state.to_the_end(change).await });
    has_begun.await.unwrap();
    client.abort();
    go_on.send(()).unwrap();
    let deadline = tokio::time::Instant::now() + crate::rig::PATIENCE;
    while rig.control.records().len() < 2 {
        assert!(tokio::time::Instant::now() < deadline, "the change was left undone");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_key_that_was_to_end_still_ends_after_a_rotation() {
    let rig = Rig::new();
    let body = json!({"label": "guest", "scopes": ["metrics:read"], "expires_at": "2020-01-01T00:00:00Z"});
    let (id, _) = rig.make_key(body).await;
    let answer = rig.call(Method::POST, &format!("/v1/keys/{id}/rotate"), Some(json!({}))).await;
    assert_eq!(answer.json["key"]["expires_at"], "2020-01-01T00:00:00.000Z", "{}", answer.text);
}

#[tokio::test]
async fn methods_that_do_not_exist_make_no_metrics() {
    let rig = Rig::new();
    for number in 0..20 {
        rig.call(Method::from_bytes(format!("FOO{number}").as_bytes()).unwrap(), "/v1/metrics", None).await;
    }
    let metrics = rig.get("/metrics").await.text;
    assert!(metrics.contains("method=\"other\"") && !metrics.contains("FOO"), "{metrics}");
}

#[tokio::test]
async fn wishes_that_make_no_sense_name_the_field() {
    let rig = Rig::new();
    let cases = [
        (json!({"label": " ", "scopes": ["admin"]}), "label"),
        (json!({"label": "a\u{7}", "scopes": ["admin"]}), "label"),
        (json!({"label": "a", "scopes": []}), "scopes"),
        (json!({"label": "a", "scopes": ["everything"]}), "scopes[0]"),
        (json!({"label": "a", "scopes": ["ingest:write", "events:read"]}), "scopes"),
        (json!({"label": "a", "scopes": ["admin"], "events_per_second": 5}), "events_per_second"),
        (json!({"label": "a", "scopes": ["ingest:write"], "events_per_second": 0}), "events_per_second"),
        (json!({"label": "a", "scopes": ["admin"], "expires_at": "tomorrow"}), "expires_at"),
        (json!({"label": "a", "scopes": ["admin"], "expires_at": "2019-01-01T00:00:00Z"}), "expires_at"),
        (json!({"label": "a", "purpose": "token_signing", "scopes": ["events:read"]}), "scopes"),
        (json!({"label": "a", "scopes": ["admin"], "workspace": "other"}), "workspace"),
    ];
    for (body, field) in cases {
        let answer = rig.call(Method::POST, "/v1/keys", Some(body.clone())).await;
        assert_eq!(answer.problem(400).as_deref(), Some(field), "{body}");
    }
    rig.keys.write().unwrap().clone_from(&neonhub_schemas::access::KeyRing::new(None));
    rig.call(Method::POST, "/v1/keys", Some(json!({"label": "a", "scopes": ["admin"]}))).await.problem(409);
}

#[tokio::test]
async fn what_a_crash_kept_from_control_is_told_later() {
    let rig = Rig::new();
    rig.control.set_away(true);
    let body = json!({"label": "lost answer", "scopes": ["metrics:read"]});
    rig.call(Method::POST, "/v1/keys", Some(body)).await.problem(503);
    rig.control.set_away(false);
    assert_eq!(rig.state.keys().reconcile().await.unwrap(), 1);
    assert_eq!(rig.state.keys().reconcile().await.unwrap(), 0);
    let topics: Vec<Topic> = rig.control.records().iter().map(|record| record.topic).collect();
    assert_eq!(topics, [Topic::AuditLog, Topic::Control]);
}

#[tokio::test]
async fn until_control_is_read_an_unknown_key_is_told_to_come_again() {
    let rig = Rig::new();
    let (_, key) = rig.make_key(json!({"label": "early", "scopes": ["metrics:read"]})).await;
    let secret = rig.keys.read().unwrap().secret().cloned();
    rig.keys.write().unwrap().clone_from(&neonhub_schemas::access::KeyRing::new(secret));
    let answer = rig.with_key(&key, Method::GET, "/v1/metrics", None).await;
    answer.problem(503);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(rig.get("/health/ready").await.json["parts"]["keys"]["ready"], false);
    rig.with_key("no-key-at-all", Method::GET, "/v1/metrics", None).await.problem(401);
}

#[tokio::test]
async fn a_key_has_a_quota_of_requests() {
    let config = neonhub_api::ApiConfig { requests_per_minute: 3, ..neonhub_api::ApiConfig::for_testing() };
    let rig = Rig::with(config, neonhub_api::feed::memory::MemoryFeed::new(2));
    for left in [2, 1, 0] {
        let answer = rig.get("/v1/metrics").await;
        assert_eq!(answer.status.as_u16(), 200);
        assert_eq!(answer.headers["ratelimit-policy"], r#""requests";q=3;w=60"#);
        assert_eq!(answer.headers["ratelimit"], format!(r#""requests";r={left};t=60"#));
    }
    let answer = rig.get("/v1/metrics").await;
    answer.problem(429);
    assert!(answer.headers.contains_key("retry-after") && answer.headers.contains_key("ratelimit-policy"));
    rig.with_key("not-a-key", Method::GET, "/v1/metrics", None).await.problem(401);
    // Whatever becomes of the wall clock.
    rig.now.fetch_sub(86_400_000, std::sync::atomic::Ordering::SeqCst);
    rig.elapsed.fetch_add(20_000, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(rig.get("/v1/metrics").await.status.as_u16(), 200);
}

#[tokio::test]
async fn an_address_over_its_limit_is_told_when_to_come_back() {
    let rig = Rig::new();
    let per_minute = std::num::NonZeroU32::new(6_000).unwrap();
    let over = neonhub_schemas::over_limit::OverLimit { wait: std::time::Duration::from_millis(1_500), per_minute };
    for path in ["/v1/metrics", "/nothing", "/openapi.json", "/docs/swagger-ui-bundle.js"] {
        let request = axum::http::Request::get(path).header("authorization", "Bearer secret").extension(over);
        let answer = rig.send(request.body(axum::body::Body::empty()).unwrap()).await;
        answer.problem(429);
        assert_eq!(answer.headers["retry-after"], "2", "{path}");
        assert_eq!(answer.headers["ratelimit-policy"], r#""requests";q=6000;w=60"#);
        assert!(answer.text.contains("from this address"), "{}", answer.text);
    }
}
