//! More at once than memory may hold.

use neonhub_ingest::{IngestConfig, Limits};

use crate::house::House;

#[tokio::test]
async fn bytes_in_flight_are_bounded() {
    let limits =
        Limits { max_body_bytes: 1_000, max_event_bytes: 1_000, max_bytes_in_flight: 2_000, ..Limits::default() };
    let house = House::with(IngestConfig { limits, ..IngestConfig::for_testing() });
    house.sink.hold(true);
    let body = format!(r#"{{"event":"e","userId":"u","properties":{{"a":"{}"}}}}"#, "x".repeat(900));
    // A body of unknown length counts as the largest allowed.
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
