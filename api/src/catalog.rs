//! Pure: no I/O, no clock, no async.
//!
//! The metrics of a workspace: the built-in ones and its own.

mod measure;

use std::collections::{BTreeMap, BTreeSet};

use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::{Definition, DefinitionText, EventMetric, Expression, built_in};

use crate::problem::Problem;
use measure::Measuring;

/// Derived metrics may build on derived ones, this deep.
pub const MAX_DEPTH: usize = 8;
/// The metrics that one comes to, each counted as often as it is named: the steps of a row of an answer.
pub const MAX_STEPS: usize = 1_000;

#[derive(Clone, Debug)]
pub struct Metric {
    pub name: String,
    /// The series of its windows: the definition's revision, 0 for built-in ones.
    pub series: u64,
    pub is_built_in: bool,
    pub text: DefinitionText,
    pub definition: Definition,
}

#[derive(Clone, Debug, Default)]
pub struct Catalog {
    metrics: BTreeMap<String, Metric>,
}

/// Whether NeonHub itself defines the name.
#[must_use]
pub fn is_built_in(name: &str) -> bool {
    built_in().iter().any(|(known, _)| *known == name)
}

impl Catalog {
    /// Deleted definitions, and those that an older version let pass and this one does not, are left out.
    #[must_use]
    pub fn new(records: &[DefinitionRecord]) -> Self {
        let mut metrics = BTreeMap::new();
        for (name, text) in built_in() {
            if let Ok(definition) = text.check() {
                let metric = Metric { name: name.to_owned(), series: 0, is_built_in: true, text, definition };
                metrics.insert(name.to_owned(), metric);
            }
        }
        for record in records {
            let Some(text) = record.definition.clone() else { continue };
            if let Ok(definition) = text.check() {
                let metric =
                    Metric { name: record.name.clone(), series: record.revision, is_built_in: false, text, definition };
                metrics.entry(record.name.clone()).or_insert(metric);
            }
        }
        Self { metrics }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.metrics.values()
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Metric> {
        self.metrics.get(name)
    }

    /// Names that can be grouped by: a derived metric has those that all its parts have.
    #[must_use]
    pub fn dimensions(&self, name: &str) -> BTreeSet<String> {
        let mut parts = self.events_behind(name).into_iter();
        let names =
            |(_, _, part): (&str, u64, &EventMetric)| part.dimensions.iter().map(|(name, _)| name.clone()).collect();
        let first: BTreeSet<String> = parts.next().map(names).unwrap_or_default();
        parts.map(names).fold(first, |common, next: BTreeSet<String>| common.intersection(&next).cloned().collect())
    }

    /// The event metrics that a metric is made of (itself, if it is one), each once, with their series.
    #[must_use]
    pub fn events_behind<'a>(&'a self, name: &str) -> Vec<(&'a str, u64, &'a EventMetric)> {
        let events = |metric: &'a Metric| match &metric.definition {
            Definition::Events(events) => Some((metric.name.as_str(), metric.series, events)),
            Definition::Derived(_) => None,
        };
        self.behind(name).filter_map(events).collect()
    }

    /// A metric and all that it is made of, each once.
    pub fn behind<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Metric> + use<'a> {
        let mut found = BTreeMap::new();
        self.collect(name, 0, &mut found);
        found.into_values()
    }

    fn collect<'a>(&'a self, name: &str, depth: usize, found: &mut BTreeMap<&'a str, &'a Metric>) {
        let Some(metric) = self.metrics.get(name).filter(|_| depth <= MAX_DEPTH) else { return };
        found.insert(&metric.name, metric);
        if let Definition::Derived(expression) = &metric.definition {
            for needed in expression.metrics() {
                self.collect(&needed, depth + 1, found);
            }
        }
    }

    /// Own derived metrics whose expression names `name`.
    #[must_use]
    pub fn dependents(&self, name: &str) -> Vec<&str> {
        let needs = |metric: &&Metric| match &metric.definition {
            Definition::Derived(expression) => expression.metrics().iter().any(|needed| needed == name),
            Definition::Events(_) => false,
        };
        self.metrics.values().filter(needs).map(|metric| metric.name.as_str()).collect()
    }

    /// Whether `expression` may stand under `name`: what it names exists, nothing goes round in circles, and neither it
    /// nor what builds on it becomes too much.
    ///
    /// # Errors
    /// 400 for `expression`.
    pub fn check_derived(&self, name: &str, expression: &Expression) -> Result<(), Problem> {
        Measuring::new(self, name, expression).check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, json: &str) -> DefinitionRecord {
        DefinitionRecord {
            workspace: "acme".into(),
            name: name.into(),
            revision: 3,
            definition: Some(serde_json::from_str(json).unwrap()),
            updated_at: 0,
        }
    }

    fn derived(name: &str, expression: &str) -> DefinitionRecord {
        record(name, &format!(r#"{{"expression":"{expression}"}}"#))
    }

    #[test]
    fn derived_metrics_have_the_dimensions_that_all_their_parts_have() {
        let views = derived("views_per_click", "page_views / clicks");
        let catalog = Catalog::new(&[views]);
        assert_eq!(catalog.dimensions("views_per_click"), BTreeSet::from(["campaign".to_owned()]));
        assert_eq!(catalog.dimensions("ctr").len(), 3);
        assert!(catalog.dimensions("nothing").is_empty());
        let parts: Vec<&str> = catalog.events_behind("views_per_click").into_iter().map(|part| part.0).collect();
        assert_eq!(parts, ["clicks", "page_views"]);
        assert_eq!(catalog.dependents("clicks"), ["cpc", "ctr", "views_per_click"]);
    }

    #[test]
    fn circles_unknown_names_and_towers_are_refused() {
        let mut records = vec![derived("a", "b + 1"), derived("b", "clicks")];
        let check = |records: &[DefinitionRecord], name: &str, expression: &str| {
            let result = Catalog::new(records).check_derived(name, &Expression::parse(expression).unwrap());
            result.map_err(|problem| problem.detail)
        };
        assert_eq!(check(&records, "c", "a / b"), Ok(()));
        assert!(check(&records, "b", "a").unwrap_err().contains("b -> a -> b"));
        assert!(check(&records, "b", "b").unwrap_err().contains("circle"));
        assert!(check(&records, "c", "nothing").unwrap_err().contains("`nothing`"));
        records.extend((0..7).map(|level| {
            derived(&format!("t{}", level + 1), &if level == 0 { "clicks".into() } else { format!("t{level}") })
        }));
        assert_eq!(check(&records, "t8", "t7"), Ok(()));
        records.push(derived("t8", "t7"));
        assert!(check(&records, "t9", "t8").is_err());
        assert!(check(&records, "t1", "b").is_err());
    }

    #[test]
    fn what_grows_with_every_level_is_refused_at_once() {
        let mut records: Vec<DefinitionRecord> = (0..10).map(|part| derived(&format!("l0_{part}"), "clicks")).collect();
        let all_of = |level: usize| (0..10).map(|part| format!("l{level}_{part}")).collect::<Vec<_>>().join(" + ");
        let check = |records: &[DefinitionRecord], name: &str, expression: &str| {
            Catalog::new(records).check_derived(name, &Expression::parse(expression).unwrap())
        };
        for level in 1..8 {
            records.extend((0..10).map(|part| derived(&format!("l{level}_{part}"), &all_of(level - 1))));
        }
        // Seventy metrics, a hundred million ways through them.
        assert!(check(&records, "top", &all_of(7)).is_err());
        assert!(check(&records, "l1_0", &all_of(0)).is_err());
        assert!(check(&records, "top", &all_of(1)).is_ok());
    }

    #[test]
    fn a_name_that_became_built_in_is_ours() {
        let catalog = Catalog::new(&[derived("ctr", "clicks")]);
        assert!(catalog.get("ctr").unwrap().is_built_in);
    }
}
