//! Pure: no I/O, no clock, no async.
//!
//! What derived metrics come to when they build on one another: how deep, and how many steps. Ten metrics that each name
//! ten others, eight levels deep, would be a hundred million steps for every row of an answer.

use std::collections::BTreeMap;

use neonhub_schemas::metric::{Definition, Expression};

use super::{Catalog, MAX_DEPTH, MAX_STEPS};
use crate::problem::Problem;

/// A metric's own share in it is one step and, if it is derived, one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Measure {
    levels: usize,
    steps: usize,
    /// Whether the changed metric is part of it.
    is_changed: bool,
}

/// A catalogue in which one metric is about to change.
pub struct Measuring<'a> {
    catalog: &'a Catalog,
    name: &'a str,
    expression: &'a Expression,
    known: BTreeMap<String, Measure>,
}

impl<'a> Measuring<'a> {
    pub fn new(catalog: &'a Catalog, name: &'a str, expression: &'a Expression) -> Self {
        Self { catalog, name, expression, known: BTreeMap::new() }
    }

    /// Looks at the changed metric, and at all that build on it: they grow with it.
    ///
    /// # Errors
    /// 400 for `expression`.
    pub fn check(mut self) -> Result<(), Problem> {
        let (catalog, changed) = (self.catalog, self.name);
        let others = catalog.iter().map(|metric| metric.name.as_str()).filter(|name| *name != changed);
        for name in [changed].into_iter().chain(others) {
            let measure = self.of(name, &mut Vec::new())?;
            if measure.is_changed && measure.levels > MAX_DEPTH {
                return Err(wrong(format!("makes `{name}` build on metrics more than {MAX_DEPTH} levels deep")));
            }
            if measure.is_changed && measure.steps > MAX_STEPS {
                return Err(wrong(format!("makes `{name}` come to more than {MAX_STEPS} metrics in all")));
            }
        }
        Ok(())
    }

    fn of(&mut self, name: &str, path: &mut Vec<String>) -> Result<Measure, Problem> {
        if let Some(measure) = self.known.get(name) {
            return Ok(*measure);
        }
        let is_changed = name == self.name;
        let expression = match self.catalog.get(name).map(|metric| &metric.definition) {
            _ if is_changed => self.expression,
            Some(Definition::Derived(expression)) => expression,
            Some(Definition::Events(_)) => return Ok(Measure { levels: 0, steps: 1, is_changed }),
            None => return Err(wrong(format!("`{name}` is no metric of this workspace"))),
        };
        if path.iter().any(|above| above == name) {
            return Err(wrong(format!("goes round in a circle: {} -> {name}", path.join(" -> "))));
        }
        path.push(name.to_owned());
        let mut measure = Measure { levels: 0, steps: 1, is_changed };
        for needed in expression.metrics() {
            let part = self.of(&needed, path)?;
            measure.levels = measure.levels.max(part.levels);
            measure.steps = measure.steps.saturating_add(part.steps);
            measure.is_changed |= part.is_changed;
        }
        measure.levels += 1;
        path.pop();
        self.known.insert(name.to_owned(), measure);
        Ok(measure)
    }
}

fn wrong(detail: String) -> Problem {
    Problem::field("expression", detail)
}
