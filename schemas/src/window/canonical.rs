//! Pure: no I/O, no clock, no async.
//!
//! The records of windows in the form that serde gives them, written and read member by member: a restore reads millions,
//! and flattened members cost serde a copy of each. What has another form is left to serde.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::calendar::Grain;
use super::record::{Delta, Partial, PartialHeader, WindowState, WindowUpsert};
use crate::event::Source;
use crate::metric::MetricKey;
use crate::micros::{Micros, parse_sum};
use crate::scanner::Scanner;
use crate::time;

/// `None`: not this form, or no upsert.
pub(super) fn read_upsert(bytes: &[u8]) -> Option<WindowUpsert> {
    let mut scanner = Scanner::new(bytes)?;
    scanner.literal("{")?;
    let key = read_key(&mut scanner)?;
    scanner.literal(",\"source\":\"")?;
    let source = scanner.string()?;
    let source = Source::ALL.into_iter().find(|known| known.as_str() == source)?;
    scanner.literal(",\"grain\":\"")?;
    let grain = Grain::from_name(scanner.string()?)?;
    scanner.literal(",\"zone\":\"")?;
    let zone = scanner.string()?.to_owned();
    scanner.literal(",\"window_start\":\"")?;
    let window_start = time::parse_canonical_s(scanner.string()?)?;
    scanner.literal(",\"window_end\":\"")?;
    let window_end = time::parse_canonical_s(scanner.string()?)?;
    scanner.literal(",\"epoch\":\"")?;
    let epoch = scanner.string()?.parse().ok()?;
    scanner.literal(",\"revision\":")?;
    let revision = scanner.unsigned()?;
    scanner.literal(",\"final\":")?;
    let is_final = scanner.boolean()?;
    scanner.literal(",")?;
    let state = read_state(&mut scanner)?;
    scanner.literal(",\"as_of\":")?;
    let as_of = scanner.unsigned()?;
    scanner.literal(",\"updated_at\":\"")?;
    let updated_at = time::parse_canonical_ms(scanner.string()?)?;
    scanner.end()?;
    Some(WindowUpsert {
        key,
        source,
        grain,
        zone,
        window_start,
        window_end,
        epoch,
        revision,
        r#final: is_final,
        state,
        as_of,
        updated_at,
    })
}

/// `None`: not this form, or no partial.
pub(super) fn read_partial(bytes: &[u8]) -> Option<Partial> {
    let mut scanner = Scanner::new(bytes)?;
    scanner.literal("{\"upstream\":{\"topic\":\"")?;
    let topic = scanner.string()?.to_owned();
    scanner.literal(",\"partition\":")?;
    let partition = u32::try_from(scanner.unsigned()?).ok()?;
    let watermark_ms = if scanner.has(",\"watermark_ms\":") { Some(scanner.integer()?) } else { None };
    scanner.literal(",\"idle\":")?;
    let idle = scanner.boolean()?;
    scanner.literal("}")?;
    let mut key = None;
    if scanner.has(",\"key\":{") {
        key = Some(read_key(&mut scanner)?);
        scanner.literal("}")?;
    }
    let mut deltas = Vec::new();
    if scanner.has(",\"deltas\":[") {
        loop {
            scanner.literal("{\"minute\":\"")?;
            let minute = time::parse_canonical_s(scanner.string()?)?;
            scanner.literal(",")?;
            deltas.push(Delta { minute, state: read_state(&mut scanner)? });
            scanner.literal("}")?;
            if scanner.has("]") {
                break;
            }
            scanner.literal(",")?;
        }
    }
    scanner.end()?;
    Some(Partial { upstream: PartialHeader { topic, partition, watermark_ms, idle }, key, deltas })
}

fn read_key(scanner: &mut Scanner<'_>) -> Option<MetricKey> {
    scanner.literal("\"workspace\":\"")?;
    let workspace = scanner.string()?.to_owned();
    scanner.literal(",\"metric\":\"")?;
    let metric = scanner.string()?.to_owned();
    scanner.literal(",\"series\":")?;
    let series = scanner.unsigned()?;
    scanner.literal(",\"dimensions\":{")?;
    let mut dimensions = BTreeMap::new();
    if !scanner.has("}") {
        loop {
            scanner.literal("\"")?;
            let name = scanner.string()?.to_owned();
            scanner.literal(":\"")?;
            dimensions.insert(name, scanner.string()?.to_owned());
            if scanner.has("}") {
                break;
            }
            scanner.literal(",")?;
        }
    }
    Some(MetricKey { workspace, metric, series, dimensions })
}

fn read_state(scanner: &mut Scanner<'_>) -> Option<WindowState> {
    scanner.literal("\"count\":")?;
    let count = scanner.unsigned()?;
    scanner.literal(",\"sum\":\"")?;
    let sum = parse_sum(scanner.string()?).ok()?;
    let mut decimal = |member| match scanner.optional(member)? {
        None => Some(None),
        Some(text) => parse_sum(text).ok().map(Some),
    };
    let (min, max) = (decimal(",\"min\":\"")?, decimal(",\"max\":\"")?);
    let mut text = |member| scanner.optional(member).map(|text| text.unwrap_or_default().to_owned());
    let (distinct, distribution) = (text(",\"distinct\":\"")?, text(",\"distribution\":\"")?);
    Some(WindowState { count, sum, min, max, distinct, distribution })
}

/// `None`: a time has no canonical text.
pub(super) fn write_upsert(upsert: &WindowUpsert) -> Option<Vec<u8>> {
    let state = &upsert.state;
    let mut out = Writer(Vec::with_capacity(448 + state.distinct.len() + state.distribution.len()));
    out.raw("{");
    out.key(&upsert.key);
    out.raw(",\"source\":\"");
    out.raw(upsert.source.as_str());
    out.raw("\",\"grain\":\"");
    out.raw(upsert.grain.as_str());
    out.raw("\",\"zone\":");
    out.text(&upsert.zone);
    out.raw(",\"window_start\":\"");
    out.second(upsert.window_start)?;
    out.raw("\",\"window_end\":\"");
    out.second(upsert.window_end)?;
    out.raw("\",\"epoch\":\"");
    out.shown(upsert.epoch);
    out.raw("\",\"revision\":");
    out.shown(upsert.revision);
    out.raw(if upsert.r#final { ",\"final\":true," } else { ",\"final\":false," });
    out.state(state);
    out.raw(",\"as_of\":");
    out.shown(upsert.as_of);
    out.raw(",\"updated_at\":\"");
    out.raw(&time::format_ms(upsert.updated_at));
    out.raw("\"}");
    Some(out.0)
}

/// `None`: a time has no canonical text.
pub(super) fn write_partial(partial: &Partial) -> Option<Vec<u8>> {
    let mut out = Writer(Vec::with_capacity(256 + 96 * partial.deltas.len()));
    out.raw("{\"upstream\":{\"topic\":");
    out.text(&partial.upstream.topic);
    out.raw(",\"partition\":");
    out.shown(partial.upstream.partition);
    if let Some(watermark_ms) = partial.upstream.watermark_ms {
        out.raw(",\"watermark_ms\":");
        out.shown(watermark_ms);
    }
    out.raw(if partial.upstream.idle { ",\"idle\":true}" } else { ",\"idle\":false}" });
    if let Some(key) = &partial.key {
        out.raw(",\"key\":{");
        out.key(key);
        out.raw("}");
    }
    for (index, delta) in partial.deltas.iter().enumerate() {
        out.raw(if index == 0 { ",\"deltas\":[{\"minute\":\"" } else { ",{\"minute\":\"" });
        out.second(delta.minute)?;
        out.raw("\",");
        out.state(&delta.state);
        out.raw("}");
    }
    out.raw(if partial.deltas.is_empty() { "}" } else { "]}" });
    Some(out.0)
}

/// Writing into memory cannot fail.
struct Writer(Vec<u8>);

impl Writer {
    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn shown(&mut self, value: impl std::fmt::Display) {
        let _infallible = write!(self.0, "{value}");
    }

    /// A string with its quotes.
    fn text(&mut self, text: &str) {
        if text.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte < 0x20) {
            let _infallible = serde_json::to_writer(&mut self.0, text);
            return;
        }
        self.raw("\"");
        self.raw(text);
        self.raw("\"");
    }

    fn second(&mut self, second: i64) -> Option<()> {
        self.0.extend_from_slice(&time::format_canonical_s(second)?);
        Some(())
    }

    fn key(&mut self, key: &MetricKey) {
        self.raw("\"workspace\":");
        self.text(&key.workspace);
        self.raw(",\"metric\":");
        self.text(&key.metric);
        self.raw(",\"series\":");
        self.shown(key.series);
        self.raw(",\"dimensions\":{");
        for (index, (name, value)) in key.dimensions.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.text(name);
            self.raw(":");
            self.text(value);
        }
        self.raw("}");
    }

    fn decimal(&mut self, member: &str, value: Micros) {
        self.raw(member);
        self.shown(value);
        self.raw("\"");
    }

    fn state(&mut self, state: &WindowState) {
        self.raw("\"count\":");
        self.shown(state.count);
        self.decimal(",\"sum\":\"", state.sum);
        if let Some(min) = state.min {
            self.decimal(",\"min\":\"", min);
        }
        if let Some(max) = state.max {
            self.decimal(",\"max\":\"", max);
        }
        for (member, text) in [(",\"distinct\":", &state.distinct), (",\"distribution\":", &state.distribution)] {
            if !text.is_empty() {
                self.raw(member);
                self.text(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Aggregate, Epoch, Sample};

    fn key(dimensions: &[(&str, &str)]) -> MetricKey {
        MetricKey {
            workspace: "acme".into(),
            metric: "orders".into(),
            series: 3,
            dimensions: dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn states() -> Vec<WindowState> {
        let mut aggregate = Aggregate::default();
        let mut states = vec![WindowState::of(&aggregate)];
        for sample in [Sample::One, Sample::Number("-12.5".parse().unwrap()), Sample::Distinct(7)] {
            aggregate.add(sample).unwrap();
            states.push(WindowState::of(&aggregate));
        }
        aggregate.add(Sample::Distribution("1e18".parse().unwrap())).unwrap();
        (0..40).for_each(|_| aggregate.merge(&aggregate.clone()).unwrap());
        states.push(WindowState::of(&aggregate));
        states
    }

    fn keys() -> [MetricKey; 3] {
        [key(&[]), key(&[("country", "de"), ("city", "Köln")]), key(&[("a\"b", "tab\there\\"), ("empty", "")])]
    }

    fn upserts() -> Vec<WindowUpsert> {
        let mut upserts = Vec::new();
        for (number, key) in keys().into_iter().enumerate() {
            for state in states() {
                upserts.push(WindowUpsert {
                    key: key.clone(),
                    source: Source::ALL[number],
                    grain: Grain::ALL[number + 2],
                    zone: "Asia/Kathmandu".into(),
                    window_start: 1_574_554_500,
                    window_end: 1_574_558_100,
                    epoch: Epoch { partition: 2, offset: u64::MAX },
                    revision: number as u64,
                    r#final: number == 1,
                    state,
                    as_of: 80,
                    updated_at: 1_574_554_500_123,
                });
            }
        }
        upserts
    }

    fn partials() -> Vec<Partial> {
        let upstream =
            PartialHeader { topic: "events.campaign".into(), partition: 3, watermark_ms: Some(-5), idle: false };
        let idle = PartialHeader { watermark_ms: None, idle: true, ..upstream.clone() };
        let mut partials = vec![Partial { upstream: idle.clone(), key: None, deltas: Vec::new() }];
        for key in keys() {
            let deltas: Vec<Delta> =
                states().into_iter().zip(1..).map(|(state, minute)| Delta { minute: minute * 60, state }).collect();
            for upstream in [&upstream, &idle] {
                for count in [0, 1, deltas.len()] {
                    let deltas = deltas[..count].to_vec();
                    partials.push(Partial { upstream: upstream.clone(), key: Some(key.clone()), deltas });
                }
            }
        }
        partials
    }

    #[test]
    fn what_is_written_is_what_serde_writes() {
        for upsert in upserts() {
            assert_eq!(write_upsert(&upsert), serde_json::to_vec(&upsert).ok());
            let far = WindowUpsert { window_end: 300_000_000_000, ..upsert };
            assert_eq!((write_upsert(&far), far.encode()), (None, serde_json::to_vec(&far).unwrap_or_default()));
        }
        for partial in partials() {
            assert_eq!(write_partial(&partial), serde_json::to_vec(&partial).ok());
        }
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        let mut read = 0;
        for upsert in upserts() {
            let bytes = upsert.encode();
            assert_eq!(read_upsert(&bytes).is_some(), !upsert.key.dimensions.contains_key("empty"));
            assert_eq!(WindowUpsert::decode(&bytes).unwrap(), upsert);
            for changed in damaged(&bytes) {
                let Some(quick) = read_upsert(&changed) else { continue };
                let text = String::from_utf8_lossy(&changed);
                assert_eq!(Some(quick), serde_json::from_slice(&changed).ok(), "{text}");
                read += 1;
            }
        }
        for partial in partials() {
            let bytes = partial.encode();
            assert_eq!(Partial::decode(&bytes).unwrap(), partial);
            for changed in damaged(&bytes) {
                let Some(quick) = read_partial(&changed) else { continue };
                let text = String::from_utf8_lossy(&changed);
                assert_eq!(Some(quick), serde_json::from_slice(&changed).ok(), "{text}");
                read += 1;
            }
        }
        assert!(read > 5_000, "{read}");
    }

    /// Each byte replaced, doubled or left out, as far as the first 700.
    fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len().min(700)).flat_map(move |at| {
            [b'"', b'\\', b' ', b'-', b'.', b',', b'0', b'9'].into_iter().flat_map(move |byte| {
                [
                    [&bytes[..at], &[byte], &bytes[at + 1..]].concat(),
                    [&bytes[..at], &[byte], &bytes[at..]].concat(),
                    [&bytes[..at], &bytes[at + 1..]].concat(),
                ]
            })
        })
    }

    #[test]
    fn texts_are_escaped_as_serde_escapes_them() {
        for text in ["", "with spaces", "a\"b", "a\\b", "tab\t", "\u{1}", "\u{1f}", "ü"] {
            let mut writer = Writer(Vec::new());
            writer.text(text);
            assert_eq!(writer.0, serde_json::to_vec(text).unwrap(), "{text:?}");
        }
    }
}
