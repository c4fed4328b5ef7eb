//! Pure: no I/O, no clock, no async.
//!
//! A pixel's query string becomes the body that the same event would have had over POST.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use neonhub_schemas::Kind;
use serde_json::{Map, Value};

use super::Route;
use super::rejection::{Reason, Refusal};

/// Parameters that are fields of the event; all others become properties.
const EVENT_FIELDS: [&str; 16] = [
    "type",
    "event",
    "name",
    "category",
    "messageId",
    "timestamp",
    "originalTimestamp",
    "sentAt",
    "userId",
    "anonymousId",
    "previousId",
    "groupId",
    "campaign",
    "campaignId",
    "campaign_id",
    "writeKey",
];

/// Padding is optional, because it is often lost in a URL.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// What a pixel's request amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelCall {
    pub kind: Kind,
    /// JSON.
    pub body: Vec<u8>,
}

impl PixelCall {
    #[must_use]
    pub fn route(&self) -> Route<'static> {
        if Kind::CAMPAIGN.contains(&self.kind) { Route::Campaign } else { Route::Call(self.kind) }
    }
}

/// Reads either `data=` (the event as base64 of JSON, as in Segment's pixel API) or plain parameters. Without a `type` an
/// `event` makes it a track, else it is a page; `path_kind` is the kind stated in the path, where there is one.
///
/// # Errors
/// `data` is not base64 of a JSON object, or `type` is unknown.
pub fn pixel_body(query: &str, path_kind: Option<Kind>) -> Result<PixelCall, Refusal> {
    let mut event = Map::new();
    let mut properties = Map::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let text = Value::String(value.clone().into_owned());
        match name.as_ref() {
            "data" => {
                event = from_data(&value)?;
            }
            known if EVENT_FIELDS.contains(&known) => {
                event.entry(known).or_insert(text);
            }
            other => {
                properties.entry(other).or_insert(text);
            }
        }
    }
    let kind = match (path_kind, event.get("type")) {
        (Some(kind), _) => kind,
        (None, Some(Value::String(name))) => {
            Kind::behavior_from(name).or_else(|| Kind::campaign_from(name)).ok_or_else(|| {
                Refusal::new(Reason::UnknownType, "must be a behaviour call or a campaign event").at("type")
            })?
        }
        (None, Some(_)) => return Err(Refusal::new(Reason::InvalidField, "must be a string").at("type")),
        (None, None) if event.contains_key("event") => Kind::Track,
        (None, None) => Kind::Page,
    };
    event.insert("type".to_owned(), Value::String(kind.as_str().to_owned()));
    if !properties.is_empty() && !event.contains_key("properties") {
        event.insert("properties".to_owned(), Value::Object(properties));
    }
    let body = serde_json::to_vec(&event)
        .map_err(|error| Refusal::new(Reason::InvalidJson, format!("the query has no JSON form: {error}")))?;
    Ok(PixelCall { kind, body })
}

fn from_data(data: &str) -> Result<Map<String, Value>, Refusal> {
    let url_safe = data.contains(['-', '_']);
    let alphabet = if url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    // A plus sign that was not escaped arrives as a space.
    let bytes = GeneralPurpose::new(alphabet, LENIENT)
        .decode(data.replace(' ', "+"))
        .map_err(|error| Refusal::new(Reason::InvalidEncoding, format!("not base64: {error}")).at("data"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::new(Reason::InvalidJson, format!("not a JSON object: {error}")).at("data"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    fn body(query: &str) -> String {
        String::from_utf8(pixel_body(query, None).unwrap().body).unwrap()
    }

    #[test]
    fn parameters_become_an_event() {
        let call = pixel_body("writeKey=k&type=open&campaign=spring&userId=u%201&list=a+b", None).unwrap();
        assert_eq!(call.route(), Route::Campaign);
        let expected =
            r#"{"campaign":"spring","properties":{"list":"a b"},"type":"open","userId":"u 1","writeKey":"k"}"#;
        assert_eq!(
            serde_json::from_slice::<Value>(&call.body).unwrap(),
            serde_json::from_str::<Value>(expected).unwrap()
        );
        assert_eq!(pixel_body("event=Seen&userId=1", None).unwrap().kind, Kind::Track);
        assert_eq!(pixel_body("userId=1", None).unwrap().kind, Kind::Page);
        assert_eq!(pixel_body("userId=1", Some(Kind::Identify)).unwrap().kind, Kind::Identify);
    }

    #[test]
    fn data_is_the_event_in_base64() {
        let event = r#"{"event":"S?>ü","userId":"u"}"#;
        let expected = r#"{"event":"S?>ü","type":"track","userId":"u"}"#;
        assert_eq!(body(&format!("data={}", URL_SAFE_NO_PAD.encode(event))), expected);
        assert_eq!(body(&format!("data={}", STANDARD.encode(event))), expected);
    }

    #[test]
    fn bad_pixels_are_refused() {
        let refusal = |query: &str| {
            let refusal = pixel_body(query, None).unwrap_err();
            (refusal.reason, refusal.field.unwrap_or_default())
        };
        assert_eq!(refusal("data=%%%"), (Reason::InvalidEncoding, "data".to_owned()));
        assert_eq!(refusal(&format!("data={}", STANDARD.encode("[1]"))), (Reason::InvalidJson, "data".to_owned()));
        assert_eq!(refusal("type=nonsense"), (Reason::UnknownType, "type".to_owned()));
    }
}
