//! Pure: no I/O, no clock, no async.
//!
//! Impressions and clicks by day, campaign and policy, wherever they were counted.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::rows::Row;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub impressions: u64,
    pub clicks: u64,
}

impl Counts {
    #[must_use]
    pub fn ctr(self) -> Option<f64> {
        (self.impressions > 0).then(|| self.clicks as f64 / self.impressions as f64)
    }

    pub fn add(&mut self, other: Self) {
        self.impressions += other.impressions;
        self.clicks += other.clicks;
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Group {
    pub campaign: String,
    pub policy: String,
}

/// Groups without any event are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// By group and UTC day.
    days: BTreeMap<(Group, String), Counts>,
}

impl Tally {
    #[must_use]
    pub fn of(rows: &[Row]) -> Self {
        let mut tally = Self::default();
        for row in rows {
            let group = Group { campaign: row.campaign.to_owned(), policy: row.policy.to_owned() };
            tally.add(group, row.day(), Counts { impressions: 1, clicks: u64::from(row.is_click) });
        }
        tally
    }

    pub fn add(&mut self, group: Group, day: String, counts: Counts) {
        if counts != Counts::default() {
            self.days.entry((group, day)).or_default().add(counts);
        }
    }

    #[must_use]
    pub fn groups(&self) -> BTreeMap<Group, Counts> {
        let mut groups: BTreeMap<Group, Counts> = BTreeMap::new();
        for ((group, _), counts) in &self.days {
            groups.entry(group.clone()).or_default().add(*counts);
        }
        groups
    }

    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.days.values().for_each(|counts| total.add(*counts));
        total
    }

    /// The first and the last UTC day.
    #[must_use]
    pub fn first_and_last_day(&self) -> Option<(&str, &str)> {
        let days = || self.days.keys().map(|(_, day)| day.as_str());
        Some((days().min()?, days().max()?))
    }
}

/// `[{"campaign":…,"policy":…,"day":…,"impressions":…,"clicks":…}]`
impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            group: &'a Group,
            day: &'a str,
            #[serde(flatten)]
            counts: &'a Counts,
        }
        serializer.collect_seq(self.days.iter().map(|((group, day), counts)| Line { group, day, counts }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::demo::rows::{read_rows, tests::text};

    #[test]
    fn days_groups_and_total_add_up() {
        let file = text(&[
            ("2019-11-24 00:00:01+00:00", 0),
            ("2019-11-24 23:59:59.999999+00:00", 1),
            ("2019-11-25 00:00:00+00:00", 1),
        ]);
        let mut rows = read_rows("men", "bts", file.as_bytes()).unwrap();
        rows.extend(read_rows("men", "random", file.as_bytes()).unwrap());
        let tally = Tally::of(&rows);
        assert_eq!(tally.total(), Counts { impressions: 6, clicks: 4 });
        let groups = tally.groups();
        assert_eq!(groups.len(), 2);
        assert!(groups.values().all(|counts| *counts == Counts { impressions: 3, clicks: 2 }));
        assert_eq!(tally.first_and_last_day(), Some(("2019-11-24", "2019-11-25")));
        let json = serde_json::to_value(&tally).unwrap();
        assert_eq!(json[0]["day"], "2019-11-24");
        assert_eq!((&json[0]["impressions"], &json[0]["clicks"]), (&2.into(), &1.into()));
        assert_eq!(json.as_array().unwrap().len(), 4);
    }

    #[test]
    fn nothing_counted_is_the_same_as_absent() {
        let mut tally = Tally::default();
        tally.add(Group::default(), "2019-11-24".to_owned(), Counts::default());
        assert_eq!(tally, Tally::default());
        assert_eq!(tally.first_and_last_day(), None);
        assert_eq!(Counts::default().ctr(), None);
    }
}
