//! Pure: no I/O, no clock, no async.
//!
//! Rows of a table → events, by a mapping whose columns were found.

use csv::StringRecord;
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use super::cell::value_of;
use super::mapping::{Mapping, Rule};

/// A mapping and where its columns are.
#[derive(Debug)]
pub struct Table<'m> {
    templates: Vec<BoundTemplate<'m>>,
}

#[derive(Debug)]
struct BoundTemplate<'m> {
    when: Vec<(usize, &'m str)>,
    fields: Vec<(&'m str, &'m Rule, Vec<usize>)>,
}

impl<'m> Table<'m> {
    /// # Errors
    /// A column that the table does not have.
    pub fn bind(mapping: &'m Mapping, headers: &StringRecord) -> Result<Self, String> {
        let find = |used_by: &str, column: &str| {
            let place = headers.iter().position(|header| header.trim_start_matches('\u{feff}').trim() == column);
            place.ok_or_else(|| {
                let known: Vec<&str> = headers.iter().take(30).collect();
                format!("{used_by}: there is no column `{column}`; the table has {}", known.join(", "))
            })
        };
        let mut templates = Vec::new();
        for template in &mapping.templates {
            let mut when = Vec::new();
            for (column, value) in &template.when {
                when.push((find("also.when", column)?, value.as_str()));
            }
            let mut fields = Vec::new();
            for (path, rule) in &template.fields {
                let columns: &[String] = match rule {
                    Rule::Literal(_) => &[],
                    Rule::Cell { column, .. } => std::slice::from_ref(column),
                    Rule::Hash { columns } => columns,
                };
                let used_by = format!("event.{path}");
                let places = columns.iter().map(|column| find(&used_by, column)).collect::<Result<_, _>>()?;
                fields.push((path.as_str(), rule, places));
            }
            templates.push(BoundTemplate { when, fields });
        }
        Ok(Self { templates })
    }

    /// The row's events.
    ///
    /// # Errors
    /// A cell that is not what the mapping says, by field.
    pub fn events(&self, row: &StringRecord) -> Result<Vec<Value>, String> {
        let mut events = Vec::new();
        for template in &self.templates {
            if template.when.iter().all(|(column, value)| row.get(*column) == Some(*value)) {
                events.push(event(template, row)?);
            }
        }
        Ok(events)
    }
}

fn event(template: &BoundTemplate<'_>, row: &StringRecord) -> Result<Value, String> {
    let mut event = Map::new();
    for (path, rule, columns) in &template.fields {
        let value = match rule {
            Rule::Literal(value) => value.clone(),
            Rule::Hash { .. } => {
                let mut hasher = Xxh3::new();
                for column in columns {
                    hasher.update(row.get(*column).unwrap_or_default().as_bytes());
                    hasher.update(&[0]);
                }
                Value::from(format!("{:016x}", hasher.digest()))
            }
            Rule::Cell { column, kind, format, zone } => {
                let cell = columns.first().and_then(|column| row.get(*column)).unwrap_or_default().trim();
                if cell.is_empty() {
                    // A property may be unknown; without a timestamp or an id the event would mean something else.
                    if path.contains('.') {
                        continue;
                    }
                    return Err(format!("{path}: column `{column}` is empty"));
                }
                let value = value_of(cell, *kind, format, zone);
                value.map_err(|detail| format!("{path}: column `{column}`: {detail}"))?
            }
        };
        insert(&mut event, path, value)?;
    }
    Ok(Value::Object(event))
}

fn insert(event: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), String> {
    match path.split_once('.') {
        None => {
            event.insert(path.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => match event.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => insert(inner, rest, value),
            _ => Err(format!("{first}: is a value and an object at once")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const MAPPING: &str = r#"
        [event]
        type = { value = "impression" }
        timestamp = { column = "at", format = "unix" }
        anonymousId = { hash = ["a"] }
        "properties.item" = { column = "item", type = "number" }
        "properties.deep.note" = "note"
        [[also]]
        when = { click = "1" }
        event = { type = { value = "click" } }
    "#;

    fn events(row: [&str; 5]) -> Result<Vec<Value>, String> {
        let mapping = Mapping::parse(MAPPING).unwrap();
        let headers = StringRecord::from(vec!["\u{feff}at", "a", "item", "click", "note"]);
        Table::bind(&mapping, &headers).unwrap().events(&StringRecord::from(row.to_vec()))
    }

    #[test]
    fn a_row_is_one_event_or_more() {
        let one = events(["0.5", "x", "7", "0", ""]).unwrap();
        let hash = one[0]["anonymousId"].clone();
        let expected = json!([{"type": "impression", "timestamp": "1970-01-01T00:00:00.5Z", "anonymousId": hash,
            "properties": {"item": 7}}]);
        assert_eq!(Value::from(one), expected);
        let two = events(["0.5", "x", "7", "1", "n"]).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(two[1]["type"], "click");
        assert_eq!(two[1]["properties"]["deep"]["note"], "n");
    }

    #[test]
    fn bad_cells_are_named_by_field_and_column() {
        let error = events(["soon", "x", "7", "0", ""]).unwrap_err();
        assert_eq!(error, "timestamp: column `at`: `soon` is no timestamp (unix: seconds since 1970)");
        assert_eq!(events(["", "x", "7", "0", ""]).unwrap_err(), "timestamp: column `at` is empty");
        assert_eq!(events(["1", "x", "y", "0", ""]).unwrap_err(), "properties.item: column `item`: `y` is no number");
        let mapping = Mapping::parse("[event]\nx = \"gone\"").unwrap();
        let error = Table::bind(&mapping, &StringRecord::from(vec!["a", "b"])).unwrap_err();
        assert_eq!(error, "event.x: there is no column `gone`; the table has a, b");
    }
}
