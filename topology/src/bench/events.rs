//! Campaign events as a display network would post them, the same each time: 19 campaigns, two policies, 5,000 people, a
//! thousand events a second of event time; of twenty, seventeen are impressions, two are clicks, one is a conversion.

use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept};
use neonhub_schemas::{Envelope, NewRecord};

pub const WORKSPACE: &str = "bench";
/// 2026-02-03T00:00:00Z.
const BEGIN_MS: i64 = 1_770_076_800_000;

/// How events are spread over campaigns and people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// 19 campaigns.
    Few,
    /// 1,000 campaigns, each as large as any other.
    Uniform,
    /// The same, but every other event is of one campaign and one person.
    Skewed,
}

/// The campaign that has half of the skewed events.
pub const HOT_CAMPAIGN: &str = "campaign-hot";

impl Spread {
    /// Campaign and person of an event.
    fn names(self, number: u64) -> (String, String) {
        match self {
            Self::Few => (format!("campaign-{}", number % 19), format!("person-{:05}", number * 7 % 5_000)),
            Self::Skewed if number.is_multiple_of(2) => (HOT_CAMPAIGN.to_owned(), "person-hot".to_owned()),
            Self::Uniform | Self::Skewed => {
                // Neighbours differ, and each round shifts, so that a campaign has events of all kinds.
                let campaign = (number / 2 + number / 2_000) * 7 % 1_000;
                (format!("campaign-{campaign}"), format!("person-{:05}", number * 7 % 5_000))
            }
        }
    }
}

/// A conversion's revenue.
fn revenue_cents(number: u64) -> u64 {
    100 + number % 5_000
}

fn is_conversion(number: u64) -> bool {
    number % 20 == 19
}

fn event(spread: Spread, number: u64) -> String {
    let (campaign, person) = spread.names(number);
    let kind = match number % 20 {
        0..=16 => "impression",
        17 | 18 => "click",
        _ => "conversion",
    };
    let revenue = if is_conversion(number) {
        let cents = revenue_cents(number);
        format!(",\"revenue\":\"{}.{:02}\"", cents / 100, cents % 100)
    } else {
        String::new()
    };
    format!(
        "{{\"type\":\"{kind}\",\"messageId\":\"bench-{number:012}\",\"campaign\":\"{campaign}\",\"anonymousId\":\"{person}\",\
         \"timestamp\":{},\"channel\":\"display\",\"policy\":\"{}\",\"position\":{},\"item\":\"item-{:03}\"{revenue}}}",
        BEGIN_MS + i64::try_from(number).unwrap_or(0),
        if number.is_multiple_of(3) { "bts" } else { "random" },
        number % 3 + 1,
        number % 80,
    )
}

/// The body of a request with these events.
pub fn body(numbers: std::ops::Range<u64>) -> String {
    body_of(Spread::Few, numbers)
}

fn body_of(spread: Spread, numbers: std::ops::Range<u64>) -> String {
    format!("{{\"batch\":[{}]}}", numbers.map(|number| event(spread, number)).collect::<Vec<_>>().join(","))
}

/// The same events as ingest puts them on `raw.campaign`.
pub fn raw_records(spread: Spread, numbers: std::ops::Range<u64>) -> anyhow::Result<Vec<NewRecord>> {
    let text = body_of(spread, numbers);
    // Now: a broker takes what is older than its retention for expired.
    let sender = Sender { workspace: WORKSPACE, received_at_ms: crate::clock::now_ms() };
    let limits = Limits { max_batch_events: usize::MAX, ..Limits::default() };
    let accepted = accept(Route::Campaign, text.as_bytes(), sender, &limits, &mut || 0)
        .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    anyhow::ensure!(accepted.rejections.is_empty(), "{:?}", accepted.rejections.first());
    Ok(accepted.events.iter().map(Envelope::to_raw_record).collect())
}

/// A conversion in the form in which refine puts it on `events.campaign`.
pub fn refined(number: u64, campaign: u64, at_ms: i64) -> String {
    let at = neonhub_schemas::time::format_ms(at_ms);
    let cents = revenue_cents(number);
    format!(
        "{{\"schema\":1,\"workspace\":\"{WORKSPACE}\",\"message_id\":\"bench-{number:012}\",\"source\":\"campaign\",\
         \"kind\":\"conversion\",\"name\":\"conversion\",\"anonymous_id\":\"person-{:05}\",\"campaign\":\"campaign-{campaign}\",\
         \"value\":\"{}.{:02}\",\"timestamp\":\"{at}\",\"received_at\":\"{at}\",\"properties\":{{}},\"context\":{{}}}}",
        number * 7 % 5_000,
        cents / 100,
        cents % 100,
    )
}

/// Revenue of the first events, in micro-units.
pub fn revenue_micros(events: u64) -> i128 {
    (0..events).filter(|number| is_conversion(*number)).map(|number| i128::from(revenue_cents(number)) * 10_000).sum()
}

pub fn impressions(events: u64) -> u64 {
    events / 20 * 17 + (events % 20).min(17)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn uniform_campaigns_are_alike_and_skewed_ones_share_the_other_half() {
        for (spread, of_hot, of_others) in [(Spread::Uniform, None, 40), (Spread::Skewed, Some(20_000), 20)] {
            let mut counts: HashMap<String, u64> = HashMap::new();
            (0..40_000).for_each(|number| *counts.entry(spread.names(number).0).or_default() += 1);
            assert_eq!(counts.remove(HOT_CAMPAIGN), of_hot);
            assert!(counts.values().all(|count| *count == of_others), "{spread:?}");
            assert_eq!(counts.len(), 1_000);
        }
    }
}
