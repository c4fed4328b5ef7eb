//! Pure: no I/O, no clock, no async.
//!
//! The windows of a query, and which stored windows add up to them.

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use neonhub_schemas::time;
use neonhub_schemas::window::{Calendar, Grain};

/// One window of the answer. Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The first instant that counts: the window's, or the query's `from`.
    pub first_s: i64,
    pub start_s: i64,
    pub end_s: i64,
}

/// How ClickHouse finds a stored row's bucket; the number it finds is in [`Span::bucket_keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grouping {
    /// The stored window is the bucket.
    Label,
    /// Everything is one bucket.
    Whole,
    /// The greatest of these (first instants of the buckets) that is not after the row's.
    Starts(Vec<i64>),
}

/// Part of time, cut into buckets, and the stored rows that hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_s: i64,
    pub to_s: i64,
    pub buckets: Vec<Bucket>,
    pub stored_grain: Grain,
    /// Of the stored windows: `UTC` for minutes and quarters.
    pub stored_zone: String,
    /// Labels of the first and after the last stored window to read.
    pub labels: (i64, i64),
    pub grouping: Grouping,
}

/// More windows than may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// `zone` is the query's, `workspace_zone` that of the stored windows. `grain: None` is the total.
pub struct SpanRequest<'a> {
    pub from_ms: i64,
    pub to_ms: i64,
    pub grain: Option<Grain>,
    pub zone: &'a mut Calendar,
    pub workspace_zone: &'a str,
    pub limit: usize,
}

const MINUTE: i64 = 60;
const QUARTER: i64 = 900;

impl Span {
    /// # Errors
    /// More than `limit` buckets.
    pub fn new(request: &mut SpanRequest<'_>) -> Result<Self, TooMany> {
        let from_s = request.from_ms.div_euclid(60_000) * MINUTE;
        let to_s = (request.to_ms + 59_999).div_euclid(60_000) * MINUTE;
        let buckets = buckets(request, from_s, to_s)?;
        let stored_grain = stored_grain(request, from_s, to_s);
        let stored_zone = if stored_grain.is_zoned() { request.workspace_zone } else { "UTC" }.to_owned();
        let mut labels = (from_s, to_s);
        if let (true, Some(first)) = (stored_grain.is_zoned(), first_window(request.zone, stored_grain, from_s)) {
            // An hour in which the clock changed is named by an instant before its first.
            labels.0 = first.1;
        }
        let grouping = match request.grain {
            None => Grouping::Whole,
            Some(grain) if grain == stored_grain => Grouping::Label,
            Some(_) => Grouping::Starts(buckets.iter().map(|bucket| bucket.first_s).collect()),
        };
        Ok(Self { from_s, to_s, buckets, stored_grain, stored_zone, labels, grouping })
    }

    /// The numbers that ClickHouse answers with, in the order of the buckets.
    pub fn bucket_keys(&self) -> impl Iterator<Item = i64> {
        self.buckets.iter().map(|bucket| match self.grouping {
            Grouping::Label => bucket.start_s,
            Grouping::Whole => 0,
            Grouping::Starts(_) => bucket.first_s,
        })
    }
}

fn buckets(request: &mut SpanRequest<'_>, from_s: i64, to_s: i64) -> Result<Vec<Bucket>, TooMany> {
    let Some(grain) = request.grain else {
        return Ok(vec![Bucket { first_s: from_s, start_s: from_s, end_s: to_s }]);
    };
    let windows = request.zone.windows_between(grain, from_s, to_s, request.limit + 1);
    if windows.len() > request.limit {
        return Err(TooMany);
    }
    let bucket = |(first_s, window): (i64, neonhub_schemas::window::Window)| Bucket {
        first_s: first_s.max(from_s),
        start_s: window.start_s,
        end_s: window.end_s,
    };
    Ok(windows.into_iter().map(bucket).collect())
}

/// First instant and label of the window that holds `at_s`.
fn first_window(calendar: &mut Calendar, grain: Grain, at_s: i64) -> Option<(i64, i64)> {
    let windows = calendar.windows_between(grain, at_s, at_s + 1, 1);
    windows.first().map(|(first_s, window)| (*first_s, window.start_s))
}

fn is_bound(calendar: &mut Calendar, grain: Grain, at_s: i64) -> bool {
    first_window(calendar, grain, at_s).is_some_and(|(first_s, _)| first_s == at_s)
}

/// The coarsest stored grain whose windows add up to the buckets exactly.
fn stored_grain(request: &mut SpanRequest<'_>, from_s: i64, to_s: i64) -> Grain {
    // Hours stand only for themselves: quarters live as long, and know nothing of changes of the clock.
    let candidates: &[Grain] = match request.grain {
        None => &[Grain::Month, Grain::Week, Grain::Day],
        Some(Grain::Month) => &[Grain::Month, Grain::Day],
        Some(Grain::Week) => &[Grain::Week, Grain::Day],
        Some(Grain::Day) => &[Grain::Day],
        Some(Grain::Hour) => &[Grain::Hour],
        Some(Grain::Quarter | Grain::Minute) => &[],
    };
    if request.zone.name() == request.workspace_zone {
        for grain in candidates {
            if is_bound(request.zone, *grain, from_s) && is_bound(request.zone, *grain, to_s) {
                return *grain;
            }
        }
    }
    let on_quarters = from_s % QUARTER == 0 && to_s % QUARTER == 0;
    if on_quarters && request.grain != Some(Grain::Minute) { Grain::Quarter } else { Grain::Minute }
}

/// `[from, to)` of the period before: as many days, weeks or months back as the windows are; for shorter grains and odd
/// ranges, the same length back. Milliseconds.
#[must_use]
pub fn previous(span: &Span, grain: Option<Grain>, calendar: &mut Calendar) -> (i64, i64) {
    let count = i64::try_from(span.buckets.len()).unwrap_or(1);
    let same_length = span.from_s - (span.to_s - span.from_s);
    let on_bounds = |calendar: &mut Calendar, grain: Grain| {
        is_bound(calendar, grain, span.from_s) && is_bound(calendar, grain, span.to_s)
    };
    let from_s = match grain {
        Some(grain @ (Grain::Day | Grain::Week | Grain::Month)) if on_bounds(calendar, grain) => {
            back(calendar.name(), span.from_s, grain, count)
        }
        // A total of whole days goes back by days, so that a change of the clock moves nothing.
        None if on_bounds(calendar, Grain::Day) => {
            let days = calendar.windows_between(Grain::Day, span.from_s, span.to_s, 100_000).len();
            back(calendar.name(), span.from_s, Grain::Day, i64::try_from(days).unwrap_or(1))
        }
        _ => Some(same_length),
    };
    let from_s = from_s.unwrap_or(same_length).max(time::EARLIEST_MS / 1_000);
    (from_s * 1_000, span.from_s * 1_000)
}

fn back(zone: &str, from_s: i64, grain: Grain, count: i64) -> Option<i64> {
    let zone = TimeZone::get(zone).ok()?;
    let date = Timestamp::from_second(from_s).ok()?.to_zoned(zone.clone()).date();
    let span = match grain {
        Grain::Month => count.months(),
        Grain::Week => count.weeks(),
        _ => count.days(),
    };
    let date = date.checked_sub(span).ok()?;
    date.to_zoned(zone).ok().map(|midnight| midnight.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(zone: &str, workspace_zone: &str, grain: Option<Grain>, from: &str, to: &str) -> Span {
        let mut calendar = Calendar::new(zone).unwrap();
        let ms = |text: &str| time::parse_ms(text).unwrap();
        let mut request =
            SpanRequest { from_ms: ms(from), to_ms: ms(to), grain, zone: &mut calendar, workspace_zone, limit: 10_000 };
        Span::new(&mut request).unwrap()
    }

    fn at(text: &str) -> i64 {
        time::parse_ms(text).unwrap() / 1_000
    }

    #[test]
    fn the_coarsest_stored_grain_that_fits_is_read() {
        let stored = |zone: &str, grain, from: &str, to: &str| span(zone, "UTC", grain, from, to).stored_grain;
        let (november, december) = ("2019-11-01T00:00:00Z", "2019-12-01T00:00:00Z");
        assert_eq!(stored("UTC", None, november, december), Grain::Month);
        assert_eq!(stored("UTC", Some(Grain::Month), november, december), Grain::Month);
        assert_eq!(stored("UTC", Some(Grain::Month), november, "2019-12-02T00:00:00Z"), Grain::Day);
        assert_eq!(stored("UTC", None, "2019-11-04T00:00:00Z", "2019-11-18T00:00:00Z"), Grain::Week);
        assert_eq!(stored("UTC", Some(Grain::Hour), november, december), Grain::Hour);
        assert_eq!(stored("UTC", Some(Grain::Day), november, "2019-11-02T00:15:00Z"), Grain::Quarter);
        assert_eq!(stored("UTC", Some(Grain::Day), november, "2019-11-02T00:15:01Z"), Grain::Minute);
        assert_eq!(stored("Asia/Kathmandu", Some(Grain::Day), november, december), Grain::Quarter);
        assert_eq!(stored("UTC", Some(Grain::Quarter), november, december), Grain::Quarter);
        assert_eq!(stored("UTC", Some(Grain::Minute), november, "2019-11-01T01:00:00Z"), Grain::Minute);
    }

    #[test]
    fn another_zone_is_added_up_from_first_instants() {
        let span = span("Asia/Kathmandu", "UTC", Some(Grain::Day), "2019-11-23T18:15:00Z", "2019-11-25T18:15:00Z");
        assert_eq!(span.grouping, Grouping::Starts(vec![at("2019-11-23T18:15:00Z"), at("2019-11-24T18:15:00Z")]));
        assert_eq!(span.stored_zone, "UTC");
    }

    #[test]
    fn an_hour_in_which_the_clock_changed_keeps_its_label() {
        let zone = "Australia/Lord_Howe";
        let span = span(zone, zone, Some(Grain::Hour), "2019-04-06T15:00:00Z", "2019-04-06T16:30:00Z");
        assert_eq!(span.stored_grain, Grain::Hour);
        assert_eq!(span.labels.0, at("2019-04-06T14:30:00Z"));
        assert_eq!(span.bucket_keys().next(), Some(at("2019-04-06T14:30:00Z")));
        assert_eq!(span.buckets[0].first_s, at("2019-04-06T15:00:00Z"));
    }

    #[test]
    fn seconds_are_widened_to_minutes_and_windows_are_limited() {
        let span = span("UTC", "UTC", None, "2019-11-01T00:00:30Z", "2019-11-01T00:01:30Z");
        assert_eq!((span.from_s, span.to_s), (at("2019-11-01T00:00:00Z"), at("2019-11-01T00:02:00Z")));
        let mut calendar = Calendar::new("UTC").unwrap();
        let mut request = SpanRequest {
            from_ms: 0,
            to_ms: 600_001,
            grain: Some(Grain::Minute),
            zone: &mut calendar,
            workspace_zone: "UTC",
            limit: 10,
        };
        assert_eq!(Span::new(&mut request), Err(TooMany));
        request.to_ms = 600_000;
        assert_eq!(Span::new(&mut request).unwrap().buckets.len(), 10);
    }

    #[test]
    fn the_previous_period_goes_by_the_calendar() {
        let previous_of = |zone: &str, grain, from: &str, to: &str| {
            let span = span(zone, "UTC", grain, from, to);
            let (from_ms, to_ms) = previous(&span, grain, &mut Calendar::new(zone).unwrap());
            (time::format_ms(from_ms), time::format_ms(to_ms))
        };
        let months = previous_of("UTC", Some(Grain::Month), "2019-11-01T00:00:00Z", "2020-01-01T00:00:00Z");
        assert_eq!(months, ("2019-09-01T00:00:00.000Z".into(), "2019-11-01T00:00:00.000Z".into()));
        // The 23-hour day of New York: one day back is midnight to midnight.
        let days = previous_of("America/New_York", Some(Grain::Day), "2019-03-11T04:00:00Z", "2019-03-12T04:00:00Z");
        assert_eq!(days, ("2019-03-10T05:00:00.000Z".into(), "2019-03-11T04:00:00.000Z".into()));
        let total = previous_of("America/New_York", None, "2019-03-11T04:00:00Z", "2019-03-12T04:00:00Z");
        assert_eq!(total.0, "2019-03-10T05:00:00.000Z");
        let hours = previous_of("UTC", Some(Grain::Hour), "2019-03-11T04:00:00Z", "2019-03-11T07:00:00Z");
        assert_eq!(hours.0, "2019-03-11T01:00:00.000Z");
    }
}
