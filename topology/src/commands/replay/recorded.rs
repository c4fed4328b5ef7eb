//! Pure: no I/O, no clock, no async.
//!
//! A recorded event, one JSON object → what is sent to ingest, and where.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::outgoing::{Origin, OutgoingEvent, actor_hash, message_id};

const BEHAVIOR: [&str; 6] = ["track", "identify", "page", "screen", "group", "alias"];
const CAMPAIGN: [&str; 8] = ["impression", "click", "send", "open", "bounce", "unsubscribe", "conversion", "spend"];

/// What does not depend on the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sending {
    /// Instead of what the event's type says.
    pub route: Option<Arc<str>>,
    /// Event times are taken as given: behaviour goes to `/v1/import`, and no `sentAt` corrects the others.
    pub as_import: bool,
}

/// The few members that are looked at; the text is sent as it is.
#[derive(Deserialize)]
struct Probe {
    #[serde(default, rename = "type")]
    kind: Option<Value>,
    #[serde(default, rename = "messageId", deserialize_with = "even_null")]
    message_id: Option<Value>,
    #[serde(default, rename = "userId")]
    user_id: Option<Value>,
    #[serde(default, rename = "anonymousId")]
    anonymous_id: Option<Value>,
    #[serde(default)]
    platform: Option<Value>,
    #[serde(default, rename = "sentAt", deserialize_with = "even_null")]
    sent_at: Option<Value>,
}

fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// # Errors
/// What is wrong, with the field's name.
pub fn outgoing(text: &str, part: usize, origin: &Origin, sending: &Sending) -> Result<OutgoingEvent, String> {
    let text = text.trim();
    if !text.starts_with('{') {
        return Err("an event is a JSON object".to_owned());
    }
    let probe: Probe = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
    let route = match &sending.route {
        Some(route) => route.clone(),
        None => route_of(&probe, sending.as_import)?,
    };
    let id = message_id(origin, text.as_bytes(), part);
    let drops_sent_at = sending.as_import && &*route != "/v1/import" && probe.sent_at.is_some();
    let has_own_id = probe.message_id.as_ref().is_some_and(|id| !id.is_null() && id != "");
    let json = if probe.message_id.is_some() != has_own_id || drops_sent_at {
        let mut event: Map<String, Value> = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        if drops_sent_at {
            event.remove("sentAt");
        }
        if !has_own_id {
            event.insert("messageId".to_owned(), Value::String(id));
        }
        Value::Object(event).to_string()
    } else if has_own_id {
        text.to_owned()
    } else {
        // Put in front as text, so that every number keeps all its digits.
        let rest = text.trim_start_matches('{').trim_start();
        let comma = if rest.starts_with('}') { "" } else { "," };
        format!("{{\"messageId\":\"{id}\"{comma}{rest}")
    };
    let text_of = |value: &Option<Value>| value.as_ref().filter(|id| !id.is_null()).map(plain);
    let actor = actor_hash(text_of(&probe.user_id).as_deref(), text_of(&probe.anonymous_id).as_deref(), origin);
    Ok(OutgoingEvent { route, actor, json, origin: origin.clone() })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn route_of(probe: &Probe, as_import: bool) -> Result<Arc<str>, String> {
    let kind = probe.kind.as_ref().and_then(Value::as_str).unwrap_or_default();
    if let Some(platform) = &probe.platform {
        let platform = platform.as_str().unwrap_or_default();
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        if platform.is_empty() || !platform.bytes().all(is_name) {
            return Err("platform: must be a name of a-z, 0-9, - and _".to_owned());
        }
        return Ok(format!("/v1/integrations/{platform}/events").into());
    }
    if BEHAVIOR.contains(&kind) {
        return Ok(if as_import { "/v1/import" } else { "/v1/batch" }.into());
    }
    if CAMPAIGN.contains(&kind) {
        return Ok("/v1/campaigns/events".into());
    }
    let known = format!("{}, {}", BEHAVIOR.join(", "), CAMPAIGN.join(", "));
    if probe.kind.is_none() {
        return Err(format!("type: is missing; one of {known}, or any with a platform"));
    }
    Err(format!("type: `{kind}` is not one of {known}, and there is no platform"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, as_import: bool) -> Result<OutgoingEvent, String> {
        let origin = Origin { file: "e.ndjson".into(), line: 7 };
        outgoing(text, 0, &origin, &Sending { route: None, as_import })
    }

    #[test]
    fn each_family_goes_to_its_route() {
        let route = |text| read(text, false).unwrap().route.to_string();
        assert_eq!(route(r#"{"type":"track","event":"x","userId":"u"}"#), "/v1/batch");
        assert_eq!(route(r#"{"type":"click","campaign":"men"}"#), "/v1/campaigns/events");
        let paid = r#"{"type":"invoice.paid","platform":"stripe","payload":{}}"#;
        assert_eq!(route(paid), "/v1/integrations/stripe/events");
        assert_eq!(&*read(r#"{"type":"page"}"#, true).unwrap().route, "/v1/import");
    }

    #[test]
    fn the_text_is_sent_as_it_is_with_an_id_in_front() {
        let event = read(r#" { "type":"track","properties":{"n":12345678901234567.890123}} "#, false).unwrap();
        assert!(event.json.starts_with(r#"{"messageId":"replay-"#), "{}", event.json);
        assert!(event.json.ends_with(r#"","type":"track","properties":{"n":12345678901234567.890123}}"#));
        assert_eq!(event, read(r#"{ "type":"track","properties":{"n":12345678901234567.890123}}"#, false).unwrap());
        let own = r#"{"type":"track","messageId":"m-1"}"#;
        assert_eq!(read(own, false).unwrap().json, own);
    }

    #[test]
    fn an_empty_id_is_replaced_and_sent_at_does_not_move_an_import() {
        let event = read(r#"{"type":"track","messageId":null}"#, false).unwrap();
        let read_back: Value = serde_json::from_str(&event.json).unwrap();
        assert!(read_back["messageId"].as_str().unwrap().starts_with("replay-"));
        let click = r#"{"type":"click","campaign":"a","messageId":"m","sentAt":"2020-01-01T00:00:00Z"}"#;
        assert!(!read(click, true).unwrap().json.contains("sentAt"));
        assert!(read(click, false).unwrap().json.contains("sentAt"));
    }

    #[test]
    fn bad_lines_are_named_by_field() {
        for (text, expected) in [
            ("[1]", "an event is a JSON object"),
            ("{\"type\":", "not JSON"),
            ("{}", "type: is missing"),
            (r#"{"type":"jump"}"#, "type: `jump` is not one of"),
            (r#"{"type":"x","platform":"../a"}"#, "platform: must be"),
            (r#"{"type":"click","type":"click"}"#, "duplicate field"),
        ] {
            let error = read(text, false).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
