//! More at once than memory may hold.

use std::io;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt as _, stream};
use neonhub_ingest::{IngestConfig, Limits};
use neonhub_schemas::over_limit::OverLimit;

use crate::house::{Answer, BASIC, House, request};

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let limits =
        Limits { max_body_bytes: 1_000, max_event_bytes: 1_000, max_bytes_in_flight: 2_000, ..Limits::default() };
    let house = House::with(IngestConfig { limits, ..IngestConfig::for_testing() });
    house.sink.hold(true);
    let body = format!(r#"{{"event":"e","userId":"u","properties":{{"a":"{}"}}}}"#, "x".repeat(900));
    let under_way =
        async { tokio::join!(house.post("/v1/track", body.clone()), house.post("/v1/track", body.clone())) };
    let one_more = async {
        house.sink.begun(2).await;
        let readiness = house.get("/health/ready").await;
        let turned_away = house.post("/v1/track", body.clone()).await;
        house.sink.hold(false);
        (readiness, turned_away)
    };
    let ((first, second), (readiness, turned_away)) = tokio::join!(under_way, one_more);
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    assert_eq!((turned_away.status.as_u16(), turned_away.problem().as_str()), (503, "overloaded"));
    assert_eq!(turned_away.header("retry-after"), "1");
    assert_eq!((readiness.status.as_u16(), &readiness.json()["capacity"]), (503, &"too many bytes in flight".into()));
    assert_eq!(house.post("/v1/track", body).await.status.as_u16(), 200);
}

/// Posts a body of a thousand bytes, as it says, of which come only these pieces.
async fn post_pieces(house: &House, pieces: Vec<io::Result<Bytes>>) -> Answer {
    let body = Body::from_stream(stream::iter(pieces).chain(stream::pending()));
    let head = request("POST", "/v1/track").header("authorization", BASIC).header("content-length", "1000");
    house.send(head.body(body).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn who_states_much_and_sends_little_takes_little_from_others() {
    let limits = Limits {
        max_body_bytes: 1_000,
        max_event_bytes: 1_000,
        max_bytes_in_flight: 2_000,
        ..IngestConfig::for_testing().limits
    };
    let house = House::with(IngestConfig { limits, ..IngestConfig::for_testing() });
    let beginning = || vec![Ok(Bytes::from_static(b"{"))];
    let slow = async {
        tokio::join!(
            post_pieces(&house, beginning()),
            post_pieces(&house, beginning()),
            post_pieces(&house, beginning())
        )
    };
    let others = house.post("/v1/track", r#"{"event":"e","userId":"u"}"#);
    let ((first, second, third), served) = tokio::join!(slow, others);
    assert_eq!(served.status.as_u16(), 200);
    for answer in [first, second, third] {
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (408, "body_too_slow"));
    }
}

#[tokio::test]
async fn a_body_that_the_server_gave_up_is_answered_408() {
    let house = House::new();
    let broken_off = |kind: io::ErrorKind| vec![Ok(Bytes::from_static(b"{")), Err(io::Error::from(kind))];
    let answer = post_pieces(&house, broken_off(io::ErrorKind::TimedOut)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (408, "body_too_slow"));
    let answer = post_pieces(&house, broken_off(io::ErrorKind::UnexpectedEof)).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (400, "body_incomplete"));
}

#[tokio::test]
async fn an_address_over_its_limit_is_told_when_to_come_back_and_browsers_may_read_it() {
    let house = House::new();
    let over = OverLimit { wait: Duration::from_millis(1_500), per_minute: NonZeroU32::new(6_000).unwrap() };
    for (method, path) in [("POST", "/v1/track"), ("GET", "/nothing"), ("GET", "/openapi.json")] {
        let head = request(method, path).header("authorization", BASIC).header("origin", "https://shop.example");
        let answer = house.send(head.extension(over).body(r#"{"event":"e","userId":"u"}"#.into()).unwrap()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.problem().as_str()),
            (429, "too_many_requests_of_address"),
            "{path}"
        );
        assert_eq!((answer.header("retry-after"), answer.header("ratelimit")), ("2", r#""requests";r=0;t=2"#));
        assert_eq!(answer.header("ratelimit-policy"), r#""requests";q=6000;w=60"#);
        assert_eq!(answer.header("access-control-allow-origin"), "https://shop.example");
    }
    assert!(house.sink.records().is_empty());
}
