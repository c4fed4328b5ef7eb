//! Webhooks, signed as in Standard Webhooks 1.0.0.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use neonhub_ingest::http::ConfigError;
use neonhub_ingest::sink::memory::MemorySink;
use neonhub_ingest::{IngestConfig, IngestState, WebhookSecret};
use neonhub_schemas::{Envelope, Kind, Topic};
use sha2::Sha256;
use std::sync::Arc;
use std::time::Duration;

use crate::house::{Answer, House, NOW, request};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
const OTHERS: &str = "whsec_ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3";
const PATH: &str = "/v1/integrations/Stripe/webhook";
const PAID: &str = r#"{"type":"invoice.paid","timestamp":"2020-09-13T12:26:00Z","data":{"userId":{"x":1}}}"#;

fn secret(workspace: &str, platform: &str, secret: &str) -> WebhookSecret {
    WebhookSecret { workspace: workspace.to_owned(), platform: platform.to_owned(), secret: secret.to_owned() }
}

fn house() -> House {
    let webhook_secrets =
        vec![secret("acme", "stripe", OLD), secret("acme", "stripe", NEW), secret("other", "*", OTHERS)];
    House::with(IngestConfig { webhook_secrets, ..IngestConfig::for_testing() })
}

fn signature(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

async fn deliver(house: &House, path: &str, timestamp: i64, signature: &str, body: &str) -> Answer {
    let head = request("POST", path).header("webhook-id", "msg_1").header("webhook-timestamp", timestamp);
    house.send(head.header("webhook-signature", signature).body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn a_signed_webhook_is_an_integration_event() {
    let house = house();
    let now = NOW / 1_000;
    let bare = r#"{"type":"ping","data":[1],"context":7}"#;
    for (path, secret, body) in [(PATH, OLD, PAID), (PATH, NEW, bare), ("/v1/integrations/crm/webhook", OTHERS, PAID)] {
        let answer = deliver(&house, path, now - 9, &signature(secret, "msg_1", now - 9, body), body).await;
        assert_eq!(answer.status.as_u16(), 200, "{:?}", answer.json());
        assert!(answer.header("ratelimit").starts_with("\"events\""));
    }
    let values: Vec<_> = house.records(Topic::RawIntegration).into_iter().map(|record| record.value.unwrap()).collect();
    let events: Vec<_> = values.iter().map(|value| Envelope::decode(value).unwrap()).collect();
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            assert_eq!((event.kind, event.message_id.as_ref()), (Kind::Integration, "msg_1"));
            (
                &*event.workspace,
                &*event.name,
                event.platform.as_deref().unwrap(),
                &*event.properties,
                event.timestamp_ms,
            )
        })
        .collect();
    let data = r#"{"userId":{"x":1}}"#;
    let expected = [
        ("acme", "invoice.paid", "stripe", data, NOW - 40_000),
        ("acme", "ping", "stripe", bare, NOW - 9_000),
        ("other", "invoice.paid", "crm", data, NOW - 40_000),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_is_not_signed_now_and_by_a_known_secret_is_401() {
    let house = house();
    let now = NOW / 1_000;
    let good = signature(OLD, "msg_1", now, PAID);
    let old = signature(OLD, "msg_1", now - 301, PAID);
    let early = signature(OLD, "msg_1", now + 301, PAID);
    let tampered = PAID.replace("paid", "void");
    let cases = [
        (PATH, now, good.as_str(), tampered.as_str(), "webhook-signature"),
        (PATH, now - 1, &good, PAID, "webhook-signature"),
        (PATH, now - 301, &old, PAID, "webhook-timestamp"),
        (PATH, now + 301, &early, PAID, "webhook-timestamp"),
        // The secret is another platform's.
        ("/v1/integrations/crm/webhook", now, &good, PAID, "webhook-signature"),
    ];
    for (path, timestamp, signature, body, field) in cases {
        let answer = deliver(&house, path, timestamp, signature, body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "invalid_signature"), "{path} {body}");
        assert_eq!(answer.json()["field"], field);
        assert!(answer.header("www-authenticate").starts_with("Standard-Webhooks"));
    }
    let letters = house.dead_letters();
    assert_eq!(letters.len(), cases.len());
    assert!(letters.iter().all(|letter| letter.workspace.is_empty() && letter.reason == "invalid_signature"));
    let both = format!("{} {good}", signature(OTHERS, "msg_2", now, PAID));
    assert_eq!(deliver(&house, PATH, now, &both, PAID).await.status.as_u16(), 200);
}

#[tokio::test]
async fn headers_that_are_missing_or_unreadable_are_400() {
    let house = house();
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    for missing in names {
        let present = names.iter().filter(|name| **name != missing);
        let head = present.fold(request("POST", PATH), |head, name| head.header(*name, "1"));
        let answer = house.send(head.body(Body::from(PAID)).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "missing_header"));
        assert_eq!(answer.json()["field"], missing);
    }
    let head = names.iter().fold(request("POST", PATH), |head, name| head.header(*name, "soon"));
    let answer = house.send(head.body(Body::from(PAID)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "invalid_header"));
    assert_eq!(house.dead_letters().len(), 4);
}

#[tokio::test]
async fn a_signed_webhook_may_be_bad_input_all_the_same() {
    let house = house();
    let now = NOW / 1_000;
    let cases = [
        (r#"{"data":{}}"#, "missing_field", "type"),
        (r#"{"type":"a","timestamp":"soon"}"#, "invalid_timestamp", "timestamp"),
        (r#"{"type":"a","data":{"b":"\u0000"}}"#, "nul_character", "data.b"),
        (r#"{"type":"a","b":"\u0000"}"#, "nul_character", "b"),
        (r#"[{"type":"a"}]"#, "not_an_object", "body"),
        ("{", "invalid_json", "body"),
    ];
    for (body, code, field) in cases {
        let answer = deliver(&house, PATH, now, &signature(NEW, "msg_1", now, body), body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, code), "{body}");
        assert_eq!(answer.json()["field"], field, "{body}");
    }
    let letters = house.dead_letters();
    assert_eq!(letters.len(), cases.len());
    assert!(letters.iter().all(|letter| letter.workspace == "acme"));
}

#[test]
fn secrets_that_cannot_be_worked_with() {
    for webhook_secrets in [
        vec![secret("Acme", "stripe", OLD)],
        vec![secret("acme", "st ripe", OLD)],
        vec![secret("acme", "stripe", "whsec_c2hvcnQ=")],
        vec![secret("acme", "stripe", OLD), secret("other", "crm", OLD)],
    ] {
        let config = IngestConfig { webhook_secrets, ..IngestConfig::for_testing() };
        let (sink, elapsed) = (Arc::new(MemorySink::default()), Arc::new(|| Duration::ZERO));
        let state = IngestState::new(config, sink, Arc::new(|| NOW), elapsed, Arc::new(|| 1));
        let Err(error) = state else { panic!("accepted") };
        assert!(matches!(error, ConfigError::Webhook { .. }) && !error.to_string().contains("whsec_c2"), "{error}");
    }
}
