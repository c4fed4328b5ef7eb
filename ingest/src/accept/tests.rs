//! Tables of requests and what becomes of them.

use neonhub_schemas::Kind;

use super::*;
use crate::config::Limits;

const NOW: i64 = 1_600_000_000_000;
const SENDER: Sender<'static> = Sender { workspace: "acme", received_at_ms: NOW };

fn accepted<'a>(route: Route<'a>, body: &'a str) -> Vec<Envelope<'a>> {
    let acceptance = accept(route, body.as_bytes(), SENDER, &Limits::default(), &mut || 7).unwrap();
    assert_eq!(acceptance.rejections, [], "{body}");
    acceptance.events
}

fn rejected(route: Route<'_>, body: &str) -> Vec<(usize, &'static str, String)> {
    match accept(route, body.as_bytes(), SENDER, &Limits::default(), &mut || 7) {
        Ok(acceptance) => {
            let listed = acceptance.rejections.into_iter();
            listed.map(|one| (one.index, one.reason.code(), one.field.unwrap_or_default())).collect()
        }
        Err(refusal) => vec![(usize::MAX, refusal.reason.code(), refusal.field.unwrap_or_default())],
    }
}

const TRACK: Route<'static> = Route::Call(Kind::Track);

#[test]
fn every_call_becomes_its_envelope() {
    let event = &accepted(
        TRACK,
        r#"{"event":"Order Completed","userId":7,"anonymousId":"a","messageId":"m",
            "properties":{"revenue":"19.99","x":[1]},"context":{"ip":"1.2.3.4"},"integrations":{"All":true}}"#,
    )[0];
    assert_eq!((event.name.as_ref(), event.user_id.as_deref()), ("Order Completed", Some("7")));
    assert_eq!(event.value.unwrap().to_string(), "19.99");
    assert_eq!(event.properties, r#"{"revenue":"19.99","x":[1]}"#);
    assert_eq!(event.context, r#"{"ip":"1.2.3.4"}"#);
    assert_eq!((event.timestamp_ms, event.message_id.as_ref()), (NOW, "m"));

    let event = &accepted(Route::Call(Kind::Identify), r#"{"userId":"u","traits":{"email":"e"}}"#)[0];
    assert_eq!((event.name.as_ref(), event.properties.as_ref()), ("identify", r#"{"email":"e"}"#));
    assert_eq!(event.message_id.len(), 36);

    let page = r#"{"anonymousId":"a","name":"Home","category":"Site","properties":{"category":"mine"}}"#;
    let event = &accepted(Route::Call(Kind::Page), page)[0];
    assert_eq!((event.name.as_ref(), event.properties.as_ref()), ("Home", r#"{"category":"mine","name":"Home"}"#));
    assert_eq!(accepted(Route::Call(Kind::Screen), r#"{"anonymousId":"a"}"#)[0].name, "screen");

    let event = &accepted(Route::Call(Kind::Group), r#"{"userId":"u","groupId":42,"traits":null}"#)[0];
    assert_eq!((event.group_id.as_deref(), event.properties.as_ref()), (Some("42"), "{}"));
    let event = &accepted(Route::Call(Kind::Alias), r#"{"userId":"u","previousId":"p"}"#)[0];
    assert_eq!(event.previous_id.as_deref(), Some("p"));
}

#[test]
fn batches_share_their_context_and_time_of_sending() {
    let body = r#"{"writeKey":"k","sentAt":"2020-09-13T13:26:40Z","context":{"app":"x","ip":"9"},"batch":[
        {"type":"track","event":"a","userId":"u","timestamp":"2020-09-13T13:26:39Z","context":{"ip":"1"}},
        {"type":"page","anonymousId":"a"}]}"#;
    let events = accepted(Route::Batch, body);
    assert_eq!(events[0].timestamp_ms, NOW - 1_000);
    assert_eq!(events[0].context, r#"{"ip":"1","app":"x"}"#);
    assert_eq!(events[1].context, r#"{"app":"x","ip":"9"}"#);
    assert_eq!(events[1].kind, Kind::Page);
    assert_eq!(Body::parse(Route::Batch, body.as_bytes()).unwrap().write_key().as_deref(), Some("k"));
    let in_event = r#"{"batch":[{"writeKey":"inner"}]}"#;
    assert_eq!(Body::parse(Route::Batch, in_event.as_bytes()).unwrap().write_key().as_deref(), Some("inner"));
    // An import's history is taken as it is told.
    assert_eq!(
        accepted(Route::Import, &body.replace("2020-09-13T13:26:39Z", "2019-01-01T00:00:00Z"))[0].timestamp_ms,
        1_546_300_800_000
    );
}

#[test]
fn campaign_events_take_what_stands_beside_them_as_properties() {
    let body =
        r#"{"type":"spend","campaign":"men","policy":"bts","cost":"1.25","amount":9,"properties":{"policy":"own"}}"#;
    let event = &accepted(Route::Campaign, body)[0];
    assert_eq!(event.campaign.as_deref(), Some("men"));
    assert_eq!(event.value.unwrap().to_string(), "1.25");
    assert_eq!(event.properties, r#"{"policy":"own","cost":"1.25","amount":9}"#);
    let list = r#"[{"type":"click","campaignId":5},{"type":"conversion","campaign_id":"c","properties":{"value":3}}]"#;
    let events = accepted(Route::Campaign, list);
    assert_eq!((events[0].campaign.as_deref(), events[1].value.unwrap().to_string()), (Some("5"), "3".to_owned()));
    assert_eq!(accepted(Route::Campaign, &format!("{{\"batch\":{list}}}")).len(), 2);
    let cases = [
        (r#"{"type":"click"}"#, "missing_field", "campaign"),
        (r#"{"campaign":"c"}"#, "missing_field", "type"),
        (r#"{"type":"track","campaign":"c"}"#, "unknown_type", "type"),
        (r#"{"type":"spend","campaign":"c","cost":"much"}"#, "invalid_field", "properties.cost"),
        (r#"{"type":"conversion","campaign":"c","properties":{"value":[1]}}"#, "invalid_field", "properties.value"),
        (r#"{"type":"click","campaign":"c","deep":"\u0000"}"#, "nul_character", "deep"),
    ];
    for (body, code, field) in cases {
        assert_eq!(rejected(Route::Campaign, body), [(0, code, field.to_owned())], "{body}");
    }
}

#[test]
fn integration_events_carry_their_payload() {
    let route = Route::Integration { platform: "stripe" };
    let event = &accepted(route, r#"{"type":"invoice.paid","payload":{"amount":500}}"#)[0];
    assert_eq!((event.platform.as_deref(), event.name.as_ref()), (Some("stripe"), "invoice.paid"));
    assert_eq!(event.properties, r#"{"amount":500}"#);
    assert_eq!(rejected(route, r#"{"type":"x","payload":[1]}"#), [(0, "invalid_field", "payload".to_owned())]);
    assert_eq!(rejected(route, r#"{"payload":{}}"#), [(0, "missing_field", "type".to_owned())]);
}

#[test]
fn bad_requests_say_what_is_wrong() {
    let whole = usize::MAX;
    let long_id = format!(r#"{{"event":"e","userId":"{}"}}"#, "x".repeat(513));
    let deep = format!(r#"{{"event":"e","userId":"u","properties":{}1{}}}"#, "{\"a\":".repeat(40), "}".repeat(40));
    let very_deep = format!(r#"{{"event":"e","userId":"u","properties":{}{}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    let deep_in =
        format!(r#"{{"event":"e","userId":"u","context":{{"a":{}{}}}}}"#, "[".repeat(9_000), "]".repeat(9_000));
    let large = format!(r#"{{"event":"e","userId":"u","properties":{{"a":"{}"}}}}"#, "x".repeat(33 * 1024));
    let cases: &[(&str, usize, &str, &str)] = &[
        ("", whole, "invalid_json", "body"),
        ("{", whole, "invalid_json", "body"),
        ("{} x", whole, "invalid_json", "body"),
        ("nonsense", whole, "invalid_json", "body"),
        ("[]", whole, "not_an_object", "body"),
        ("3", whole, "not_an_object", "body"),
        ("null", whole, "not_an_object", "body"),
        ("{}", 0, "missing_field", "userId"),
        (r#"{"userId":"u"}"#, 0, "missing_field", "event"),
        (r#"{"userId":"u","event":""}"#, 0, "missing_field", "event"),
        (r#"{"userId":"","event":"e"}"#, 0, "missing_field", "userId"),
        (r#"{"userId":true,"event":"e"}"#, 0, "invalid_field", "userId"),
        (r#"{"userId":{},"event":"e"}"#, 0, "invalid_field", "userId"),
        (r#"{"userId":"u","event":7}"#, 0, "invalid_field", "event"),
        (&long_id, 0, "invalid_field", "userId"),
        (r#"{"userId":"u\u0000","event":"e"}"#, 0, "nul_character", "userId"),
        (r#"{"userId":"\udc00","event":"e"}"#, 0, "invalid_string", "userId"),
        (r#"{"userId":"u","event":"e","properties":[]}"#, 0, "invalid_field", "properties"),
        (r#"{"userId":"u","event":"e","properties":"x"}"#, 0, "invalid_field", "properties"),
        (r#"{"userId":"u","event":"e","properties":{"a":1e999}}"#, 0, "number_out_of_range", "properties.a"),
        (
            r#"{"userId":"u","event":"e","properties":{"a":99999999999999999999}}"#,
            0,
            "number_out_of_range",
            "properties",
        ),
        (r#"{"userId":"u","event":"e","properties":{"a\u0000":1}}"#, 0, "nul_character", "properties.a\u{fffd}"),
        (r#"{"userId":"u","event":"e","context":{"a":"\ud800x"}}"#, 0, "invalid_string", "context.a"),
        (r#"{"userId":"u","event":"e","context":7}"#, 0, "invalid_field", "context"),
        (r#"{"userId":"u","event":"e","timestamp":"then"}"#, 0, "invalid_timestamp", "timestamp"),
        (r#"{"userId":"u","event":"e","timestamp":"2090-01-01T00:00:00Z"}"#, 0, "from_the_future", "timestamp"),
        (r#"{"userId":"u","event":"e","timestamp":"1969-01-01T00:00:00Z"}"#, 0, "too_early", "timestamp"),
        (r#"{"userId":"u","event":"e","event":"f"}"#, whole, "duplicate_name", "event"),
        (&deep, 0, "too_deep", ""),
        (&very_deep, 0, "invalid_field", "properties"),
        (&deep_in, 0, "too_deep", ""),
        (&large, 0, "event_too_large", ""),
    ];
    for (body, index, code, field) in cases {
        let found = rejected(TRACK, body);
        let shown = &body[..body.len().min(100)];
        assert_eq!((found[0].0, found[0].1), (*index, *code), "{shown}");
        // The path to a place that is too deep is as deep as that place.
        if *code != "too_deep" {
            assert_eq!(found[0].2, *field, "{shown}");
        }
    }
    let refused = accept(TRACK, b"{\"a\":\"\xff\"}", SENDER, &Limits::default(), &mut || 7).unwrap_err();
    assert_eq!(refused.reason, Reason::InvalidUtf8);
}

#[test]
fn bad_batches_keep_their_good_events() {
    let body = r#"{"batch":[
        {"type":"track","event":"good","userId":"u"}, 7, {"type":"track","userId":"u"}, {"type":"click","userId":"u"},
        {"userId":"u"}, null, {"type":"track","event":"x","userId":"u","userId":"v"},
        {"type":"identify","userId":"u","traits":{"a":{"a":"\u0000"}}}]}"#;
    let acceptance = accept(Route::Batch, body.as_bytes(), SENDER, &Limits::default(), &mut || 7).unwrap();
    assert_eq!(acceptance.events.len(), 1);
    let expected = [
        (1, "not_an_object", "batch[1]"),
        (2, "missing_field", "batch[2].event"),
        (3, "unknown_type", "batch[3].type"),
        (4, "missing_field", "batch[4].type"),
        (5, "not_an_object", "batch[5]"),
        (6, "duplicate_name", "batch[6].userId"),
        (7, "nul_character", "batch[7].traits.a.a"),
    ];
    let found: Vec<_> = rejected(Route::Batch, body);
    assert_eq!(found, expected.map(|(index, code, field)| (index, code, field.to_owned())));
    assert_eq!(acceptance.rejections[0].original, "7");

    let many = format!("{{\"batch\":[{}]}}", vec!["{}"; 10_001].join(","));
    let cases = [
        (r#"{"batch":[]}"#, "empty_batch", "batch"),
        ("[]", "empty_batch", "batch"),
        (r#"{"batch":{}}"#, "invalid_field", "batch"),
        (r#"{"batch":null}"#, "invalid_field", "batch"),
        (r#"{"batch":[],"batch":[]}"#, "duplicate_name", "batch"),
        (r#"{"events":[]}"#, "missing_field", "batch"),
        (r#"{"batch":[{}],"sentAt":"x"}"#, "invalid_timestamp", "sentAt"),
        (r#"{"batch":[{}],"context":[]}"#, "invalid_field", "context"),
        (r#"{"batch":[{}],"context":{"a":{"b":"\ud800"}}}"#, "invalid_string", "context.a.b"),
        (&many, "too_many_events", "batch"),
    ];
    for (body, code, field) in cases {
        assert_eq!(
            rejected(Route::Batch, body),
            [(usize::MAX, code, field.to_owned())],
            "{}",
            &body[..20.min(body.len())]
        );
    }
}

#[test]
fn a_large_shared_context_cannot_multiply_into_a_huge_request() {
    let events = vec!["{}"; 1_000].join(",");
    let body = format!("{{\"context\":{{\"a\":\"{}\"}},\"batch\":[{events}]}}", "x".repeat(100_000));
    assert_eq!(rejected(Route::Batch, &body)[0].1, "body_too_large");
}
