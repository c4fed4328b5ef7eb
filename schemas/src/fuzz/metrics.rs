//! Pure: no I/O, no clock, no async.
//!
//! Metric definitions and the expressions in them.

use crate::event::Envelope;
use crate::metric::{Definition, DefinitionText, Expression, Program};

const EVENTS: [&str; 3] = [
    include_str!("../../golden/envelope-v1-track.json"),
    include_str!("../../golden/envelope-v1-campaign.json"),
    include_str!("../../golden/envelope-v1-integration.json"),
];

pub(super) fn check_definition(bytes: &[u8]) {
    let Ok(text) = serde_json::from_slice::<DefinitionText>(bytes) else { return };
    let written = serde_json::to_vec(&text).unwrap_or_default();
    let again: Option<DefinitionText> = serde_json::from_slice(&written).ok();
    assert_eq!(again.as_ref(), Some(&text), "a definition is another after a round trip");
    match text.check() {
        Err(error) => assert!(!error.field.is_empty() && !error.reason.is_empty(), "{error:?} says nothing"),
        Ok(Definition::Derived(expression)) => check_parsed(&expression),
        Ok(Definition::Events(metric)) => {
            let program = Program::compile([("m".to_owned(), 1, metric.clone())]);
            for event in EVENTS {
                let Ok(event) = Envelope::decode(event.trim_end().as_bytes()) else { continue };
                program.evaluate(&event, |hit| {
                    assert_eq!(event.source(), metric.source, "an event of another source is counted");
                    assert_eq!(hit.dimensions.len(), metric.dimensions.len());
                });
            }
        }
    }
}

pub(super) fn check_expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Expression::parse(text) {
        Ok(expression) => check_parsed(&expression),
        Err(error) => {
            assert!(error.position >= 1 && error.position <= text.chars().count() + 1, "{error:?} of {text:?}");
        }
    }
}

fn check_parsed(expression: &Expression) {
    let printed = expression.to_string();
    // What is printed may be longer than what may be written: blanks, and parentheses that are not needed.
    if let Ok(again) = Expression::parse(&printed) {
        assert_eq!(&again, expression, "{printed} is another expression");
    } else {
        assert!(printed.len() > 1_000, "{printed} is not read");
    }
    let value_of = |name: &str| (!name.len().is_multiple_of(3)).then_some(name.len() as f64 - 2.0);
    assert!(expression.evaluate(&value_of).is_none_or(f64::is_finite));
    assert!(expression.metrics().is_sorted());
}
