//! Pure: no I/O, no clock, no async.
//!
//! What a live client wants to see.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use neonhub_schemas::metric::{Definition, MetricKey};
use neonhub_schemas::window::Grain;

use super::update::Update;
use crate::auth::Grant;
use crate::catalog::Catalog;
use crate::problem::Problem;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveFilter {
    pub workspace: String,
    /// Empty: every metric.
    pub metrics: BTreeSet<String>,
    pub grain: Option<Grain>,
    /// Dimension and value; all must hold.
    pub dimensions: Vec<(String, String)>,
    /// Dimension and the values of which it must have one, whatever the client asks for; all must hold.
    pub granted: BTreeMap<String, BTreeSet<String>>,
}

impl LiveFilter {
    #[must_use]
    pub fn wants(&self, update: &Update) -> bool {
        let key = &update.key;
        key.workspace == self.workspace
            && (self.metrics.is_empty() || self.metrics.contains(&key.metric))
            && self.grain.is_none_or(|grain| grain == update.grain)
            && self.dimensions.iter().all(|(name, value)| holds(key, name, value))
            && self
                .granted
                .iter()
                .all(|(name, values)| key.dimensions.get(name).is_some_and(|found| values.contains(found)))
    }

    /// # Errors
    /// 400: a metric that does not exist, or a derived one, which has no windows: it names those that it is made of.
    pub fn check_metrics(&self, catalog: &Catalog) -> Result<(), Problem> {
        for name in &self.metrics {
            let detail = match catalog.get(name).map(|metric| &metric.definition) {
                Some(Definition::Events(_)) => continue,
                Some(Definition::Derived(_)) => {
                    let parts: Vec<&str> = catalog.events_behind(name).into_iter().map(|(part, ..)| part).collect();
                    format!("`{name}` is derived: subscribe to {}", parts.join(", "))
                }
                None => format!("`{name}` is no metric of this workspace"),
            };
            return Err(Problem::field("metrics", detail));
        }
        Ok(())
    }

    /// # Errors
    /// 400: no such grain, or a filter without a colon.
    pub fn read(
        workspace: &str,
        metrics: impl IntoIterator<Item = String>,
        grain: Option<&str>,
        filters: impl IntoIterator<Item = String>,
    ) -> Result<Self, Problem> {
        let grain = match grain {
            None | Some("") => None,
            Some(name) => Some(Grain::from_name(name).ok_or_else(|| {
                Problem::field("grain", format!("`{name}` is not minute, quarter, hour, day, week or month"))
            })?),
        };
        let dimensions = filters.into_iter().map(|text| {
            let parts = text.split_once(':').map(|(name, value)| (name.to_owned(), value.to_owned()));
            parts.ok_or_else(|| Problem::field("filter", format!("`{text}` is not `dimension:value`")))
        });
        Ok(Self {
            workspace: workspace.to_owned(),
            metrics: metrics.into_iter().filter(|name| !name.is_empty()).collect(),
            grain,
            dimensions: dimensions.collect::<Result<_, _>>()?,
            granted: BTreeMap::new(),
        })
    }

    /// The same, of what the grant leaves.
    ///
    /// # Errors
    /// 403: a metric that it does not show.
    pub fn within(mut self, grant: &Grant, catalog: &Catalog) -> Result<Self, Problem> {
        if let Some(name) = self.metrics.iter().find(|name| !grant.shows(name)) {
            return Err(Problem::new(StatusCode::FORBIDDEN, format!("the token does not show `{name}`")));
        }
        if self.metrics.is_empty()
            && let Some(shown) = &grant.metrics
        {
            // Derived ones have no windows.
            let is_pushed = |name: &&String| {
                matches!(catalog.get(name).map(|metric| &metric.definition), Some(Definition::Events(_)))
            };
            self.metrics = shown.iter().filter(is_pushed).cloned().collect();
            // No name at all would mean every metric.
            if self.metrics.is_empty() {
                return Err(Problem::new(StatusCode::FORBIDDEN, "the token shows no metric that is pushed"));
            }
        }
        self.granted.clone_from(&grant.rows);
        Ok(self)
    }
}

/// An empty value asks for windows whose events had none.
fn holds(key: &MetricKey, name: &str, value: &str) -> bool {
    key.dimensions.get(name).is_some_and(|found| found == value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::value::RawValue;

    use super::*;

    fn update(workspace: &str, metric: &str, dimensions: &[(&str, &str)]) -> Update {
        let dimensions = dimensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let key = MetricKey { workspace: workspace.to_owned(), metric: metric.to_owned(), series: 0, dimensions };
        let json: Arc<RawValue> = RawValue::from_string("{}".to_owned()).unwrap().into();
        Update { partition: 0, offset: 0, key, grain: Grain::Minute, json }
    }

    fn wants(filter: &LiveFilter, dimensions: &[(&str, &str)]) -> bool {
        filter.wants(&update("acme", "clicks", dimensions))
    }

    #[test]
    fn a_token_sees_the_rows_that_it_is_granted_and_no_others() {
        let grant = Grant {
            metrics: Some(["clicks".to_owned()].into()),
            rows: [("campaign".to_owned(), ["men".to_owned(), "all".to_owned()].into())].into(),
            ..Grant::whole("acme")
        };
        let ask = |filters: &[&str]| {
            let filters = filters.iter().map(|text| (*text).to_owned());
            LiveFilter::read("acme", [], None, filters).and_then(|filter| filter.within(&grant, &Catalog::new(&[])))
        };
        let filter = ask(&[]).unwrap();
        assert!(wants(&filter, &[("campaign", "men")]) && wants(&filter, &[("campaign", "all"), ("policy", "x")]));
        assert!(!wants(&filter, &[("campaign", "women")]), "another row");
        assert!(!wants(&filter, &[]), "a window of all rows");
        assert!(!filter.wants(&update("other", "clicks", &[("campaign", "men")])), "another workspace");
        assert!(!filter.wants(&update("acme", "impressions", &[("campaign", "men")])), "another metric");
        // What it asks for narrows, and never widens.
        let narrowed = ask(&["campaign:men"]).unwrap();
        assert!(wants(&narrowed, &[("campaign", "men")]) && !wants(&narrowed, &[("campaign", "all")]));
        let outside = ask(&["campaign:women"]).unwrap();
        assert!(!wants(&outside, &[("campaign", "women")]) && !wants(&outside, &[("campaign", "men")]));
        let refused = LiveFilter::read("acme", ["impressions".to_owned()], None, []).unwrap();
        let refused = refused.within(&grant, &Catalog::new(&[])).unwrap_err();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
    }
}
