//! Pure: no I/O, no clock, no async.
//!
//! A mapping file: which column of a table is which field of an event.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use super::cell::{CellType, TimeFormat};

/// What a mapping file says.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// Path at ingest; by the event's type where absent.
    pub route: Option<String>,
    pub delimiter: Option<u8>,
    /// One for each event that a row may be.
    pub templates: Vec<Template>,
}

/// One event of a row.
#[derive(Clone, Debug)]
pub struct Template {
    /// Column and value; the row is such an event when all hold.
    pub when: Vec<(String, String)>,
    /// By dotted path.
    pub fields: BTreeMap<String, Rule>,
}

#[derive(Clone, Debug)]
pub enum Rule {
    Literal(Value),
    Cell {
        column: String,
        kind: CellType,
        format: TimeFormat,
        zone: TimeZone,
    },
    /// A name for whoever has these values, which does not give them away.
    Hash {
        columns: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    route: Option<String>,
    delimiter: Option<String>,
    event: toml::Table,
    #[serde(default)]
    also: Vec<AlsoText>,
}

/// One more event of the row: `[event]` with some fields changed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlsoText {
    when: BTreeMap<String, toml::Value>,
    #[serde(default)]
    event: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    value: Option<toml::Value>,
    column: Option<String>,
    hash: Option<Vec<String>>,
    #[serde(default, rename = "type")]
    kind: CellType,
    format: Option<String>,
    timezone: Option<String>,
}

impl Mapping {
    /// # Errors
    /// Not TOML, or what is wrong with which field.
    pub fn parse(text: &str) -> Result<Self, String> {
        let file: FileText = toml::from_str(text).map_err(|error| error.to_string())?;
        let delimiter = match file.delimiter.as_deref().map(str::as_bytes) {
            None => None,
            Some([byte]) => Some(*byte),
            Some(_) => return Err("delimiter: must be one ASCII character".to_owned()),
        };
        if let Some(route) = &file.route
            && !route.starts_with("/v1/")
        {
            return Err(format!("route: `{route}` must be a path at ingest, like /v1/campaigns/events"));
        }
        let mut fields = BTreeMap::new();
        read_fields("", &file.event, &mut fields)?;
        let mut templates = vec![Template { when: Vec::new(), fields: fields.clone() }];
        for also in file.also {
            let mut own_fields = fields.clone();
            read_fields("", &also.event, &mut own_fields)?;
            let when = also.when.into_iter().map(|(column, value)| (column, plain(&value)));
            templates.push(Template { when: when.collect(), fields: own_fields });
        }
        Ok(Self { route: file.route, delimiter, templates })
    }
}

fn plain(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn read_fields(prefix: &str, table: &toml::Table, fields: &mut BTreeMap<String, Rule>) -> Result<(), String> {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if path.split('.').any(str::is_empty) {
            return Err(format!("event.{path}: a field's name is empty"));
        }
        match value {
            toml::Value::String(column) => {
                let rule = rule(&path, RuleText { column: Some(column.clone()), ..RuleText::empty() })?;
                fields.insert(path, rule);
            }
            toml::Value::Table(inner) if ["value", "column", "hash"].iter().any(|key| inner.contains_key(*key)) => {
                let text: RuleText = inner
                    .clone()
                    .try_into()
                    .map_err(|error: toml::de::Error| format!("event.{path}: {}", error.message()))?;
                let rule = rule(&path, text)?;
                fields.insert(path, rule);
            }
            toml::Value::Table(inner) => read_fields(&path, inner, fields)?,
            other => {
                let hint = format!("a column's name, or {{ value = {other} }}");
                return Err(format!("event.{path}: must be {hint}"));
            }
        }
    }
    Ok(())
}

impl RuleText {
    fn empty() -> Self {
        Self { value: None, column: None, hash: None, kind: CellType::Text, format: None, timezone: None }
    }
}

fn rule(path: &str, text: RuleText) -> Result<Rule, String> {
    match (text.value, text.column, text.hash) {
        (Some(value), None, None) => {
            let value = serde_json::to_value(value).map_err(|error| format!("event.{path}: {error}"))?;
            Ok(Rule::Literal(value))
        }
        (None, None, Some(columns)) if !columns.is_empty() => Ok(Rule::Hash { columns }),
        (None, Some(column), None) => {
            let name = text.timezone.as_deref().unwrap_or("UTC");
            let zone = TimeZone::get(name).map_err(|error| format!("event.{path}: timezone `{name}`: {error}"))?;
            let is_time = matches!(path, "timestamp" | "originalTimestamp" | "sentAt");
            let kind = if is_time && text.kind == CellType::Text { CellType::Timestamp } else { text.kind };
            let format = text.format.as_deref().map(TimeFormat::from).unwrap_or_default();
            Ok(Rule::Cell { column, kind, format, zone })
        }
        _ => Err(format!("event.{path}: needs one of value, column and hash")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_literals_types_and_nested_names() {
        let mapping = Mapping::parse(
            r#"
            route = "/v1/campaigns/events"
            delimiter = "\t"
            [event]
            type = { value = "impression" }
            timestamp = "at"
            anonymousId = { hash = ["a", "b"] }
            "properties.item" = { column = "item", type = "number" }
            [event.properties.price]
            column = "price"
            [[also]]
            when = { click = 1 }
            event = { type = { value = "click" } }
            "#,
        )
        .unwrap();
        assert_eq!(mapping.delimiter, Some(b'\t'));
        let fields = &mapping.templates[0].fields;
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["anonymousId", "properties.item", "properties.price", "timestamp", "type"]);
        assert!(matches!(&fields["timestamp"], Rule::Cell { kind: CellType::Timestamp, .. }));
        assert!(matches!(&fields["properties.item"], Rule::Cell { kind: CellType::Number, .. }));
        let also = &mapping.templates[1];
        assert_eq!(also.when, [("click".to_owned(), "1".to_owned())]);
        assert!(matches!(&also.fields["type"], Rule::Literal(value) if value == "click"));
        assert_eq!(also.fields.len(), 5);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("[event]\ntype = 7", "event.type: must be a column's name, or { value = 7 }"),
            ("[event]\ntype = { value = 1, column = \"x\" }", "event.type: needs one of"),
            ("[event]\nx = { column = \"x\", type = \"date\" }", "event.x: unknown variant `date`"),
            ("[event]\nx = { column = \"x\", timezone = \"Mars\" }", "event.x: timezone `Mars`"),
            ("route = \"campaigns\"\n[event]", "route: `campaigns` must be a path"),
            ("delimiter = \"ab\"\n[event]", "delimiter: must be one"),
            ("route = \"/v1/batch\"", "missing field `event`"),
            ("[event]\n\"a..b\" = \"x\"", "event.a..b: a field's name is empty"),
        ] {
            let error = Mapping::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
