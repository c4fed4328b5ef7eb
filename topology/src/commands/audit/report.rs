//! Pure: no I/O, no clock, no async.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use neonhub_schemas::metric::OTHER;
use neonhub_schemas::window::{Aggregate, Grain};
use serde::Serialize;

use super::Place;

/// A window that is not what the raw events say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    pub grain: &'static str,
    pub window_start: String,
    pub key: String,
    /// count / sum of the raw events; absent: they have no such window.
    pub expected: Option<String>,
    pub found: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub events: u64,
    /// Rows of `events` beyond one for each place in the log.
    pub duplicates: u64,
    pub windows: u64,
    pub differences: Vec<Difference>,
}

impl Report {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty() && self.duplicates == 0
    }

    /// Which keys of a window with `__other__` were capped depends on their order of arrival: such a window is compared
    /// by the total of its keys.
    pub fn compare(&mut self, expected: &mut BTreeMap<Place, Aggregate>, mut found: BTreeMap<Place, Aggregate>) {
        let capped: BTreeSet<Place> = found.keys().filter(|place| place.key.contains(OTHER)).map(without_key).collect();
        if !capped.is_empty() {
            for windows in [&mut *expected, &mut found] {
                *windows = total_where(std::mem::take(windows), &capped);
            }
        }
        let places: BTreeSet<&Place> = expected.keys().chain(found.keys()).collect();
        self.windows = places.len() as u64;
        for place in places {
            let (expected, found) = (expected.get(place), found.get(place));
            if expected != found {
                self.differences.push(Difference {
                    workspace: place.workspace.clone(),
                    metric: place.metric.clone(),
                    series: place.series,
                    grain: place.grain.as_str(),
                    window_start: neonhub_schemas::time::format_ms(place.window_start * 1_000),
                    key: place.key.clone(),
                    expected: expected.map(describe),
                    found: found.map(describe),
                });
            }
        }
    }
}

fn without_key(place: &Place) -> Place {
    Place { key: String::new(), ..place.clone() }
}

fn total_where(windows: BTreeMap<Place, Aggregate>, capped: &BTreeSet<Place>) -> BTreeMap<Place, Aggregate> {
    let mut out: BTreeMap<Place, Aggregate> = BTreeMap::new();
    for (place, aggregate) in windows {
        let total = without_key(&place);
        let place = if capped.contains(&total) { total } else { place };
        // An overflow would show as a difference.
        let _overflow = out.entry(place).or_default().merge(&aggregate);
    }
    out
}

fn describe(aggregate: &Aggregate) -> String {
    let distinct =
        aggregate.distinct.as_ref().map_or_else(String::new, |sketch| format!(" distinct={}", sketch.estimate()));
    let range = aggregate.range.as_ref().map_or_else(String::new, |range| format!(" min={} max={}", range.0, range.1));
    format!("count={} sum={}{range}{distinct}", aggregate.count, aggregate.sum)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(
                f,
                "{} {} (series {}) {} {} {}: raw events say {}, the window says {}",
                difference.workspace,
                difference.metric,
                difference.series,
                difference.grain,
                difference.window_start,
                difference.key,
                difference.expected.as_deref().unwrap_or("nothing"),
                difference.found.as_deref().unwrap_or("nothing"),
            )?;
        }
        write!(
            f,
            "{} events ({} doubled), {} windows compared, {} differ",
            self.events,
            self.duplicates,
            self.windows,
            self.differences.len()
        )
    }
}

// Minutes come first: the finest difference is the most telling.
const _: () = assert!((Grain::Minute as u8) < (Grain::Month as u8));

#[cfg(test)]
mod tests {
    use super::*;

    fn place(key: &str) -> Place {
        Place {
            workspace: "acme".into(),
            metric: "clicks".into(),
            series: 0,
            grain: Grain::Hour,
            window_start: 0,
            key: key.into(),
        }
    }

    fn counted(count: u64) -> Aggregate {
        Aggregate { count, ..Aggregate::default() }
    }

    #[test]
    fn missing_extra_and_different_windows_are_listed() {
        let mut expected =
            BTreeMap::from([(place("a"), counted(1)), (place("b"), counted(2)), (place("c"), counted(3))]);
        let found = BTreeMap::from([(place("b"), counted(2)), (place("c"), counted(4)), (place("d"), counted(1))]);
        let mut report = Report::default();
        report.compare(&mut expected, found);
        let keys: Vec<&str> = report.differences.iter().map(|difference| difference.key.as_str()).collect();
        assert_eq!(keys, ["a", "c", "d"]);
        assert!(!report.is_clean());
        assert!(report.to_string().contains("count=3"), "{report}");
    }

    #[test]
    fn capped_windows_are_compared_by_their_total() {
        let mut expected = BTreeMap::from([(place("a"), counted(1)), (place("b"), counted(2))]);
        let found = BTreeMap::from([(place("a"), counted(1)), (place(r#"{"x":"__other__"}"#), counted(2))]);
        let mut report = Report::default();
        report.compare(&mut expected, found);
        assert!(report.is_clean(), "{report}");
    }
}
