//! Pure: no I/O, no clock, no async.

use serde::{Deserialize, Serialize};

use crate::event::{FieldPath, FieldValue};
use crate::micros::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    Eq,
    Ne,
    In,
    NotIn,
    Gt,
    Gte,
    Lt,
    Lte,
    Contains,
    Prefix,
    Exists,
    NotExists,
}

/// One condition on a field. Numbers compare as decimals, everything else as text. A field that is absent fulfils only
/// `ne`, `not_in` and `not_exists`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    pub field: FieldPath,
    pub operator: Operator,
    values: Vec<Operand>,
}

#[derive(Clone, Debug, PartialEq)]
struct Operand {
    text: String,
    number: Option<Micros>,
}

impl Condition {
    /// # Errors
    /// The values do not suit the operator: says how.
    pub fn new(field: FieldPath, operator: Operator, values: &[serde_json::Value]) -> Result<Self, String> {
        use serde_json::Value;
        let mut operands = Vec::with_capacity(values.len());
        for value in values {
            let (text, number) = match value {
                Value::String(text) => (text.clone(), None),
                Value::Number(number) => {
                    let text = number.to_string();
                    let decimal = text.parse().map_err(|error| format!("{text} {error}"))?;
                    (text, Some(decimal))
                }
                Value::Bool(value) => (value.to_string(), None),
                other => return Err(format!("{other} is not text, a number or a boolean")),
            };
            operands.push(Operand { text, number });
        }
        let fits = match operator {
            Operator::In | Operator::NotIn => !operands.is_empty() && operands.len() <= 1_000,
            Operator::Exists | Operator::NotExists => operands.is_empty(),
            Operator::Gt | Operator::Gte | Operator::Lt | Operator::Lte => {
                operands.len() == 1 && operands.iter().all(|operand| operand.number.is_some())
            }
            Operator::Eq | Operator::Ne | Operator::Contains | Operator::Prefix => operands.len() == 1,
        };
        if !fits {
            return Err(
                "takes one `value`, `in` and `not_in` take `values` (1 to 1,000), gt, gte, lt, lte take a number, \
                        exists and not_exists take none"
                    .to_owned(),
            );
        }
        Ok(Self { field, operator, values: operands })
    }

    #[must_use]
    pub fn holds(&self, value: Option<&FieldValue<'_>>) -> bool {
        let Some(value) = value else {
            return matches!(self.operator, Operator::Ne | Operator::NotIn | Operator::NotExists);
        };
        let text = value.to_text();
        let equals = |operand: &Operand| match operand.number {
            Some(number) if !matches!(value, FieldValue::Text(_)) => value.to_decimal() == Some(number),
            _ => operand.text == text,
        };
        let compare = |accept: fn(Micros, Micros) -> bool| {
            let number = self.values.first().and_then(|operand| operand.number);
            number.zip(value.to_decimal()).is_some_and(|(limit, number)| accept(number, limit))
        };
        let first = self.values.first().map_or("", |operand| operand.text.as_str());
        match self.operator {
            Operator::Eq | Operator::In => self.values.iter().any(equals),
            Operator::Ne | Operator::NotIn => !self.values.iter().any(equals),
            Operator::Gt => compare(|number, limit| number > limit),
            Operator::Gte => compare(|number, limit| number >= limit),
            Operator::Lt => compare(|number, limit| number < limit),
            Operator::Lte => compare(|number, limit| number <= limit),
            Operator::Contains => text.contains(first),
            Operator::Prefix => text.starts_with(first),
            Operator::Exists => true,
            Operator::NotExists => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn holds(operator: Operator, values: &serde_json::Value, value: Option<&FieldValue<'_>>) -> bool {
        let values = values.as_array().cloned().unwrap();
        Condition::new(FieldPath::Name, operator, &values).unwrap().holds(value)
    }

    #[test]
    fn numbers_compare_as_decimals_and_text_as_text() {
        let five = FieldValue::Number("5.0");
        assert!(holds(Operator::Eq, &json!([5]), Some(&five)));
        assert!(holds(Operator::Gte, &json!([5]), Some(&five)));
        assert!(!holds(Operator::Gt, &json!([5]), Some(&five)));
        assert!(holds(Operator::Lt, &json!([5.1]), Some(&five)));
        let text = FieldValue::Text("de".into());
        assert!(holds(Operator::In, &json!(["fr", "de"]), Some(&text)));
        assert!(holds(Operator::NotIn, &json!(["fr"]), Some(&text)));
        assert!(holds(Operator::Prefix, &json!(["d"]), Some(&text)));
        assert!(!holds(Operator::Contains, &json!(["x"]), Some(&text)));
        assert!(!holds(Operator::Gt, &json!([1]), Some(&text)));
        assert!(holds(Operator::Eq, &json!([true]), Some(&FieldValue::Bool(true))));
    }

    #[test]
    fn an_absent_field_fulfils_only_the_negations() {
        assert!(holds(Operator::Ne, &json!(["x"]), None));
        assert!(holds(Operator::NotExists, &json!([]), None));
        assert!(!holds(Operator::Eq, &json!(["x"]), None));
        assert!(!holds(Operator::Exists, &json!([]), None));
    }

    #[test]
    fn values_must_suit_the_operator() {
        assert!(Condition::new(FieldPath::Name, Operator::In, &[]).is_err());
        assert!(Condition::new(FieldPath::Name, Operator::Gt, &[json!("a")]).is_err());
        assert!(Condition::new(FieldPath::Name, Operator::Eq, &[json!([1])]).is_err());
        assert!(Condition::new(FieldPath::Name, Operator::Exists, &[json!(1)]).is_err());
        assert!(Condition::new(FieldPath::Name, Operator::Eq, &[json!(1e300)]).is_err());
    }
}
