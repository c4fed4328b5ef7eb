//! Pure: no I/O, no clock, no async.
//!
//! Calendar windows in a time zone. Minutes and quarter-hours are the same in every zone (since 1972 offsets have been
//! multiples of a quarter of an hour). An hour starts where the zone's clock, with the offset in force at the event, reads
//! hh:00; days, weeks (from Monday, ISO 8601) and months start at the zone's first instant of that date.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Grain {
    Minute,
    Quarter,
    Hour,
    Day,
    Week,
    Month,
}

impl Grain {
    pub const ALL: [Self; 6] = [Self::Minute, Self::Quarter, Self::Hour, Self::Day, Self::Week, Self::Month];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Quarter => "quarter",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grain| grain.as_str() == name)
    }

    /// Whether windows of this grain depend on the time zone.
    #[must_use]
    pub fn is_zoned(self) -> bool {
        self >= Self::Hour
    }
}

/// `start_s` names the window; `end_s` is the first instant after it that another window holds. Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    pub start_s: i64,
    pub end_s: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IANA time zone, like `Europe/Berlin` or `UTC`")]
pub struct CalendarError(pub String);

/// Finds windows in one zone. Events come close together in time, so the last window of each grain is remembered.
#[derive(Clone, Debug)]
pub struct Calendar {
    name: String,
    zone: TimeZone,
    last: [(i64, i64, Window); 6],
}

impl Calendar {
    /// # Errors
    /// The name is no IANA zone of the built-in database.
    pub fn new(name: &str) -> Result<Self, CalendarError> {
        let zone = TimeZone::get(name).map_err(|_| CalendarError(name.to_owned()))?;
        let nothing = (1, 0, Window { start_s: 0, end_s: 0 });
        Ok(Self { name: name.to_owned(), zone, last: [nothing; 6] })
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The window of `grain` that holds the instant `at_s` (Unix seconds, within [`crate::time::EARLIEST_MS`] and
    /// [`crate::time::LATEST_MS`]).
    pub fn window(&mut self, grain: Grain, at_s: i64) -> Window {
        let (from, to, window) = self.last[grain as usize];
        if (from..to).contains(&at_s) {
            return window;
        }
        let (from, window) = self.find(grain, at_s);
        self.last[grain as usize] = (from, window.end_s, window);
        window
    }

    /// The window, and the first instant at which it is known to hold.
    fn find(&self, grain: Grain, at_s: i64) -> (i64, Window) {
        let fixed = |length: i64| {
            let start_s = at_s - at_s.rem_euclid(length);
            (start_s, Window { start_s, end_s: start_s + length })
        };
        match grain {
            Grain::Minute => fixed(60),
            Grain::Quarter => fixed(900),
            Grain::Hour => self.hour(at_s),
            Grain::Day => self.dates(at_s, |date| date, |date| date.saturating_add(1.day())),
            Grain::Week => self.dates(
                at_s,
                |date| date.saturating_sub(i64::from(date.weekday().to_monday_zero_offset()).days()),
                |date| date.saturating_add(7.days()),
            ),
            Grain::Month => self.dates(at_s, Date::first_of_month, |date| date.saturating_add(1.month())),
        }
    }

    fn hour(&self, at_s: i64) -> (i64, Window) {
        let at = instant(at_s);
        let offset = i64::from(self.zone.to_offset(at).seconds());
        let start_s = at_s - (at_s + offset).rem_euclid(3_600);
        let mut end_s = start_s + 3_600;
        // A change of the clock within the hour begins another one, with another offset.
        if let Some(change) = self.zone.following(at).next() {
            end_s = end_s.min(change.timestamp().as_second());
        }
        let mut from = start_s;
        if let Some(change) = self.zone.preceding(instant(at_s + 1)).next() {
            from = from.max(change.timestamp().as_second().min(at_s));
        }
        (from, Window { start_s, end_s })
    }

    fn dates(&self, at_s: i64, first: impl Fn(Date) -> Date, next: impl Fn(Date) -> Date) -> (i64, Window) {
        let date = self.zone.to_datetime(instant(at_s)).date();
        let first = first(date);
        let start_s = self.first_instant(first);
        (start_s, Window { start_s, end_s: self.first_instant(next(first)) })
    }

    /// The first instant at which the zone's clock shows `date`.
    fn first_instant(&self, date: Date) -> i64 {
        date.to_zoned(self.zone.clone()).map_or(0, |midnight| midnight.timestamp().as_second())
    }

    /// The windows of `grain` that touch `[from_s, to_s)`, in order, each with the first instant it holds. At most `limit`.
    pub fn windows_between(&mut self, grain: Grain, from_s: i64, to_s: i64, limit: usize) -> Vec<(i64, Window)> {
        let mut windows = Vec::new();
        let mut at_s = from_s;
        while at_s < to_s && windows.len() < limit {
            let window = self.window(grain, at_s);
            windows.push((self.last[grain as usize].0, window));
            at_s = window.end_s;
        }
        windows
    }
}

fn instant(at_s: i64) -> Timestamp {
    Timestamp::from_second(at_s).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        crate::time::parse_ms(text).unwrap() / 1_000
    }

    fn window(zone: &str, grain: Grain, text: &str) -> (String, String) {
        let window = Calendar::new(zone).unwrap().window(grain, at(text));
        let show = |second: i64| instant(second).to_string();
        (show(window.start_s), show(window.end_s))
    }

    fn pair(start: &str, end: &str) -> (String, String) {
        (start.to_owned(), end.to_owned())
    }

    #[test]
    fn kathmandu_hours_start_at_a_quarter() {
        let hour = window("Asia/Kathmandu", Grain::Hour, "2019-11-24T00:20:00Z");
        assert_eq!(hour, pair("2019-11-24T00:15:00Z", "2019-11-24T01:15:00Z"));
        let day = window("Asia/Kathmandu", Grain::Day, "2019-11-24T18:20:00Z");
        assert_eq!(day, pair("2019-11-24T18:15:00Z", "2019-11-25T18:15:00Z"));
    }

    #[test]
    fn new_york_days_have_23_and_25_hours() {
        let spring = window("America/New_York", Grain::Day, "2019-03-10T12:00:00Z");
        assert_eq!(spring, pair("2019-03-10T05:00:00Z", "2019-03-11T04:00:00Z"));
        let autumn = window("America/New_York", Grain::Day, "2019-11-03T12:00:00Z");
        assert_eq!(autumn, pair("2019-11-03T04:00:00Z", "2019-11-04T05:00:00Z"));
        // 01:30 happens twice; each is an hour of its own.
        let first = window("America/New_York", Grain::Hour, "2019-11-03T05:30:00Z");
        let second = window("America/New_York", Grain::Hour, "2019-11-03T06:30:00Z");
        assert_eq!(first, pair("2019-11-03T05:00:00Z", "2019-11-03T06:00:00Z"));
        assert_eq!(second, pair("2019-11-03T06:00:00Z", "2019-11-03T07:00:00Z"));
    }

    #[test]
    fn lord_howe_changes_by_half_an_hour() {
        // 2019-04-06T15:00Z: 02:00 at +11 becomes 01:30 at +10:30.
        let before = window("Australia/Lord_Howe", Grain::Hour, "2019-04-06T14:59:00Z");
        let after = window("Australia/Lord_Howe", Grain::Hour, "2019-04-06T15:00:00Z");
        assert_eq!(before, pair("2019-04-06T14:00:00Z", "2019-04-06T15:00:00Z"));
        assert_eq!(after, pair("2019-04-06T14:30:00Z", "2019-04-06T15:30:00Z"));
        // 2019-10-05T15:30Z: 02:00 at +10:30 becomes 02:30 at +11.
        let spring = window("Australia/Lord_Howe", Grain::Hour, "2019-10-05T15:40:00Z");
        assert_eq!(spring, pair("2019-10-05T15:00:00Z", "2019-10-05T16:00:00Z"));
        let day = window("Australia/Lord_Howe", Grain::Day, "2019-10-06T00:00:00Z");
        assert_eq!(day, pair("2019-10-05T13:30:00Z", "2019-10-06T13:00:00Z"));
    }

    #[test]
    fn weeks_start_on_monday_and_months_on_the_first() {
        let week = window("UTC", Grain::Week, "2019-11-24T23:59:59Z");
        assert_eq!(week, pair("2019-11-18T00:00:00Z", "2019-11-25T00:00:00Z"));
        let month = window("UTC", Grain::Month, "2019-11-24T00:00:00Z");
        assert_eq!(month, pair("2019-11-01T00:00:00Z", "2019-12-01T00:00:00Z"));
    }

    #[test]
    fn a_midnight_that_does_not_exist_starts_at_the_first_instant_that_does() {
        // America/Sao_Paulo, 2018-11-04: 00:00 became 01:00 (03:00Z).
        let day = window("America/Sao_Paulo", Grain::Day, "2018-11-04T12:00:00Z");
        assert_eq!(day, pair("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"));
        // America/Havana, 2019-11-03: 01:00 became 00:00; the first midnight counts.
        let day = window("America/Havana", Grain::Day, "2019-11-03T05:30:00Z");
        assert_eq!(day, pair("2019-11-03T04:00:00Z", "2019-11-04T05:00:00Z"));
    }

    /// Every instant of two years lies in exactly one window of each grain, whatever was asked before.
    #[test]
    fn windows_tile_time_in_awkward_zones() {
        let zones =
            ["UTC", "Asia/Kathmandu", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Pacific/Apia"];
        for zone in zones {
            let mut calendar = Calendar::new(zone).unwrap();
            for grain in Grain::ALL.into_iter().filter(|grain| grain.is_zoned()) {
                let mut at_s = at("2011-01-01T00:00:00Z");
                while at_s < at("2013-01-01T00:00:00Z") {
                    let window = calendar.window(grain, at_s);
                    let fresh = Calendar::new(zone).unwrap().window(grain, at_s);
                    assert_eq!(window, fresh, "{zone} {grain:?} {at_s}");
                    assert!(window.start_s <= at_s && at_s < window.end_s, "{zone} {grain:?} {at_s}");
                    let last = Calendar::new(zone).unwrap().window(grain, window.end_s - 1);
                    assert_eq!(last, window, "{zone} {grain:?} {at_s}");
                    let next = calendar.window(grain, window.end_s);
                    assert_ne!(next.start_s, window.start_s, "{zone} {grain:?} {at_s}");
                    at_s = window.end_s;
                }
            }
        }
    }

    #[test]
    fn unknown_zones_are_refused() {
        assert!(Calendar::new("Mars/Olympus").is_err());
    }

    #[test]
    fn minutes_and_quarters_are_the_same_everywhere() {
        for zone in ["UTC", "Asia/Kathmandu"] {
            let minute = window(zone, Grain::Minute, "2019-11-24T00:20:59Z");
            assert_eq!(minute, pair("2019-11-24T00:20:00Z", "2019-11-24T00:21:00Z"));
            let quarter = window(zone, Grain::Quarter, "2019-11-24T00:20:00Z");
            assert_eq!(quarter, pair("2019-11-24T00:15:00Z", "2019-11-24T00:30:00Z"));
            assert_eq!(Calendar::new(zone).unwrap().name(), zone);
        }
        let zoned: Vec<Grain> = Grain::ALL.into_iter().filter(|grain| grain.is_zoned()).collect();
        assert_eq!(zoned, [Grain::Hour, Grain::Day, Grain::Week, Grain::Month]);
        assert!(Grain::ALL.into_iter().all(|grain| Grain::from_name(grain.as_str()) == Some(grain)));
        assert_eq!(Grain::from_name("year"), None);
    }

    /// An hour that is found at the very instant of a change is not the hour of what came before.
    #[test]
    fn what_is_remembered_does_not_reach_over_a_change_of_the_clock() {
        let mut calendar = Calendar::new("Australia/Lord_Howe").unwrap();
        assert_eq!(calendar.window(Grain::Hour, at("2019-04-06T15:00:00Z")).start_s, at("2019-04-06T14:30:00Z"));
        assert_eq!(calendar.window(Grain::Hour, at("2019-04-06T14:45:00Z")).start_s, at("2019-04-06T14:00:00Z"));
    }

    #[test]
    fn windows_between_two_instants_are_those_that_touch_the_time_between() {
        let mut calendar = Calendar::new("UTC").unwrap();
        let mut starts = |from: &str, to: &str, limit: usize| {
            let windows = calendar.windows_between(Grain::Hour, at(from), at(to), limit);
            windows.into_iter().map(|(_, window)| instant(window.start_s).to_string()).collect::<Vec<_>>()
        };
        let (ten, eleven, noon) = ("2019-11-24T10:00:00Z", "2019-11-24T11:00:00Z", "2019-11-24T12:00:00Z");
        assert_eq!(starts("2019-11-24T10:30:00Z", noon, 9), [ten, eleven], "the end is not among them");
        assert_eq!(starts(ten, "2019-11-24T12:00:01Z", 9), [ten, eleven, noon]);
        assert_eq!(starts(ten, "2019-11-24T12:00:01Z", 2), [ten, eleven]);
        assert!(starts(ten, ten, 9).is_empty());
        assert_eq!(Calendar::new("UTC").unwrap().windows_between(Grain::Hour, at(ten), at(noon), 9)[0].0, at(ten));
    }
}
