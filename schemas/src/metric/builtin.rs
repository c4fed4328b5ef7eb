//! Pure: no I/O, no clock, no async.

use super::condition::Operator;
use super::definition::{ConditionText, DefinitionText};
use crate::event::Source;

/// The metrics that every workspace has, by name. Their series is 0 and they count from the first event on.
#[must_use]
pub fn built_in() -> Vec<(&'static str, DefinitionText)> {
    let campaign = |kind: &str, dimensions: &[&str], about: &str| DefinitionText {
        source: Some(Source::Campaign),
        event: Some(kind.to_owned()),
        aggregation: Some("count".to_owned()),
        dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
        description: Some(about.to_owned()),
        ..DefinitionText::default()
    };
    let amount = |kind: &str, about: &str| DefinitionText {
        value: Some("value".to_owned()),
        aggregation: Some("sum".to_owned()),
        ..campaign(kind, &AD_DIMENSIONS, about)
    };
    let behavior = |aggregation: &str, value: Option<&str>, dimensions: &[&str], about: &str| DefinitionText {
        source: Some(Source::Behavior),
        value: value.map(str::to_owned),
        aggregation: Some(aggregation.to_owned()),
        dimensions: dimensions.iter().map(|name| (*name).to_owned()).collect(),
        description: Some(about.to_owned()),
        ..DefinitionText::default()
    };
    let derived = |expression: &str, about: &str| DefinitionText {
        expression: Some(expression.to_owned()),
        description: Some(about.to_owned()),
        ..DefinitionText::default()
    };
    let acts = vec![ConditionText {
        field: "kind".to_owned(),
        op: Operator::In,
        value: None,
        values: Some(vec!["page".into(), "screen".into(), "track".into()]),
    }];
    vec![
        (
            "page_views",
            DefinitionText {
                event: Some("page".to_owned()),
                ..behavior("count", None, &["campaign", "properties.path"], "Pages viewed.")
            },
        ),
        (
            "visitors",
            DefinitionText {
                conditions: acts.clone(),
                ..behavior("uniques", Some("actor"), &["campaign"], "Distinct actors that viewed or did something.")
            },
        ),
        (
            "sessions",
            DefinitionText {
                conditions: acts,
                ..behavior("uniques", Some("session_id"), &["campaign"], "Distinct sessions, cut by 30 idle minutes.")
            },
        ),
        ("impressions", campaign("impression", &AD_DIMENSIONS, "Ads shown.")),
        ("clicks", campaign("click", &AD_DIMENSIONS, "Ads clicked.")),
        ("ctr", derived("clicks / impressions", "Click-through rate.")),
        ("conversions", campaign("conversion", &AD_DIMENSIONS, "Goals reached.")),
        ("revenue", amount("conversion", "What conversions are worth.")),
        ("spend", amount("spend", "What campaigns cost.")),
        ("cpc", derived("spend / clicks", "Cost per click.")),
        ("cpa", derived("spend / conversions", "Cost per acquisition.")),
        ("roas", derived("revenue / spend", "Return on advertising spend.")),
        ("sends", campaign("send", &MAIL_DIMENSIONS, "Messages sent.")),
        ("opens", campaign("open", &MAIL_DIMENSIONS, "Messages opened.")),
        ("bounces", campaign("bounce", &MAIL_DIMENSIONS, "Messages that came back.")),
        ("unsubscribes", campaign("unsubscribe", &MAIL_DIMENSIONS, "Consents taken back.")),
    ]
}

/// `policy` is the arm or serving policy of an experiment.
const AD_DIMENSIONS: [&str; 3] = ["campaign", "properties.channel", "properties.policy"];
const MAIL_DIMENSIONS: [&str; 2] = ["campaign", "properties.channel"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::{Definition, check_metric_name};

    #[test]
    fn all_are_valid_and_expressions_name_known_metrics() {
        let all = built_in();
        for (name, text) in &all {
            check_metric_name(name).unwrap();
            if let Definition::Derived(expression) = text.check().unwrap() {
                for needed in expression.metrics() {
                    assert!(all.iter().any(|(known, _)| *known == needed), "{name} needs {needed}");
                }
            }
        }
    }
}
