//! Pure: no I/O, no clock, no async.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The dimension value that stands for all keys beyond the cardinality cap.
pub const OTHER: &str = "__other__";

/// What a window belongs to: a metric of a workspace, one combination of its dimensions' values. `series` tells the
/// successive definitions under one name apart: a changed definition counts from then on, in a series of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct MetricKey {
    pub workspace: String,
    pub metric: String,
    pub series: u64,
    /// By name; an event without the field has the empty value.
    pub dimensions: BTreeMap<String, String>,
}

impl MetricKey {
    /// `workspace|metric|series|{"campaign":"men"}`: the record key on `metrics.partials`.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}|{}|{}|{}", self.workspace, self.metric, self.series, self.dimensions_text())
    }

    /// The dimensions as canonical JSON.
    #[must_use]
    pub fn dimensions_text(&self) -> String {
        // A map of strings always has a JSON form.
        serde_json::to_string(&self.dimensions).unwrap_or_default()
    }

    /// The key that the rest is counted under when there are too many.
    #[must_use]
    pub fn other(&self) -> Self {
        let dimensions = self.dimensions.keys().map(|name| (name.clone(), OTHER.to_owned())).collect();
        Self { dimensions, ..self.clone() }
    }

    #[must_use]
    pub fn is_other(&self) -> bool {
        self.dimensions.values().any(|value| value == OTHER)
    }
}
