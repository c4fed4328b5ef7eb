//! Records of the contract as rows of the store.

use neonhub_schemas::access::KeyRecord;
use neonhub_schemas::control::DefinitionRecord;
use neonhub_schemas::record::NewRecord;
use serde_json::value::RawValue;

use super::{Row, StoreError, Table};

/// What is kept in the store and told on `control`.
pub trait Administered: Clone + Send + Sync + Sized + 'static {
    const TABLE: Table;

    fn revision(&self) -> u64;

    /// The record on `control`; its key names the resource there.
    fn to_control(&self) -> NewRecord;

    /// # Errors
    /// It has no JSON form, which does not happen.
    fn to_row(&self) -> Result<Row, serde_json::Error>;

    /// # Errors
    /// The body is no such record.
    fn from_row(row: Row) -> Result<Self, serde_json::Error>;

    /// The resource as the audit log names it.
    fn resource(&self) -> String;

    /// The resource as the audit log shows it: no secret, and no digest of one.
    ///
    /// # Errors
    /// It has no JSON form, which does not happen.
    fn to_audit(&self) -> Result<String, serde_json::Error>;

    fn workspace(&self) -> &str;

    fn updated_at(&self) -> i64;
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    RawValue::from_string(serde_json::to_string(value)?)
}

impl Administered for DefinitionRecord {
    const TABLE: Table = Table::MetricDefinitions;

    fn revision(&self) -> u64 {
        self.revision
    }

    fn to_control(&self) -> NewRecord {
        self.to_record()
    }

    fn to_row(&self) -> Result<Row, serde_json::Error> {
        Ok(Row {
            workspace: self.workspace.clone(),
            name: self.name.clone(),
            revision: self.revision,
            body: self.definition.as_ref().map(raw).transpose()?,
            updated_at: self.updated_at,
        })
    }

    fn from_row(row: Row) -> Result<Self, serde_json::Error> {
        Ok(Self {
            workspace: row.workspace,
            name: row.name,
            revision: row.revision,
            definition: row.body.map(|body| serde_json::from_str(body.get())).transpose()?,
            updated_at: row.updated_at,
        })
    }

    fn resource(&self) -> String {
        format!("metric/{}", self.name)
    }

    fn to_audit(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.definition)
    }

    fn workspace(&self) -> &str {
        &self.workspace
    }

    fn updated_at(&self) -> i64 {
        self.updated_at
    }
}

impl Administered for KeyRecord {
    const TABLE: Table = Table::AccessKeys;

    fn revision(&self) -> u64 {
        self.revision
    }

    fn to_control(&self) -> NewRecord {
        self.to_record()
    }

    fn to_row(&self) -> Result<Row, serde_json::Error> {
        Ok(Row {
            workspace: self.workspace.clone(),
            name: self.id.clone(),
            revision: self.revision,
            body: Some(raw(self)?),
            updated_at: self.updated_at,
        })
    }

    fn from_row(row: Row) -> Result<Self, serde_json::Error> {
        serde_json::from_str(row.body.as_deref().map_or("null", RawValue::get))
    }

    fn resource(&self) -> String {
        format!("key/{}", self.id)
    }

    fn to_audit(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&Self { digest: String::new(), ..self.clone() })
    }

    fn workspace(&self) -> &str {
        &self.workspace
    }

    fn updated_at(&self) -> i64 {
        self.updated_at
    }
}

/// # Errors
/// See [`StoreError::Damaged`].
pub fn read<R: Administered>(row: Row) -> Result<R, StoreError> {
    R::from_row(row).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As rows lay in the local store before there were other tables.
    #[test]
    fn a_row_of_the_first_version_is_read() {
        let text = r#"{"workspace":"acme","name":"orders","revision":2,"definition":{"source":"behavior","aggregation":"count"},
            "updated_at":"2019-11-24T00:00:00.000Z"}"#;
        let record: DefinitionRecord = read(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!((record.name.as_str(), record.revision, record.updated_at), ("orders", 2, 1_574_553_600_000));
        assert!(record.definition.is_some());
        let again: DefinitionRecord = read(record.to_row().unwrap()).unwrap();
        assert_eq!(again, record);
        let deleted =
            r#"{"workspace":"a","name":"b","revision":3,"definition":null,"updated_at":"2019-11-24T00:00:00.000Z"}"#;
        let deleted: DefinitionRecord = read(serde_json::from_str(deleted).unwrap()).unwrap();
        assert_eq!(deleted.definition, None);
    }
}
