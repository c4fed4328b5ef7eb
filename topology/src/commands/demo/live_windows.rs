//! Pure: no I/O, no clock, no async.
//!
//! Revisions of windows as they are pushed → what has been counted so far.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::tally::Counts;

/// The part of a revision that is looked at.
#[derive(Deserialize)]
struct Revision {
    metric: String,
    series: u64,
    dimensions: BTreeMap<String, String>,
    window_start: String,
    epoch: String,
    revision: u64,
    count: u64,
}

/// Epochs of a window add up; of one epoch the highest revision counts.
type WindowKey = (String, u64, BTreeMap<String, String>, String, String);

#[derive(Debug, Default)]
pub struct LiveWindows {
    newest: BTreeMap<WindowKey, (u64, u64)>,
    pub revisions: u64,
}

impl LiveWindows {
    /// Whether the data was a window's revision.
    pub fn push(&mut self, data: &str) -> bool {
        let Ok(update) = serde_json::from_str::<Revision>(data) else { return false };
        self.revisions += 1;
        let key = (update.metric, update.series, update.dimensions, update.window_start, update.epoch);
        let newest = self.newest.entry(key).or_default();
        *newest = (*newest).max((update.revision, update.count));
        true
    }

    #[must_use]
    pub fn by_campaign(&self) -> BTreeMap<String, Counts> {
        let mut campaigns: BTreeMap<String, Counts> = BTreeMap::new();
        for ((metric, _, dimensions, _, _), (_, count)) in &self.newest {
            let campaign = dimensions.get("campaign").cloned().unwrap_or_default();
            let counts = campaigns.entry(campaign).or_default();
            match metric.as_str() {
                "impressions" => counts.impressions += count,
                "clicks" => counts.clicks += count,
                _ => {}
            }
        }
        campaigns
    }

    #[must_use]
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.by_campaign().values().for_each(|counts| total.add(*counts));
        total
    }

    /// One line for people.
    #[must_use]
    pub fn to_line(&self) -> String {
        if self.revisions == 0 {
            return "live windows: waiting for the first".to_owned();
        }
        let campaigns = self.by_campaign().into_iter();
        let campaigns: Vec<String> =
            campaigns.map(|(name, counts)| format!("{name} {} / {}", counts.impressions, counts.clicks)).collect();
        format!("live impressions / clicks: {}   ({} revisions)", campaigns.join(" · "), self.revisions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn revision(metric: &str, day: &str, epoch: &str, revision: u64, count: u64) -> String {
        json!({"workspace": "w", "metric": metric, "series": 0, "dimensions": {"campaign": "men", "policy": "bts"},
            "source": "campaign", "grain": "day", "zone": "UTC", "window_start": day, "epoch": epoch,
            "revision": revision, "final": false, "count": count, "sum": "0", "value": count})
        .to_string()
    }

    #[test]
    fn the_newest_revision_counts_and_epochs_add_up() {
        let mut live = LiveWindows::default();
        assert!(live.to_line().contains("waiting"));
        for data in [
            revision("impressions", "2019-11-24T00:00:00Z", "0-1", 2, 20),
            revision("impressions", "2019-11-24T00:00:00Z", "0-1", 1, 10),
            revision("impressions", "2019-11-24T00:00:00Z", "0-9", 1, 5),
            revision("impressions", "2019-11-25T00:00:00Z", "0-3", 1, 7),
            revision("clicks", "2019-11-25T00:00:00Z", "0-4", 1, 3),
        ] {
            assert!(live.push(&data));
        }
        assert!(!live.push("{}") && !live.push("heartbeat"));
        assert_eq!(live.total(), Counts { impressions: 32, clicks: 3 });
        assert_eq!(live.to_line(), "live impressions / clicks: men 32 / 3   (5 revisions)");
    }
}
