//! Pure: no I/O, no clock, no async.
//!
//! The record key on `metrics.windows`.

use super::calendar::Grain;
use super::record::Epoch;
use crate::metric::MetricKey;

/// The record key of an epoch of a window: `acme|spend|0|{"campaign":"men"}|hour|UTC|1574553600|2-77`.
#[must_use]
pub fn window_key(key: &MetricKey, grain: Grain, zone: &str, start_s: i64, epoch: Epoch) -> String {
    format!("{}|{}|{zone}|{start_s}|{epoch}", key.to_text(), grain.as_str())
}

/// What a record key says: key, grain, start, epoch. `None` for bytes that are no such key.
#[must_use]
pub fn parse_window_key(text: &[u8]) -> Option<(MetricKey, Grain, i64, Epoch)> {
    let text = std::str::from_utf8(text).ok()?;
    let mut from_the_end = text.rsplitn(5, '|');
    let epoch = from_the_end.next()?.parse().ok()?;
    let start_s = from_the_end.next()?.parse().ok()?;
    let _zone = from_the_end.next()?;
    let grain = Grain::from_name(from_the_end.next()?)?;
    // Neither a series nor a metric's name has a brace, and a value of a dimension comes after the first one.
    let (names, dimensions) = from_the_end.next()?.split_once("|{")?;
    let mut names = names.rsplitn(3, '|');
    let series = names.next()?.parse().ok()?;
    let metric = names.next()?.to_owned();
    let workspace = names.next()?.to_owned();
    let dimensions = serde_json::from_str(&format!("{{{dimensions}")).ok()?;
    Some((MetricKey { workspace, metric, series, dimensions }, grain, start_s, epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_again_what_it_was_made_of() {
        for (campaign, workspace) in [("men", "acme"), ("a|b|{\"c\":\"|{\"}|hour|UTC|1|2-3", "a|c|m|e"), ("", "w")] {
            let key = MetricKey {
                workspace: workspace.into(),
                metric: "spend".into(),
                series: 4,
                dimensions: [("campaign".to_owned(), campaign.to_owned())].into(),
            };
            let epoch = Epoch { partition: 2, offset: 77 };
            let text = window_key(&key, Grain::Hour, "Asia/Kathmandu", -60, epoch);
            assert_eq!(parse_window_key(text.as_bytes()), Some((key, Grain::Hour, -60, epoch)));
        }
        for wrong in ["", "acme|spend|0|{}|hour|UTC|x|2-77", "acme|spend|0|{|hour|UTC|60|2-77", "heartbeat"] {
            assert_eq!(parse_window_key(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
