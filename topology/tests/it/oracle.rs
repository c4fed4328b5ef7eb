//! A batch recount, apart from everything the stages share: plain loops over what was posted, and calendars by jiff
//! alone.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

/// An impression or a click.
#[derive(Clone, Debug)]
pub struct AdEvent {
    pub id: String,
    pub campaign: &'static str,
    pub policy: &'static str,
    pub is_click: bool,
    pub at: Timestamp,
    pub visitor: String,
}

impl AdEvent {
    pub fn to_json(&self) -> Value {
        json!({
            "type": if self.is_click { "click" } else { "impression" }, "messageId": self.id,
            "campaign": self.campaign, "properties": { "policy": self.policy },
            "timestamp": self.at.to_string(), "anonymousId": self.visitor,
        })
    }
}

/// The Open Bandit sample: an impression a row, and a click where the row has one. In time order.
pub fn open_bandit_sample(folder: &Path) -> Vec<AdEvent> {
    let mut events = Vec::new();
    for policy in ["random", "bts"] {
        for campaign in ["all", "men", "women"] {
            let file = folder.join(policy).join(campaign).with_extension("csv");
            let mut reader = csv::Reader::from_path(&file).unwrap_or_else(|error| {
                panic!("{}: {error}: run `make demo-data` (deploy/fetch-demo-data.sh) once", file.display())
            });
            let headers = reader.headers().unwrap().clone();
            let column = |name: &str| headers.iter().position(|header| header == name).unwrap();
            let (timestamp, click, user) = (column("timestamp"), column("click"), column("user_feature_3"));
            for (number, row) in reader.records().enumerate() {
                let row = row.unwrap();
                let at: Timestamp = row[timestamp].parse().unwrap();
                let kinds: &[bool] = if &row[click] == "1" { &[false, true] } else { &[false] };
                for is_click in kinds {
                    let id = format!("{policy}-{campaign}-{number}-{is_click}");
                    let visitor = row[user].to_owned();
                    events.push(AdEvent { id, campaign, policy, is_click: *is_click, at, visitor });
                }
            }
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

/// An impression every ten minutes, every third clicked, over days on which clocks change: in New York on 2019-03-10 and
/// 2019-11-03, on Lord Howe Island on 2019-04-07 and 2019-10-06. In time order.
pub fn days_when_clocks_change() -> Vec<AdEvent> {
    let mut events = Vec::new();
    for (from, to) in CLOCK_CHANGES {
        let mut at: Timestamp = from.parse().unwrap();
        while at < to.parse().unwrap() {
            let number = at.as_second() / 600;
            let policy = if number % 5 == 0 { "random" } else { "bts" };
            let kinds: &[bool] = if number % 3 == 0 { &[false, true] } else { &[false] };
            for is_click in kinds {
                let (id, visitor) = (format!("clock-{number}-{is_click}"), format!("visitor-{}", number % 40));
                events.push(AdEvent { id, campaign: "clock", policy, is_click: *is_click, at, visitor });
            }
            at += 10.minutes();
        }
    }
    events
}

pub const CLOCK_CHANGES: [(&str, &str); 4] = [
    ("2019-03-08T00:00:00Z", "2019-03-13T00:00:00Z"),
    ("2019-04-05T00:00:00Z", "2019-04-09T00:00:00Z"),
    ("2019-10-04T00:00:00Z", "2019-10-08T00:00:00Z"),
    ("2019-11-01T00:00:00Z", "2019-11-06T00:00:00Z"),
];

/// Impressions and clicks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub impressions: u64,
    pub clicks: u64,
}

/// By the window's first instant, campaign and policy.
pub type Table = BTreeMap<(Timestamp, String, String), Counts>;

/// Counts the events of `[from, to)` by windows of `grain` in `zone`; `total` has one window, which starts at `from`.
pub fn recount(events: &[AdEvent], grain: &str, zone: &str, from: Timestamp, to: Timestamp) -> Table {
    let zone = TimeZone::get(zone).unwrap();
    let mut table = Table::new();
    for event in events.iter().filter(|event| from <= event.at && event.at < to) {
        let start = if grain == "total" { from } else { window_start(grain, &zone, event.at) };
        let counts = table.entry((start, event.campaign.to_owned(), event.policy.to_owned())).or_default();
        if event.is_click {
            counts.clicks += 1;
        } else {
            counts.impressions += 1;
        }
    }
    table
}

/// Where the window that holds `at` starts.
fn window_start(grain: &str, zone: &TimeZone, at: Timestamp) -> Timestamp {
    let local = at.to_zoned(zone.clone());
    let day = local.start_of_day().unwrap();
    match grain {
        // The clock on the wall, turned back to hh:00 as if it had never been changed.
        "hour" => {
            let past_the_hour = i64::from(local.minute()) * 60 + i64::from(local.second());
            Timestamp::from_second(at.as_second() - past_the_hour).unwrap()
        }
        "day" => day.timestamp(),
        "week" => {
            let monday = day.date() - i64::from(day.weekday().to_monday_zero_offset()).days();
            monday.to_zoned(zone.clone()).unwrap().timestamp()
        }
        "month" => day.date().first_of_month().to_zoned(zone.clone()).unwrap().timestamp(),
        other => panic!("no grain: {other}"),
    }
}

#[test]
fn windows_of_the_recount_are_those_on_the_wall() {
    let start = |grain: &str, zone: &str, at: &str| {
        window_start(grain, &TimeZone::get(zone).unwrap(), at.parse().unwrap()).to_string()
    };
    assert_eq!(start("hour", "Asia/Kathmandu", "2019-11-24T00:20:00.5Z"), "2019-11-24T00:15:00Z");
    // 02:00 at +11 becomes 01:30 at +10:30.
    assert_eq!(start("hour", "Australia/Lord_Howe", "2019-04-06T14:59:59Z"), "2019-04-06T14:00:00Z");
    assert_eq!(start("hour", "Australia/Lord_Howe", "2019-04-06T15:00:00Z"), "2019-04-06T14:30:00Z");
    assert_eq!(start("day", "America/New_York", "2019-11-04T04:59:59Z"), "2019-11-03T04:00:00Z");
    assert_eq!(start("week", "America/New_York", "2019-03-10T20:00:00Z"), "2019-03-04T05:00:00Z");
    assert_eq!(start("month", "UTC", "2019-11-30T23:59:59Z"), "2019-11-01T00:00:00Z");
}
