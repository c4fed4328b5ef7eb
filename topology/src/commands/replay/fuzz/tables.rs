//! Pure: no I/O, no clock, no async.
//!
//! Tables and their mappings: a byte that says which kind of table, the mapping's text, a zero, the table.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::read;
use crate::commands::replay::mapping::{Mapping, Rule, Template};
use crate::commands::replay::source::Item;

pub(crate) fn check(bytes: &[u8]) {
    let Some((how, rest)) = bytes.split_first() else { return };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let text = parts.next().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
    let table = parts.next().unwrap_or_default();
    let mapping = match Mapping::parse(text) {
        Ok(mapping) => mapping,
        Err(detail) => {
            assert!(!detail.is_empty());
            return;
        }
    };
    assert!(mapping.templates.first().is_some_and(|first| first.when.is_empty()), "not every row is an event");
    let as_import = how % 2 == 1;
    let (name, delimiter) = if how / 2 % 2 == 0 { ("t.csv", b',') } else { ("t.tsv", b'\t') };
    let Some(items) = read(name, table, Some(mapping.clone()), as_import) else { return };
    for item in &items {
        if let Item::Event(event) = item {
            let event = serde_json::from_str::<Map<String, Value>>(&event.json).unwrap_or_default();
            let is_made_by =
                |template: &Template| literals(template).all(|(path, value)| event.get(path) == Some(value));
            assert!(mapping.templates.iter().any(is_made_by), "{event:?} is no template's");
        }
    }
    if is_plain(table) && mapping.delimiter.is_none_or(|own| own == delimiter) {
        check_rows(table, &items);
    }
}

/// What stands in every event of a template, but for what replaying itself looks after.
fn literals(template: &Template) -> impl Iterator<Item = (&String, &Value)> {
    template.fields.iter().filter_map(|(path, rule)| match rule {
        Rule::Literal(value) if !value.is_object() && !["messageId", "sentAt"].contains(&path.as_str()) => {
            (!path.contains('.')).then_some((path, value))
        }
        _ => None,
    })
}

/// Whether rows are lines.
fn is_plain(table: &[u8]) -> bool {
    let ends_line = |pair: &[u8]| pair[0] != b'\r' || pair[1] == b'\n';
    !table.contains(&b'"') && !table.ends_with(b"\r") && table.windows(2).all(ends_line)
}

/// Each row but the first has at least one item, in order, with its line.
fn check_rows(table: &[u8], items: &[Item]) {
    let lines = (1_u64..).zip(table.split(|byte| *byte == b'\n')).filter(|(_, line)| !matches!(line, [] | [b'\r']));
    let expected: BTreeSet<u64> = lines.map(|(number, _)| number).skip(1).collect();
    let found: Vec<u64> = items.iter().map(|item| item.origin().line).collect();
    assert!(found.is_sorted(), "{found:?}");
    assert_eq!(BTreeSet::from_iter(found), expected, "rows");
}
