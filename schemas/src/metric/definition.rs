//! Pure: no I/O, no clock, no async.
//!
//! Metric definitions: the text people write, and the checked form.

use serde::{Deserialize, Serialize};

use super::aggregation::Aggregation;
use super::condition::{Condition, Operator};
use super::expression::Expression;
use crate::event::{FieldPath, Source};

/// A definition as it is written: either events aggregated, or an `expression` over other metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefinitionText {
    /// The family of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// A track or integration event's name, or a kind (`page`, `impression`); absent: every event of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// All must hold.
    #[serde(default, rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<ConditionText>,
    /// The field that is aggregated. `count` needs none; with one it counts the events that have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// `count`, `sum`, `min`, `max`, `avg`, `uniques` or `quantile(q)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aggregation: Option<String>,
    /// Fields to tell apart by; each is queried by its last word.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dimensions: Vec<String>,
    /// `clicks / impressions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConditionText {
    pub field: String,
    pub op: Operator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<serde_json::Value>>,
}

/// A definition, checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    Events(EventMetric),
    Derived(Expression),
}

/// Events of a source, filtered and aggregated.
#[derive(Clone, Debug, PartialEq)]
pub struct EventMetric {
    pub source: Source,
    pub event: Option<String>,
    pub conditions: Vec<Condition>,
    pub value: Option<FieldPath>,
    pub aggregation: Aggregation,
    /// Query name and field.
    pub dimensions: Vec<(String, FieldPath)>,
}

/// What is wrong with a definition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DefinitionError {
    pub field: String,
    pub reason: String,
}

const MAX_DIMENSIONS: usize = 8;
const MAX_CONDITIONS: usize = 32;
/// Column names of a query's answer that a dimension must not take.
const RESERVED: [&str; 4] = ["window_start", "window_end", "final", "previous"];

fn wrong(field: &str, reason: impl Into<String>) -> DefinitionError {
    DefinitionError { field: field.to_owned(), reason: reason.into() }
}

/// A metric's name: a lower-case letter, then up to 63 lower-case letters, digits and underscores.
///
/// # Errors
/// Says what a name looks like.
pub fn check_metric_name(name: &str) -> Result<(), DefinitionError> {
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_lowercase());
    let goes_on_well = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if starts_well && goes_on_well && name.len() <= 64 && !RESERVED.contains(&name) {
        return Ok(());
    }
    Err(wrong("name", "a metric's name is a lower-case letter and up to 63 lower-case letters, digits and underscores"))
}

impl DefinitionText {
    /// # Errors
    /// The first thing that is wrong, by field.
    pub fn check(&self) -> Result<Definition, DefinitionError> {
        if let Some(expression) = &self.expression {
            let only_expression = Self { expression: None, description: None, ..self.clone() } == Self::default();
            if !only_expression {
                return Err(wrong("expression", "a derived metric has an expression and nothing else"));
            }
            let expression = Expression::parse(expression).map_err(|error| wrong("expression", error.to_string()))?;
            if expression.metrics().is_empty() {
                return Err(wrong("expression", "names no metric"));
            }
            return Ok(Definition::Derived(expression));
        }
        let source = self.source.ok_or_else(|| wrong("source", "is missing: behavior, campaign or integration"))?;
        let aggregation: Aggregation = self
            .aggregation
            .as_deref()
            .ok_or_else(|| wrong("aggregation", "is missing"))?
            .parse()
            .map_err(|reason: String| wrong("aggregation", reason))?;
        let value = self.value.as_deref().map(|text| field_path("value", text)).transpose()?;
        if value.is_none() && aggregation.needs_value() {
            return Err(wrong("value", format!("is missing: {aggregation} needs a field")));
        }
        if self.event.as_ref().is_some_and(|event| event.is_empty() || event.len() > 512) {
            return Err(wrong("event", "is 1 to 512 bytes long"));
        }
        Ok(Definition::Events(EventMetric {
            source,
            event: self.event.clone(),
            conditions: self.check_conditions()?,
            value,
            aggregation,
            dimensions: self.check_dimensions()?,
        }))
    }

    fn check_conditions(&self) -> Result<Vec<Condition>, DefinitionError> {
        if self.conditions.len() > MAX_CONDITIONS {
            return Err(wrong("where", format!("has more than {MAX_CONDITIONS} conditions")));
        }
        let mut checked = Vec::new();
        for (index, condition) in self.conditions.iter().enumerate() {
            let place = format!("where[{index}]");
            let field = field_path(&format!("{place}.field"), &condition.field)?;
            let values: Vec<serde_json::Value> = match (&condition.value, &condition.values) {
                (Some(_), Some(_)) => return Err(wrong(&place, "has both `value` and `values`")),
                (Some(value), None) => vec![value.clone()],
                (None, values) => values.clone().unwrap_or_default(),
            };
            checked.push(Condition::new(field, condition.op, &values).map_err(|reason| wrong(&place, reason))?);
        }
        Ok(checked)
    }

    fn check_dimensions(&self) -> Result<Vec<(String, FieldPath)>, DefinitionError> {
        if self.dimensions.len() > MAX_DIMENSIONS {
            return Err(wrong("dimensions", format!("are more than {MAX_DIMENSIONS}")));
        }
        let mut checked: Vec<(String, FieldPath)> = Vec::new();
        for (index, text) in self.dimensions.iter().enumerate() {
            let place = format!("dimensions[{index}]");
            let path = field_path(&place, text)?;
            let name = path.last_word();
            if RESERVED.contains(&name.as_str()) {
                return Err(wrong(&place, format!("`{name}` is a column of every answer")));
            }
            if checked.iter().any(|(known, _)| *known == name) {
                return Err(wrong(&place, format!("`{name}` is already a dimension")));
            }
            checked.push((name, path));
        }
        Ok(checked)
    }
}

fn field_path(place: &str, text: &str) -> Result<FieldPath, DefinitionError> {
    text.parse().map_err(|error: crate::event::FieldPathError| wrong(place, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Definition, DefinitionError> {
        serde_json::from_str::<DefinitionText>(json).unwrap().check()
    }

    #[test]
    fn a_full_definition_is_read() {
        let definition = check(
            r#"{"source":"behavior","event":"Order Completed","where":[{"field":"properties.country","op":"in",
                "values":["de","fr"]}],"value":"properties.revenue","aggregation":"sum","dimensions":["properties.country"]}"#,
        );
        let Ok(Definition::Events(metric)) = definition else { panic!("{definition:?}") };
        assert_eq!(metric.dimensions[0].0, "country");
        assert_eq!(metric.aggregation, Aggregation::Sum);
        assert!(matches!(check(r#"{"expression":"clicks / impressions"}"#), Ok(Definition::Derived(_))));
    }

    #[test]
    fn the_wrong_field_is_named() {
        let cases = [
            (r#"{}"#, "source"),
            (r#"{"source":"behavior"}"#, "aggregation"),
            (r#"{"source":"behavior","aggregation":"sum"}"#, "value"),
            (r#"{"source":"behavior","aggregation":"count","dimensions":["x"]}"#, "dimensions[0]"),
            (
                r#"{"source":"behavior","aggregation":"count","dimensions":["properties.a","context.a"]}"#,
                "dimensions[1]",
            ),
            (r#"{"source":"behavior","aggregation":"count","dimensions":["properties.final"]}"#, "dimensions[0]"),
            (r#"{"source":"behavior","aggregation":"count","where":[{"field":"name","op":"eq"}]}"#, "where[0]"),
            (r#"{"expression":"1 + 1"}"#, "expression"),
            (r#"{"expression":"clicks","aggregation":"count"}"#, "expression"),
        ];
        for (json, field) in cases {
            assert_eq!(check(json).unwrap_err().field, field, "{json}");
        }
        assert!(check_metric_name("clicks_7d").is_ok());
        for name in ["", "Clicks", "7d", "a-b", "final", &"a".repeat(65)] {
            assert!(check_metric_name(name).is_err(), "{name}");
        }
    }
}
