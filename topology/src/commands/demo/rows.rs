//! Pure: no I/O, no clock, no async.
//!
//! Rows of the Open Bandit sample: an impression each, some with a click.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use crate::commands::replay::outgoing::{Origin, OutgoingEvent};

pub const CAMPAIGNS: [&str; 3] = ["all", "men", "women"];
/// The two arms of the experiment: shown at random, or by Thompson sampling over Bernoulli arms.
pub const POLICIES: [&str; 2] = ["random", "bts"];
pub const ROUTE: &str = "/v1/campaigns/events";

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub campaign: &'static str,
    pub policy: &'static str,
    /// In the file, from 1.
    pub number: u64,
    pub timestamp: Timestamp,
    pub is_click: bool,
    pub item_id: u32,
    pub position: u32,
    pub propensity_score: f64,
    /// Who saw it, as far as the data tells: users with the same features.
    pub visitor: u64,
}

#[derive(Deserialize)]
struct Record {
    timestamp: String,
    item_id: u32,
    position: u32,
    click: u8,
    propensity_score: f64,
    user_feature_0: String,
    user_feature_1: String,
    user_feature_2: String,
    user_feature_3: String,
}

/// Reads one file's text.
///
/// # Errors
/// The row that is not as published, and why.
pub fn read_rows(campaign: &'static str, policy: &'static str, text: &[u8]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (record, number) in csv::Reader::from_reader(text).into_deserialize::<Record>().zip(1..) {
        let record = record.map_err(|error| format!("row {number}: {error}"))?;
        let timestamp = record.timestamp.parse::<Timestamp>();
        let timestamp =
            timestamp.map_err(|error| format!("row {number}: timestamp `{}`: {error}", record.timestamp))?;
        let features =
            [record.user_feature_0, record.user_feature_1, record.user_feature_2, record.user_feature_3].join("|");
        rows.push(Row {
            campaign,
            policy,
            number,
            timestamp,
            is_click: record.click == 1,
            item_id: record.item_id,
            position: record.position,
            propensity_score: record.propensity_score,
            visitor: xxh3_64(features.as_bytes()),
        });
    }
    Ok(rows)
}

/// All files' rows as they happened; rows of the same instant keep their files' order.
#[must_use]
pub fn in_time_order(files: Vec<Vec<Row>>) -> Vec<Row> {
    let mut rows: Vec<Row> = files.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.timestamp);
    rows
}

impl Row {
    /// The UTC day.
    #[must_use]
    pub fn day(&self) -> String {
        self.timestamp.strftime("%Y-%m-%d").to_string()
    }

    /// The impression, and the click if there was one. Ids are the same for the same `run`, so a batch that is sent
    /// again counts once.
    #[must_use]
    pub fn events(&self, run: &str) -> Vec<OutgoingEvent> {
        let kinds: &[&str] = if self.is_click { &["impression", "click"] } else { &["impression"] };
        kinds.iter().map(|kind| self.event(run, kind)).collect()
    }

    fn event(&self, run: &str, kind: &str) -> OutgoingEvent {
        let json = json!({
            "type": kind,
            "campaign": self.campaign,
            "messageId": format!("{run}-{}-{}-{}-{kind}", self.policy, self.campaign, self.number),
            "timestamp": self.timestamp.to_string(),
            "anonymousId": format!("visitor-{:016x}", self.visitor),
            "properties": {
                "policy": self.policy,
                "item_id": self.item_id,
                "position": self.position,
                "propensity_score": self.propensity_score,
            },
        });
        let file = format!("{}/{}.csv", self.policy, self.campaign);
        let origin = Origin { file: file.into(), line: self.number + 1 };
        OutgoingEvent { route: ROUTE.into(), actor: self.visitor, json: json.to_string(), origin }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub const HEADER: &str = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,\
        user_feature_2,user_feature_3,user-item_affinity_0\n";

    /// `(instant, click)` each.
    pub fn text(rows: &[(&str, u8)]) -> String {
        let lines =
            rows.iter().enumerate().map(|(n, (at, click))| format!("{n},{at},14,3,{click},0.0125,a,b,c,d,0.0\n"));
        HEADER.to_owned() + &lines.collect::<String>()
    }

    #[test]
    fn a_click_is_two_events_of_the_same_visitor() {
        let text = text(&[("2019-11-24 00:00:34.762830+00:00", 0), ("2019-11-24 23:59:59.9+00:00", 1)]);
        let rows = read_rows("men", "bts", text.as_bytes()).unwrap();
        assert_eq!(rows[0].events("r").len(), 1);
        let events = rows[1].events("r");
        assert_eq!(events.len(), 2);
        let click: serde_json::Value = serde_json::from_str(&events[1].json).unwrap();
        assert_eq!(click["messageId"], "r-bts-men-2-click");
        assert_eq!(click["timestamp"], "2019-11-24T23:59:59.9Z");
        assert_eq!(click["properties"]["propensity_score"], 0.0125);
        assert_eq!(events[0].actor, events[1].actor);
        assert_eq!(events, rows[1].events("r"));
        assert_eq!(rows[1].day(), "2019-11-24");
    }

    #[test]
    fn files_are_merged_by_time() {
        let of = |campaign, times: &[(&str, u8)]| read_rows(campaign, "bts", text(times).as_bytes()).unwrap();
        let first = of("all", &[("2019-11-24 00:00:01+00:00", 0), ("2019-11-24 00:00:03+00:00", 0)]);
        let second = of("men", &[("2019-11-24 00:00:01+00:00", 0), ("2019-11-24 00:00:02+00:00", 0)]);
        let order: Vec<(&str, u64)> =
            in_time_order(vec![first, second]).iter().map(|row| (row.campaign, row.number)).collect();
        assert_eq!(order, [("all", 1), ("men", 1), ("men", 2), ("all", 2)]);
    }

    #[test]
    fn damaged_rows_are_named() {
        assert!(read_rows("all", "bts", text(&[("soon", 0)]).as_bytes()).unwrap_err().starts_with("row 1: timestamp"));
        assert!(read_rows("all", "bts", b"a,b\n1,2\n").unwrap_err().starts_with("row 1: "));
    }
}
