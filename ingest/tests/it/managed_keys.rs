//! Write keys that people made: told by `control`, with scopes, quotas and an end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use axum::body::Body;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use neonhub_ingest::IngestConfig;
use neonhub_ingest::config::ManagedKeys;
use neonhub_schemas::Topic;
use neonhub_schemas::access::{KeyRecord, KeyRing, KeySecret, NewKey, Purpose, Scope, SharedKeyRing};

use crate::house::{Answer, House, NOW, request};

const PAGE: &str = r#"{"userId":"u","name":"Home","messageId":"m"}"#;

fn secret() -> KeySecret {
    KeySecret::new("a secret of the tests, long enough").unwrap()
}

/// A key of `shop` and what `control` says of it.
fn made(scope: Scope) -> (String, KeyRecord) {
    let made = NewKey::new(7, [1, 2]);
    let record = KeyRecord {
        workspace: "shop".to_owned(),
        id: made.id,
        revision: 1,
        label: "web".to_owned(),
        purpose: Purpose::Bearer,
        scopes: [scope].into(),
        digest: secret().digest(&made.key),
        events_per_second: None,
        created_at: 0,
        expires_at_ms: None,
        revoked_at_ms: None,
        updated_at: 0,
    };
    (made.key, record)
}

fn house() -> (House, SharedKeyRing) {
    let ring: SharedKeyRing = Arc::new(RwLock::new(KeyRing::new(Some(secret()))));
    let managed_keys = ManagedKeys { ring: Arc::clone(&ring), ..ManagedKeys::default() };
    (House::with(IngestConfig { managed_keys, ..IngestConfig::for_testing() }), ring)
}

async fn post(house: &House, key: &str) -> Answer {
    let basic = format!("Basic {}", STANDARD.encode(format!("{key}:")));
    house.send(request("POST", "/v1/page").header("authorization", basic).body(Body::from(PAGE)).unwrap()).await
}

#[tokio::test]
async fn until_control_is_read_the_sender_is_told_to_come_again() {
    let (house, ring) = house();
    let (key, record) = made(Scope::IngestWrite);
    let answer = post(&house, &key).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "keys_not_read"));
    assert_eq!(answer.header("retry-after"), "1");
    let in_body = format!(r#"{{"writeKey":"{key}","batch":[{{"type":"page","userId":"u","name":"Home"}}]}}"#);
    let answer = house.send(request("POST", "/v1/batch").body(Body::from(in_body)).unwrap()).await;
    assert_eq!(answer.problem(), "keys_not_read");
    assert_eq!(house.get("/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    // Keys of the settings need no `control`.
    assert_eq!(post(&house, "test-key").await.status, StatusCode::OK);
    assert!(house.dead_letters().is_empty());

    ring.write().unwrap().take(record);
    ring.write().unwrap().complete();
    assert_eq!(post(&house, &key).await.status, StatusCode::OK);
    assert_eq!(house.get("/health/ready").await.status, StatusCode::OK);
    let workspaces = house.records(Topic::RawBehavior);
    assert!(workspaces.last().unwrap().key.starts_with(b"shop|"), "{workspaces:?}");
}

#[tokio::test]
async fn only_a_write_key_in_force_sends_events() {
    let (house, ring) = house();
    ring.write().unwrap().complete();
    let (key, record) = made(Scope::IngestWrite);
    assert_eq!(post(&house, &key).await.problem(), "unknown_write_key");
    for scope in [Scope::MetricsRead, Scope::EventsRead, Scope::DefinitionsWrite, Scope::Admin] {
        let (house, ring) = self::house();
        ring.write().unwrap().take(made(scope).1);
        assert_eq!(post(&house, &key).await.problem(), "unknown_write_key", "{scope:?}");
    }
    ring.write().unwrap().take(KeyRecord { expires_at_ms: Some(NOW + 1_000), ..record.clone() });
    assert_eq!(post(&house, &key).await.status, StatusCode::OK);
    house.now_ms.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!(post(&house, &key).await.status, StatusCode::UNAUTHORIZED);
    ring.write().unwrap().take(KeyRecord { revision: 2, ..record.clone() });
    assert_eq!(post(&house, &key).await.status, StatusCode::OK);
    ring.write().unwrap().take(KeyRecord { revision: 3, revoked_at_ms: Some(NOW), ..record });
    assert_eq!(post(&house, &key).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_key_has_its_own_quota_and_a_changed_one_at_once() {
    let (house, ring) = house();
    let (key, record) = made(Scope::IngestWrite);
    ring.write().unwrap().take(KeyRecord { events_per_second: Some(60), ..record.clone() });
    let answer = post(&house, &key).await;
    assert_eq!(answer.header("ratelimit-policy"), "\"events\";q=120;w=2");
    assert!(answer.header("ratelimit").contains("r=119"), "{}", answer.header("ratelimit"));
    assert!(post(&house, &key).await.header("ratelimit").contains("r=118"), "one quota for all requests of a key");
    ring.write().unwrap().take(KeyRecord { revision: 2, events_per_second: Some(10), ..record });
    assert_eq!(post(&house, &key).await.header("ratelimit-policy"), "\"events\";q=100;w=10");
}
