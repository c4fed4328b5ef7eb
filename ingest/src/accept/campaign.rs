//! Pure: no I/O, no clock, no async.
//!
//! What campaigns do and cause. Whatever else stands beside the named fields (policy, channel, cost…) is a property.

use std::borrow::Cow;

use neonhub_schemas::{Envelope, Kind};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use super::members::Members;
use super::object::{check_default, stored_object};
use super::rejection::Fault;
use super::text;
use super::value::{value_fields, value_of};

const CAMPAIGN_NAMES: [&str; 3] = ["campaign", "campaignId", "campaign_id"];

/// Fields of the event itself; all others become properties.
fn is_own_field(name: &str) -> bool {
    matches!(
        name,
        "type"
            | "messageId"
            | "timestamp"
            | "originalTimestamp"
            | "sentAt"
            | "userId"
            | "anonymousId"
            | "writeKey"
            | "properties"
            | "context"
            | "integrations"
            | "campaign"
            | "campaignId"
            | "campaign_id"
    )
}

pub(super) fn complete<'a>(mut event: Envelope<'a>, kind: Kind, members: &Members<'a>) -> Result<Envelope<'a>, Fault> {
    event.kind = kind;
    event.name = Cow::Borrowed(kind.as_str());
    for name in CAMPAIGN_NAMES {
        if event.campaign.is_none() {
            event.campaign = text::id(members, name)?;
        }
    }
    if event.campaign.is_none() {
        return Err(Fault::missing("campaign"));
    }
    let mut stated_outside: SmallVec<[(Cow<'a, str>, &'a RawValue); 8]> = SmallVec::new();
    for (name, value) in members.iter() {
        if !is_own_field(name) {
            check_default(name, value)?;
            stated_outside.push((name.clone(), value));
        }
    }
    let stored = stored_object(members.get("properties"), "properties", &stated_outside, value_fields(kind))?;
    event.value = value_of(kind, &stored.found)?;
    event.properties = stored.text;
    Ok(event)
}
