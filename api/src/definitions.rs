//! Metric definitions: what may be taken, and how their windows are read.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::StatusCode;
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::metric::{Aggregation, Definition, DefinitionText, MetricKey, check_metric_name};

use crate::administration::{Administration, Change};
use crate::catalog::{Catalog, is_built_in};
use crate::problem::Problem;

/// What `If-Match` and `If-None-Match` ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    #[default]
    None,
    /// The definition has this revision.
    Revision(u64),
    /// There is one.
    Exists,
    /// There is none.
    Missing,
}

/// By workspace, metric and series.
type Aggregations = HashMap<(String, String, u64), Aggregation>;

pub struct Definitions {
    administration: Arc<Administration>,
    aggregations: RwLock<Aggregations>,
}

impl Definitions {
    #[must_use]
    pub fn new(administration: Arc<Administration>) -> Self {
        let built_in = Catalog::new(&[]);
        let mut aggregations = Aggregations::new();
        for metric in built_in.iter() {
            if let Definition::Events(events) = &metric.definition {
                aggregations.insert((String::new(), metric.name.clone(), 0), events.aggregation);
            }
        }
        Self { administration, aggregations: RwLock::new(aggregations) }
    }

    /// # Errors
    /// The store does not answer.
    pub async fn catalog(&self, workspace: &str) -> Result<Catalog, Problem> {
        let records = self.administration.list(workspace).await?;
        self.remember(&records);
        Ok(Catalog::new(&records))
    }

    /// # Errors
    /// 404, or the store does not answer.
    pub async fn get(&self, workspace: &str, name: &str) -> Result<DefinitionRecord, Problem> {
        let record: Option<DefinitionRecord> = self.administration.get(workspace, name).await?;
        record.filter(|record| record.definition.is_some()).ok_or_else(|| not_found(name))
    }

    /// How a series of windows is read. Definitions that another process took are known after the next
    /// reconciliation or query.
    #[must_use]
    pub fn aggregation(&self, key: &MetricKey) -> Option<Aggregation> {
        let known = self.aggregations.read().unwrap_or_else(PoisonError::into_inner);
        let workspace = if key.series == 0 { String::new() } else { key.workspace.clone() };
        known.get(&(workspace, key.metric.clone(), key.series)).copied()
    }

    fn remember(&self, records: &[DefinitionRecord]) {
        let mut known = self.aggregations.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            let checked = record.definition.as_ref().and_then(|text| text.check().ok());
            if let Some(Definition::Events(events)) = checked {
                let key = (record.workspace.clone(), record.name.clone(), record.revision);
                known.insert(key, events.aggregation);
            }
        }
    }

    /// Takes a definition. The same text again changes nothing and is published again if it has to be.
    ///
    /// # Errors
    /// 400 names the field; 409 for a built-in name or another writer at the same time; 412; 503.
    pub async fn put(
        &self,
        workspace: &str,
        name: &str,
        text: DefinitionText,
        precondition: Precondition,
        actor: &str,
    ) -> Result<(DefinitionRecord, StatusCode), Problem> {
        check_metric_name(name)?;
        if is_built_in(name) {
            return Err(Problem::new(StatusCode::CONFLICT, format!("`{name}` is built in and cannot be changed")));
        }
        let definition = text.check()?;
        let _changing = self.administration.begin_change().await;
        let records: Vec<DefinitionRecord> = self.administration.list(workspace).await?;
        let stored = records.iter().find(|record| record.name == name);
        check_precondition(name, stored, precondition)?;
        let catalog = Catalog::new(&records);
        if let Definition::Derived(expression) = &definition {
            catalog.check_derived(name, expression)?;
        }
        if let Some(stored) = stored.filter(|stored| stored.definition.as_ref() == Some(&text)) {
            // An earlier answer may have been lost between the store and `control`.
            self.administration.tell(stored, Change { actor, action: "definition.put" }).await?;
            return Ok((stored.clone(), StatusCode::OK));
        }
        let is_new = stored.is_none_or(|stored| stored.definition.is_none());
        let change = Change { actor, action: "definition.put" };
        let record = self.write(workspace, name, Some(text), stored, change).await?;
        Ok((record, if is_new { StatusCode::CREATED } else { StatusCode::OK }))
    }

    /// # Errors
    /// 404; 409 while a derived metric needs it, or with another writer at the same time; 412; 503.
    pub async fn delete(
        &self,
        workspace: &str,
        name: &str,
        precondition: Precondition,
        actor: &str,
    ) -> Result<(), Problem> {
        if is_built_in(name) {
            return Err(Problem::new(StatusCode::CONFLICT, format!("`{name}` is built in and cannot be deleted")));
        }
        let _changing = self.administration.begin_change().await;
        let records: Vec<DefinitionRecord> = self.administration.list(workspace).await?;
        let stored = records.iter().find(|record| record.name == name);
        check_precondition(name, stored, precondition)?;
        if stored.is_none_or(|stored| stored.definition.is_none()) {
            return Err(not_found(name));
        }
        let catalog = Catalog::new(&records);
        if let Some(dependent) = catalog.dependents(name).first() {
            let detail = format!("`{dependent}` is derived from `{name}`: delete or change it first");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        let change = Change { actor, action: "definition.delete" };
        self.write(workspace, name, None, stored, change).await.map(drop)
    }

    async fn write(
        &self,
        workspace: &str,
        name: &str,
        definition: Option<DefinitionText>,
        stored: Option<&DefinitionRecord>,
        change: Change<'_>,
    ) -> Result<DefinitionRecord, Problem> {
        let record = DefinitionRecord {
            workspace: workspace.to_owned(),
            name: name.to_owned(),
            revision: stored.map_or(0, |stored| stored.revision) + 1,
            definition,
            updated_at: self.administration.now_ms(),
        };
        self.administration.write(&record, change).await?;
        self.remember(std::slice::from_ref(&record));
        Ok(record)
    }

    /// Publishes what the store has and `control` lacks; returns how many.
    ///
    /// # Errors
    /// The store or the log does not answer.
    pub async fn reconcile(&self) -> Result<usize, Problem> {
        // Live windows are read with these, whether or not `control` answers.
        self.remember(&self.administration.list_all().await?);
        self.administration.reconcile::<DefinitionRecord>().await
    }
}

fn not_found(name: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("`{name}` is no metric of this workspace"))
}

fn check_precondition(
    name: &str,
    stored: Option<&DefinitionRecord>,
    precondition: Precondition,
) -> Result<(), Problem> {
    let current = stored.filter(|stored| stored.definition.is_some()).map(|stored| stored.revision);
    let holds = match precondition {
        Precondition::None => true,
        Precondition::Revision(revision) => current == Some(revision),
        Precondition::Exists => current.is_some(),
        Precondition::Missing => current.is_none(),
    };
    if holds {
        return Ok(());
    }
    let found = current.map_or_else(|| "does not exist".to_owned(), |revision| format!("has revision {revision}"));
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, format!("`{name}` {found}")))
}
