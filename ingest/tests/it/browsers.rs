//! What browsers need: preflight, beacons, the pixel.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use neonhub_ingest::IngestConfig;
use neonhub_schemas::{Envelope, Topic};

use crate::house::{House, request};

#[tokio::test]
async fn preflights_are_answered() {
    let house = House::new();
    let head = request("OPTIONS", "/v1/track")
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-retry-count");
    let answer = house.send(head.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(answer.header("access-control-allow-headers"), "authorization,content-type,x-retry-count");
    assert!(answer.header("access-control-allow-methods").contains("POST"));
    assert_eq!(answer.header("access-control-max-age"), "86400");
    // Errors must be readable by the page too.
    let head = request("POST", "/v1/track").header("origin", "https://shop.example");
    let answer = house.send(head.body(Body::from("{}")).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 401);
    assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    assert!(answer.header("access-control-expose-headers").contains("retry-after"));
}

#[tokio::test]
async fn origins_can_be_restricted() {
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let house = House::with(IngestConfig { allowed_origins, ..IngestConfig::for_testing() });
    let ask = |origin: &str| {
        let head = request("OPTIONS", "/v1/t").header("origin", origin).header("access-control-request-method", "POST");
        house.send(head.body(Body::empty()).unwrap())
    };
    assert_eq!(ask("https://shop.example").await.header("access-control-allow-origin"), "https://shop.example");
    assert_eq!(ask("https://evil.example").await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn the_pixel_is_an_image_and_an_event() {
    let house = House::new();
    let answer = house.get("/v1/pixel.gif?writeKey=test-key&type=open&campaign=spring&userId=u&list=a").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "image/gif"));
    assert!(answer.header("cache-control").contains("no-store"));
    assert_eq!((answer.body.len(), &answer.body[..6]), (43, b"GIF89a".as_slice()));
    let value = house.records(Topic::RawCampaign)[0].value.clone().unwrap();
    let event = Envelope::decode(&value).unwrap();
    assert_eq!((event.campaign.as_deref(), event.properties.as_ref()), (Some("spring"), r#"{"list":"a"}"#));

    let data = STANDARD.encode(r#"{"writeKey":"test-key","event":"Seen","userId":"u"}"#);
    let path = format!("/v1/pixel/track?data={}", data.replace('=', "%3D").replace('+', "%2B"));
    assert_eq!(house.get(&path).await.status.as_u16(), 200);
    assert_eq!(house.records(Topic::RawBehavior).len(), 1);

    let answer = house.get("/pixel/v1/page?writeKey=test-key&anonymousId=a").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "image/gif"));
    assert_eq!(house.records(Topic::RawBehavior).len(), 2);
    assert_eq!(house.get("/pixel/v1/nonsense?writeKey=test-key").await.problem(), "unknown_type");

    assert_eq!(house.get("/v1/pixel.gif?writeKey=nope&userId=u").await.status.as_u16(), 401);
    let answer = house.get("/v1/pixel.gif?writeKey=test-key").await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "missing_field"));
    assert_eq!(house.get("/v1/pixel/nonsense?writeKey=test-key").await.problem(), "unknown_type");
    assert_eq!(house.get("/v1/pixel.gif?writeKey=test-key&data=%").await.problem(), "invalid_encoding");
}

#[tokio::test]
async fn a_beacon_at_rudderstacks_path() {
    let house = House::new();
    let body = r#"{"batch":[{"type":"page","anonymousId":"a"},{"type":"track","event":"Left","anonymousId":"a"}]}"#;
    let head = request("POST", "/beacon/v1/batch?writeKey=test-key").header("content-type", "text/plain");
    let answer = house.send(head.body(Body::from(body)).unwrap()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["accepted"]), (200, &2.into()));
    let unknown = request("POST", "/beacon/v1/batch?writeKey=nope").body(Body::from(body)).unwrap();
    assert_eq!(house.send(unknown).await.status.as_u16(), 401);
}
