//! The demo's data, and days on which clocks change: all counts are those of a recount, by campaign and policy, in every
//! grain and zone.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::Client;
use crate::oracle::{AdEvent, CLOCK_CHANGES, Counts, Table, days_when_clocks_change, open_bandit_sample, recount};
use crate::real_stack::cache_folder;
use crate::stack::{Backbone, Options, Stack};

const ZONES: [&str; 4] = ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe"];
const GRAINS: [&str; 5] = ["hour", "day", "week", "month", "total"];
/// All of the sample, and no change of the clock.
const SAMPLE: (&str, &str) = ("2019-11-15T00:00:00Z", "2019-12-15T00:00:00Z");

pub fn run(backbone: Backbone) {
    in_the_zone_of_the_query(backbone);
    in_the_zone_of_the_workspace(backbone);
}

/// Windows stored in UTC, asked for in any zone.
fn in_the_zone_of_the_query(backbone: Backbone) {
    let stack = Stack::start(backbone);
    let client = stack.client();
    let sample = open_bandit_sample(&cache_folder().unwrap().join("obp-0.4.1"));
    let impressions = sample.iter().filter(|event| !event.is_click).count();
    assert_eq!(impressions, 60_000, "the sample is whole");
    let clicks = sample.iter().filter(|event| event.is_click && event.campaign == "all");
    assert_eq!(clicks.count(), 38 + 42, "the clicks are those that were published");
    let changes = days_when_clocks_change();
    post(&client, &changes);
    post(&client, &sample);
    client.wait_for_events(changes.len() + sample.len());
    wait_until_counted(&client, &sample, SAMPLE);
    wait_until_counted(&client, &changes, (CLOCK_CHANGES[0].0, CLOCK_CHANGES[3].1));
    for zone in ZONES {
        for grain in GRAINS {
            let _stored_grain = assert_recounted(&client, &sample, grain, Some(zone), SAMPLE);
        }
        for range in CLOCK_CHANGES {
            for grain in ["hour", "day"] {
                let _stored_grain = assert_recounted(&client, &changes, grain, Some(zone), range);
            }
        }
    }
    stack.assert_audit_clean();
}

/// Windows stored in a zone whose clock changes by half an hour.
fn in_the_zone_of_the_workspace(backbone: Backbone) {
    let zone = "Australia/Lord_Howe";
    let stack = Stack::start_with(backbone, Options { timezone: Some(zone), ..Options::default() }, None);
    let client = stack.client();
    let changes = days_when_clocks_change();
    post(&client, &changes);
    client.wait_for_events(changes.len());
    for (from, to) in CLOCK_CHANGES {
        // From midnight to midnight there, so that whole stored windows fit.
        let midnight = |text: &str| {
            let at: Timestamp = text.parse().unwrap();
            at.in_tz(zone).unwrap().start_of_day().unwrap().timestamp().to_string()
        };
        let (from, to) = (midnight(from), midnight(to));
        let range = (from.as_str(), to.as_str());
        wait_until_counted(&client, &changes, range);
        for grain in ["hour", "day"] {
            assert_eq!(assert_recounted(&client, &changes, grain, None, range), grain, "the stored windows are read");
        }
        assert_eq!(assert_recounted(&client, &changes, "hour", Some("America/New_York"), range), "quarter");
    }
    stack.assert_audit_clean();
}

/// In time order, 500 a request, as an SDK would.
fn post(client: &Client, events: &[AdEvent]) {
    let events: Vec<Value> = events.iter().map(AdEvent::to_json).collect();
    client.accept("/v1/campaigns/events", &events);
}

/// Waits until the windows of every grain hold all events of the range: those of longer ones come seconds later.
fn wait_until_counted(client: &Client, events: &[AdEvent], (from, to): (&str, &str)) {
    let expected = [false, true].map(|is_click| sum_of(events, is_click, from, to));
    for grain in GRAINS {
        let query = json!({ "metrics": ["impressions", "clicks"], "grain": grain, "from": from, "to": to });
        client.wait_for_rows(&query, |rows| {
            let sum = |metric: &str| rows.iter().filter_map(|row| row[metric].as_u64()).sum::<u64>();
            [sum("impressions"), sum("clicks")] == expected
        });
    }
}

fn sum_of(events: &[AdEvent], is_click: bool, from: &str, to: &str) -> u64 {
    let (from, to): (Timestamp, Timestamp) = (from.parse().unwrap(), to.parse().unwrap());
    events.iter().filter(|event| event.is_click == is_click && from <= event.at && event.at < to).count() as u64
}

/// Returns the grain of the stored windows that the answer was made of.
fn assert_recounted(
    client: &Client,
    events: &[AdEvent],
    grain: &str,
    timezone: Option<&str>,
    (from, to): (&str, &str),
) -> String {
    let query = json!({
        "metrics": ["impressions", "clicks", "ctr"], "grain": grain, "from": from, "to": to, "timezone": timezone,
        "group_by": ["campaign", "policy"],
        "filters": [{ "dimension": "campaign", "op": "in", "values": campaigns(events) }],
    });
    let answer = client.api("POST", "/v1/metrics/query", Some(&query));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let zone = answer["meta"]["timezone"].as_str().unwrap();
    let expected = recount(events, grain, zone, from.parse().unwrap(), to.parse().unwrap());
    let found = read_rows(answer["rows"].as_array().unwrap());
    let differing: Vec<_> =
        expected.keys().chain(found.keys()).filter(|key| expected.get(*key) != found.get(*key)).take(5).collect();
    let shown: Vec<_> = differing.iter().map(|key| (key, expected.get(*key), found.get(*key))).collect();
    assert!(shown.is_empty(), "{grain} in {zone}, {from} to {to}: window, expected, found: {shown:#?}");
    assert!(!found.is_empty(), "{query} has an answer");
    answer["meta"]["stored_grain"].as_str().unwrap().to_owned()
}

fn campaigns(events: &[AdEvent]) -> Vec<&'static str> {
    let mut campaigns: Vec<&str> = events.iter().map(|event| event.campaign).collect();
    campaigns.sort_unstable();
    campaigns.dedup();
    campaigns
}

/// The rows as a table; each with the rate that its own counts make.
fn read_rows(rows: &[Value]) -> Table {
    let mut table = Table::new();
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name} of {row}")).to_owned();
        let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name} of {row}"));
        let counts = Counts { impressions: number("impressions"), clicks: number("clicks") };
        // The quotient is exact to the last bit, but reading it from JSON is not.
        let rate = (counts.impressions > 0).then(|| counts.clicks as f64 / counts.impressions as f64);
        let is_rate = |found: Option<f64>| match (found, rate) {
            (Some(found), Some(rate)) => (found - rate).abs() <= rate * 1e-12,
            (found, rate) => found == rate,
        };
        assert!(is_rate(row["ctr"].as_f64()), "{row}");
        let start: Timestamp = text("window_start").parse().unwrap();
        let end: Timestamp = text("window_end").parse().unwrap();
        assert!(start < end, "{row}");
        let earlier = table.insert((start, text("campaign"), text("policy")), counts);
        assert_eq!(earlier, None, "two rows for one window and group: {row}");
    }
    table
}
