//! Campaign events as a display network would post them, the same each time: 20 campaigns, two policies, 5,000 people, a
//! thousand events a second of event time; of twenty, seventeen are impressions, two are clicks, one is a conversion.

use neonhub_ingest::Limits;
use neonhub_ingest::accept::{Route, Sender, accept};
use neonhub_schemas::{Envelope, NewRecord};

pub const WORKSPACE: &str = "bench";
/// 2026-02-03T00:00:00Z.
const BEGIN_MS: i64 = 1_770_076_800_000;

/// A conversion's revenue.
fn revenue_cents(number: u64) -> u64 {
    100 + number % 5_000
}

fn is_conversion(number: u64) -> bool {
    number % 20 == 19
}

fn event(number: u64) -> String {
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
        "{{\"type\":\"{kind}\",\"messageId\":\"bench-{number:012}\",\"campaign\":\"campaign-{}\",\"anonymousId\":\"person-{:05}\",\
         \"timestamp\":{},\"channel\":\"display\",\"policy\":\"{}\",\"position\":{},\"item\":\"item-{:03}\"{revenue}}}",
        number % 19,
        number * 7 % 5_000,
        BEGIN_MS + i64::try_from(number).unwrap_or(0),
        if number.is_multiple_of(3) { "bts" } else { "random" },
        number % 3 + 1,
        number % 80,
    )
}

/// The body of a request with these events.
pub fn body(numbers: std::ops::Range<u64>) -> String {
    format!("{{\"batch\":[{}]}}", numbers.map(event).collect::<Vec<_>>().join(","))
}

/// The same events as ingest puts them on `raw.campaign`.
pub fn raw_records(numbers: std::ops::Range<u64>) -> anyhow::Result<Vec<NewRecord>> {
    let text = body(numbers);
    // Now: a broker takes what is older than its retention for expired.
    let sender = Sender { workspace: WORKSPACE, received_at_ms: crate::clock::now_ms() };
    let limits = Limits { max_batch_events: usize::MAX, ..Limits::default() };
    let accepted = accept(Route::Campaign, text.as_bytes(), sender, &limits, &mut || 0)
        .map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    anyhow::ensure!(accepted.rejections.is_empty(), "{:?}", accepted.rejections.first());
    Ok(accepted.events.iter().map(Envelope::to_raw_record).collect())
}

/// Revenue of the first events, in micro-units.
pub fn revenue_micros(events: u64) -> i128 {
    (0..events).filter(|number| is_conversion(*number)).map(|number| i128::from(revenue_cents(number)) * 10_000).sum()
}

pub fn impressions(events: u64) -> u64 {
    events / 20 * 17 + (events % 20).min(17)
}
