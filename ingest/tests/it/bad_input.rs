//! Scenario 10: bad input gets the right status and a dead letter, and the process lives on.

use crate::house::House;

#[tokio::test]
async fn bad_events_get_their_status_and_a_dead_letter() {
    let deep =
        format!(r#"{{"event":"e","userId":"u","properties":{{"a":{}{}}}}}"#, "[".repeat(50_000), "]".repeat(50_000));
    let nested = format!(r#"{{"event":"e","userId":"u","properties":{}1{}}}"#, "{\"a\":".repeat(33), "}".repeat(33));
    let large = format!(r#"{{"event":"e","userId":"u","properties":{{"a":"{}"}}}}"#, "x".repeat(33 * 1024));
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("/v1/track", b"{".to_vec(), 400, "invalid_json"),
        ("/v1/track", b"".to_vec(), 400, "invalid_json"),
        ("/v1/track", b"\xff\xfe".to_vec(), 400, "invalid_utf8"),
        ("/v1/track", b"[]".to_vec(), 400, "not_an_object"),
        ("/v1/track", br#"{"event":["e"],"userId":"u"}"#.to_vec(), 400, "invalid_field"),
        ("/v1/track", br#"{"event":"e","userId":"u","properties":{"a":1e400}}"#.to_vec(), 400, "number_out_of_range"),
        (
            "/v1/track",
            br#"{"event":"e","userId":"u","properties":{"a":18446744073709551616}}"#.to_vec(),
            400,
            "number_out_of_range",
        ),
        ("/v1/track", br#"{"event":"e","userId":"u","properties":{"a":"\u0000"}}"#.to_vec(), 400, "nul_character"),
        ("/v1/track", b"{\"event\":\"e\0\",\"userId\":\"u\"}".to_vec(), 400, "invalid_json"),
        ("/v1/track", br#"{"event":"e","userId":"u","properties":{"a":"\ud800"}}"#.to_vec(), 400, "invalid_string"),
        ("/v1/track", nested.into_bytes(), 400, "too_deep"),
        ("/v1/track", deep.into_bytes(), 413, "event_too_large"),
        ("/v1/track", large.into_bytes(), 413, "event_too_large"),
        ("/v1/track", vec![b' '; 600 * 1024], 413, "body_too_large"),
        ("/v1/batch", br#"{"batch":[]}"#.to_vec(), 400, "empty_batch"),
        ("/v1/batch", br#"{"batch":7}"#.to_vec(), 400, "invalid_field"),
        (
            "/v1/batch",
            format!(r#"{{"batch":[{}]}}"#, vec!["{}"; 10_001].join(",")).into_bytes(),
            413,
            "too_many_events",
        ),
        (
            "/v1/batch",
            format!(
                r#"{{"batch":[{}]}}"#,
                vec![r#"{"type":"track","event":"e","userId":"u","messageId":"m"}"#; 10_000].join(",")
            )
            .into_bytes(),
            413,
            "body_too_large",
        ),
        ("/v1/campaigns/events", br#"{"type":"click"}"#.to_vec(), 400, "missing_field"),
        ("/v1/integrations/crm/events", br#"{"payload":{}}"#.to_vec(), 400, "missing_field"),
    ];
    for (path, body, status, code) in cases {
        let house = House::new();
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let answer = house.post(path, body).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{shown}");
        let letters = house.dead_letters();
        assert_eq!(letters.len(), 1, "{shown}");
        assert_eq!((letters[0].reason.as_str(), letters[0].workspace.as_str()), (code, "acme"), "{shown}");
        assert_eq!(house.sink.records().len(), 1, "{shown}");
        assert_eq!(house.post("/v1/track", r#"{"event":"e","userId":"u"}"#).await.status.as_u16(), 200);
    }
}

#[tokio::test]
async fn a_full_batch_is_accepted() {
    let house = House::new();
    let events = vec![r#"{"type":"page","userId":"u","messageId":"m"}"#; 10_000].join(",");
    let answer = house.post("/v1/batch", format!(r#"{{"batch":[{events}]}}"#)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["accepted"]), (200, &10_000.into()));
}
