//! The pixel: an event by GET, answered with an image of one transparent dot.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use neonhub_schemas::Kind;

use crate::accept::{PixelCall, Reason, Refusal, pixel_body};

pub(super) const IMAGE_PATH: &str = "/v1/pixel.gif";
/// Segment's form and RudderStack's.
const KIND_PREFIXES: [&str; 2] = ["/v1/pixel/", "/pixel/v1/"];

/// GIF89a, one transparent dot, 43 bytes.
const TRANSPARENT_DOT: [u8; 43] = *b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;";

pub(super) fn image() -> Response {
    let headers = [(CONTENT_TYPE, "image/gif"), (CACHE_CONTROL, "no-store, no-cache, must-revalidate, private")];
    (headers, TRANSPARENT_DOT).into_response()
}

/// `/v1/pixel.gif` takes the kind from the query; `/v1/pixel/{kind}` and `/pixel/v1/{kind}` from the path.
pub(super) fn read(query: &str, path: &str) -> Result<PixelCall, Refusal> {
    let name = KIND_PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix));
    let Some(name) = name else { return pixel_body(query, None) };
    let kind = Kind::behavior_from(name).or_else(|| Kind::campaign_from(name));
    let kind = kind.ok_or_else(|| Refusal::new(Reason::UnknownType, "the path names no kind of event").at("kind"))?;
    pixel_body(query, Some(kind))
}
