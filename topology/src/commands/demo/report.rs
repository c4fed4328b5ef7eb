//! Pure: no I/O, no clock, no async.
//!
//! A demo run for people.

use std::collections::BTreeMap;

use super::outcome::{ATTRIBUTION, DemoOutcome};
use super::plot::{bar, scale};
use super::tally::{Counts, Group};
use super::wilson::Interval;

const PLOT_WIDTH: usize = 48;

#[must_use]
pub fn report(outcome: &DemoOutcome) -> String {
    let mut lines = vec![String::new(), "Click-through rate, from the query API".to_owned(), String::new()];
    lines.extend(rates(outcome));
    lines.extend([String::new(), "The same counts from three places (impressions / clicks)".to_owned(), String::new()]);
    lines.extend(sources(outcome));
    lines.push(String::new());
    lines.extend(facts(outcome));
    lines.extend(outcome.troubles.iter().map(|trouble| format!("trouble: {trouble}")));
    lines.extend([String::new(), ATTRIBUTION.to_owned()]);
    lines.join("\n") + "\n"
}

fn rates(outcome: &DemoOutcome) -> Vec<String> {
    let intervals = || outcome.results.iter().filter_map(|result| result.interval);
    let largest = intervals().map(|interval| interval.high).fold(0.0, f64::max);
    let head = format!(
        "{:<9} {:<7} {:>11} {:>7} {:>8}   {:<15} {}",
        "campaign", "policy", "impressions", "clicks", "CTR", "95 % interval", "0 to the largest"
    );
    let mut lines = vec![head];
    for result in &outcome.results {
        let interval = result.interval.unwrap_or(Interval { low: 0.0, high: 0.0 });
        let rate = result.ctr.unwrap_or_default();
        lines.push(format!(
            "{:<9} {:<7} {:>11} {:>7} {:>6.2} %   {:>4.2} – {:<4.2} %   {}",
            result.group.campaign,
            result.group.policy,
            grouped(result.counts.impressions),
            grouped(result.counts.clicks),
            rate * 100.0,
            interval.low * 100.0,
            interval.high * 100.0,
            bar(rate, interval, largest, PLOT_WIDTH),
        ));
    }
    lines.push(format!("{:>64}{}", "", scale(largest, PLOT_WIDTH)));
    lines
}

fn sources(outcome: &DemoOutcome) -> Vec<String> {
    let truth = outcome.truth.answer.days.groups();
    let sql = outcome.sql.answer.days.groups();
    let api = &outcome.api.answer.groups;
    let mut names: Vec<&Group> = truth.keys().chain(api.keys()).chain(sql.keys()).collect();
    names.sort();
    names.dedup();
    let row = |campaign: &str, policy: &str, cells: [String; 3]| {
        let [files, api, sql] = cells;
        format!("{campaign:<9} {policy:<7} {files:>17}   {api:>19}   {sql:>19}").trim_end().to_owned()
    };
    let head = ["the files", "query API  ", "SQL on raw events  "].map(str::to_owned);
    let mut lines = vec![row("campaign", "policy", head)];
    for group in names {
        let of = |counts: &BTreeMap<Group, Counts>| counts.get(group).copied().unwrap_or_default();
        let expected = of(&truth);
        let cells = [cell(expected), checked(of(api), expected), checked(of(&sql), expected)];
        lines.push(row(&group.campaign, &group.policy, cells));
    }
    let total = outcome.truth.total;
    let cells = [cell(total), checked(outcome.api.total, total), checked(outcome.sql.total, total)];
    lines.push(row("total", "", cells));
    let ids = outcome.sql.answer.ids;
    let mark = |is_right: bool| if is_right { "✓" } else { "✗" };
    lines.push(format!(
        "by UTC day: query API {}, SQL {}; {} raw events, {} different message ids",
        mark(outcome.agreement.api),
        mark(outcome.agreement.sql),
        grouped(ids.events),
        grouped(ids.message_ids),
    ));
    lines
}

fn facts(outcome: &DemoOutcome) -> Vec<String> {
    let (sending, latency, live) = (&outcome.sending, outcome.latency, &outcome.live);
    let after = |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |s| format!("after {s:.1} s"));
    let mut lines = vec![
        format!(
            "sent      {} events in {:.1} s, {} a second, each on disk before its answer; {} requests repeated",
            grouped(sending.events),
            sending.seconds,
            grouped(sending.events_per_second as u64),
            sending.retries
        ),
        format!(
            "visible   the last event: live push {}, query API {}, SQL {}",
            after(latency.live_seconds),
            after(latency.api_seconds),
            after(latency.sql_seconds)
        ),
        match &live.trouble {
            Some(trouble) if live.revisions == 0 => format!("live      nothing was pushed: {trouble}"),
            _ => format!("live      {} revisions of day windows pushed", grouped(live.revisions)),
        },
        format!("took      {:.1} s", outcome.seconds),
    ];
    lines.push(String::new());
    lines.push(if outcome.agree { "✓ All three agree.".to_owned() } else { "✗ They do not agree.".to_owned() });
    lines
}

fn cell(counts: Counts) -> String {
    format!("{} / {}", grouped(counts.impressions), grouped(counts.clicks))
}

fn checked(counts: Counts, expected: Counts) -> String {
    format!("{} {}", cell(counts), if counts == expected { "✓" } else { "✗" })
}

/// `60,000`
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::demo::answers::{ApiAnswer, RawIds, SqlAnswer, agreement};
    use crate::commands::demo::outcome::{Latency, LiveOutcome, Sending, Source, Truth, results};
    use crate::commands::demo::tally::Tally;

    fn outcome(api_clicks: u64) -> DemoOutcome {
        let group = Group { campaign: "all".into(), policy: "bts".into() };
        let tally = |clicks| {
            let mut tally = Tally::default();
            tally.add(group.clone(), "2019-11-24".into(), Counts { impressions: 10_000, clicks });
            tally
        };
        let truth = tally(42);
        let days = tally(api_clicks);
        let ctr = [(group.clone(), api_clicks as f64 / 10_000.0)].into();
        let api = ApiAnswer { groups: days.groups(), days, ctr };
        let sql = SqlAnswer { days: truth.clone(), ids: RawIds { events: 10_042, message_ids: 10_042 } };
        let agreement = agreement(&truth, &api, &sql);
        DemoOutcome {
            agree: agreement.api && agreement.sql,
            agreement,
            results: results(&truth, &api),
            live: LiveOutcome { revisions: 1_234, ..LiveOutcome::default() },
            sending: Sending { events: 10_042, accepted: 10_042, seconds: 2.0, ..Sending::default() },
            latency: Latency { api_seconds: Some(0.25), ..Latency::default() },
            truth: Source { total: truth.total(), answer: Truth { days: truth } },
            api: Source { total: api.days.total(), answer: api },
            sql: Source { total: sql.days.total(), answer: sql },
            seconds: 9.75,
            troubles: Vec::new(),
            attribution: ATTRIBUTION,
        }
    }

    #[test]
    fn what_agrees_is_marked() {
        let text = report(&outcome(42));
        assert!(text.contains("all       bts          10,000      42   0.42 %   0.31 – 0.57 %   "), "{text}");
        assert!(text.contains("10,000 / 42 ✓"), "{text}");
        assert!(text.contains("✓ All three agree."), "{text}");
        assert!(text.contains("live push never, query API after 0.2 s") || text.contains("after 0.3 s"), "{text}");
        assert!(text.contains("CC BY 4.0"), "{text}");
        assert!(!text.contains('✗'), "{text}");
    }

    #[test]
    fn what_differs_is_marked() {
        let text = report(&outcome(41));
        assert!(text.contains("10,000 / 41 ✗"), "{text}");
        assert!(text.contains("✗ They do not agree."), "{text}");
    }

    #[test]
    fn the_json_holds_every_source() {
        let json = serde_json::to_value(outcome(42)).unwrap();
        assert_eq!(json["agree"], true);
        assert_eq!(json["truth"]["total"]["clicks"], 42);
        assert_eq!(json["truth"]["days"][0]["day"], "2019-11-24");
        assert_eq!(json["api"]["groups"][0]["campaign"], "all");
        assert_eq!(json["sql"]["message_ids"], 10_042);
        assert_eq!(json["results"][0]["ctr"], 0.0042);
        assert!(json["results"][0]["interval"]["low"].as_f64().unwrap() > 0.003);
    }

    #[test]
    fn large_numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 60_000, 1_234_567].map(grouped), ["0", "999", "1,000", "60,000", "1,234,567"]);
    }
}
