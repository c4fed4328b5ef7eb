//! Acceptance for any bytes and any JSON.

use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept, pixel_body};
use neonhub_schemas::{Envelope, Kind};
use proptest::prelude::*;
use serde_json::{Value, json};

const SENDER: Sender<'static> = Sender { workspace: "acme", received_at_ms: 1_600_000_000_000 };

fn routes() -> impl Strategy<Value = Route<'static>> {
    prop_oneof![
        prop::sample::select(Kind::BEHAVIOR.to_vec()).prop_map(Route::Call),
        Just(Route::Batch),
        Just(Route::Import),
        Just(Route::Campaign),
        Just(Route::Integration { platform: "crm" }),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-z\\\\\"\u{0}ü]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-z\\\\\"ü]{0,4}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Events that are mostly right, with anything in any place.
fn event() -> impl Strategy<Value = Value> {
    let kinds = prop_oneof![
        prop::sample::select(Kind::BEHAVIOR.to_vec()).prop_map(|kind| json!(kind.as_str())),
        prop::sample::select(Kind::CAMPAIGN.to_vec()).prop_map(|kind| json!(kind.as_str())),
        any_json(),
    ];
    let text = || prop_oneof![3 => "[a-zü\"\\\\]{1,8}".prop_map(Value::from), 1 => any_json()];
    let object = || {
        prop_oneof![
            3 => prop::collection::hash_map("revenue|value|cost|[a-z]{1,4}", any_json(), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
            1 => any_json(),
        ]
    };
    (kinds, text(), text(), object(), object(), any_json()).prop_map(|(kind, id, name, properties, context, other)| {
        json!({
            "type": kind, "userId": id, "event": name, "campaign": name, "groupId": id, "previousId": id, "name": name,
            "properties": properties, "traits": properties, "payload": properties, "context": context, "policy": other,
        })
    })
}

fn check(route: Route<'_>, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut drawn = 0;
    let mut random = || {
        drawn += 1;
        u128::from_be_bytes([drawn; 16])
    };
    let Ok(acceptance) = accept(route, bytes, SENDER, &Limits::default(), &mut random) else { return Ok(()) };
    prop_assert!(!acceptance.events.is_empty() || !acceptance.rejections.is_empty());
    for envelope in &acceptance.events {
        let encoded = envelope.encode();
        let decoded = Envelope::decode(&encoded).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&decoded, envelope);
        prop_assert!(!envelope.message_id.is_empty() && !envelope.name.is_empty());
        // What is stored is JSON that everybody reads the same way.
        for stored in [&envelope.properties, &envelope.context] {
            prop_assert!(serde_json::from_str::<serde_json::Map<String, Value>>(stored).is_ok());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(route in routes(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(route, &bytes)?;
    }

    #[test]
    fn any_text_like_json(route in routes(), text in r#"[\[\]{}:,"\\ud0-9eE.+\-a-f ]{0,80}"#) {
        check(route, text.as_bytes())?;
    }

    #[test]
    fn any_json_at_all(route in routes(), json in any_json()) {
        check(route, json.to_string().as_bytes())?;
    }

    #[test]
    fn any_event(route in routes(), one in event()) {
        check(route, one.to_string().as_bytes())?;
    }

    #[test]
    fn any_batch(route in routes(), events in prop::collection::vec(event(), 0..5), context in any_json()) {
        check(route, json!({"batch": events, "context": context}).to_string().as_bytes())?;
    }

    #[test]
    fn any_event_cut_anywhere(route in routes(), one in event(), place in any::<prop::sample::Index>()) {
        let text = one.to_string();
        check(route, &text.as_bytes()[..place.index(text.len())])?;
    }

    #[test]
    fn any_query(query in any::<String>()) {
        if let Ok(call) = pixel_body(&query, None) {
            check(call.route(), &call.body)?;
        }
    }
}
