//! Pure: no I/O, no clock, no async.
//!
//! Queries of pixels. The first byte is the kind in the path.

use neonhub_schemas::Kind;

use super::bodies::check_at;
use crate::accept::{Body, pixel_body};

pub(super) fn check(bytes: &[u8]) {
    let Some((kind, query)) = bytes.split_first() else { return };
    let Ok(query) = std::str::from_utf8(query) else { return };
    let kind = Kind::BEHAVIOR.iter().chain(&Kind::CAMPAIGN).nth(usize::from(*kind)).copied();
    let Ok(call) = pixel_body(query, kind) else { return };
    assert!(kind.is_none_or(|kind| kind == call.kind), "the path's kind is the event's");
    if let Ok(body) = Body::parse(call.route(), &call.body) {
        assert!(body.is_single() || call.route().takes_lists(), "a pixel of one call carries many events");
    }
    check_at(call.route(), &call.body);
}
