//! Pure: no I/O, no clock, no async.
//!
//! Which definitions are in force: the built-in ones for every workspace, and what `control` says.

use std::collections::BTreeMap;

use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::{Definition, DefinitionText, EventMetric, Program, built_in};
use neonhub_schemas::record::Record;

/// The definitions of all workspaces, as `control` tells them.
#[derive(Debug)]
pub struct Definitions {
    built_in: Vec<(String, EventMetric)>,
    /// By workspace and name: revision and definition (none for a deleted or derived one).
    custom: BTreeMap<(String, String), (u64, Option<CustomMetric>)>,
    /// Rises with every change.
    version: u64,
}

/// A definition by people: as checked, and as written.
#[derive(Clone, Debug)]
pub struct CustomMetric {
    pub metric: EventMetric,
    pub text: DefinitionText,
}

impl Default for Definitions {
    fn default() -> Self {
        let built_in = built_in().into_iter().filter_map(|(name, text)| match text.check() {
            Ok(Definition::Events(metric)) => Some((name.to_owned(), metric)),
            _ => None,
        });
        Self { built_in: built_in.collect(), custom: BTreeMap::new(), version: 1 }
    }
}

impl Definitions {
    /// Nothing until `control` says something.
    #[must_use]
    pub fn without_built_in() -> Self {
        Self { built_in: Vec::new(), custom: BTreeMap::new(), version: 1 }
    }

    /// Takes up a record of `control`. Older revisions, other records and what is no definition are passed over.
    pub fn observe(&mut self, record: &Record) {
        let Some(record) =
            record.value.as_ref().and_then(|value| serde_json::from_slice::<DefinitionRecord>(value).ok())
        else {
            return;
        };
        let metric = record.definition.and_then(|text| match text.check() {
            Ok(Definition::Events(metric)) => Some(CustomMetric { metric, text }),
            _ => None,
        });
        let place = (record.workspace, record.name);
        if self.custom.get(&place).is_some_and(|(revision, _)| *revision >= record.revision) {
            return;
        }
        self.custom.insert(place, (record.revision, metric));
        self.version += 1;
    }

    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Event metrics that were defined by people: workspace, name, series.
    pub fn custom(&self) -> impl Iterator<Item = (&str, &str, u64, &CustomMetric)> {
        self.custom.iter().filter_map(|((workspace, name), (revision, metric))| {
            metric.as_ref().map(|metric| (workspace.as_str(), name.as_str(), *revision, metric))
        })
    }

    /// Workspaces with definitions of their own.
    pub fn workspaces(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        self.custom.keys().filter_map(move |(workspace, _)| {
            let is_new = last != Some(workspace);
            last = Some(workspace);
            is_new.then_some(workspace.as_str())
        })
    }

    /// The program of a workspace; of any other when `None`.
    #[must_use]
    pub fn program(&self, workspace: Option<&str>) -> Program {
        let built_in = self.built_in.iter().map(|(name, metric)| (name.clone(), 0, metric.clone()));
        let custom = self
            .custom()
            .filter(|(owner, ..)| Some(*owner) == workspace)
            .map(|(_, name, series, custom)| (name.to_owned(), series, custom.metric.clone()));
        Program::compile(built_in.chain(custom))
    }
}
