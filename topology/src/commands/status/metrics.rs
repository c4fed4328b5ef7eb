//! Pure: no I/O, no clock, no async.
//!
//! Prometheus' text format, as far as our own roles write it (version 0.0.4).

use std::collections::BTreeMap;

/// A metric's name and labels.
pub type Series = (String, BTreeMap<String, String>);

pub type Samples = BTreeMap<Series, f64>;

/// What is no sample is passed over.
pub fn parse(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(sample).collect()
}

fn sample(line: &str) -> Option<(Series, f64)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    Some(((name.to_owned(), labels), value.split_ascii_whitespace().next()?.parse().ok()?))
}

/// `a="b",c="d"} …`: the labels and what comes after them.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches(',');
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at + 1,
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.to_owned(), value);
        text = &quoted[end..];
    }
}

/// Growth a second. A counter that began anew has grown by what it shows.
pub fn rates(before: &Samples, after: &Samples, seconds: f64) -> Samples {
    let rate = |(place, now): (&Series, &f64)| {
        let was = before.get(place).copied().unwrap_or(0.0);
        let grown = if *now < was { *now } else { now - was };
        (place.clone(), grown / seconds)
    };
    after.iter().map(rate).collect()
}

/// The sum of a metric's samples with these labels.
pub fn sum(samples: &Samples, name: &str, with: &[(&str, &str)]) -> f64 {
    let fits = |labels: &BTreeMap<String, String>| {
        with.iter().all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
    };
    samples.iter().filter(|((found, labels), _)| found == name && fits(labels)).map(|(_, value)| value).sum()
}

/// The greatest, if there is any.
pub fn greatest(samples: &Samples, name: &str, label: &str, value: &str) -> Option<f64> {
    let fits = |labels: &BTreeMap<String, String>| labels.get(label).is_some_and(|found| found == value);
    let values = samples.iter().filter(|((found, labels), _)| found == name && fits(labels)).map(|(_, value)| *value);
    values.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_encoder_writes_is_read() {
        let registry = prometheus::Registry::new();
        let counter =
            prometheus::IntCounterVec::new(prometheus::Opts::new("seen_total", "Seen."), &["what", "where"]).unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.with_label_values(&["a\"b\\c\nd,}", "here"]).inc_by(3);
        counter.with_label_values(&["x", "here"]).inc_by(4);
        let plain = prometheus::IntGauge::new("open", "Open.").unwrap();
        registry.register(Box::new(plain.clone())).unwrap();
        plain.set(-2);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let samples = parse(&text);
        assert_eq!(samples.len(), 3, "{text}");
        assert_eq!(sum(&samples, "seen_total", &[("where", "here")]), 7.0);
        assert_eq!(sum(&samples, "seen_total", &[("what", "a\"b\\c\nd,}")]), 3.0);
        assert_eq!(sum(&samples, "open", &[]), -2.0);
        assert_eq!(greatest(&samples, "seen_total", "where", "here"), Some(4.0));
        assert_eq!(greatest(&samples, "seen_total", "where", "there"), None);
    }

    #[test]
    fn rates_are_a_seconds_growth_also_after_a_restart() {
        let (before, after) = (parse("a 10\nb 5\n"), parse("a 30\nb 2\nc 4\n"));
        let rates = rates(&before, &after, 2.0);
        assert_eq!(["a", "b", "c"].map(|name| sum(&rates, name, &[])), [10.0, 1.0, 2.0]);
    }

    #[test]
    fn broken_lines_are_passed_over() {
        for text in ["", "a", "a{", "a{b=\"c", "a{b=\"c\\", "a x", "{} 1 2"] {
            assert!(parse(text).len() <= 1, "{text}");
        }
    }
}
