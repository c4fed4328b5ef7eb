//! What stands behind the ports, chosen by the settings: Kafka or the embedded log, Scylla or the local store.

mod backbone;
mod clickhouse;
mod http;
mod kafka_admin;

pub use backbone::Backbone;
pub use clickhouse::{
    api_config, applied_migrations_of, check_version, clickhouse_server, inserters, landing_config, migrate,
};
pub use http::{blocking_http_client, http_client};
pub use kafka_admin::{TopicReport, TopicWork, check_or_create_topics};

use std::sync::Arc;
use std::time::Duration;

use neonhub_api::store::Store;
use neonhub_api::store::scylla::{ScyllaConfig, ScyllaStore};

use crate::embedded::store::LocalStore;
use crate::settings::Settings;

/// The operational store.
///
/// # Errors
/// It does not answer, or its folder cannot be used.
pub async fn operational_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if settings.store.scylla_nodes.is_empty() {
        let folder = settings.data_dir.join("store");
        std::fs::create_dir_all(&folder)?;
        return Ok(Arc::new(LocalStore::open(&folder)?));
    }
    let config = ScyllaConfig {
        nodes: settings.store.scylla_nodes.clone(),
        keyspace: settings.store.scylla_keyspace.clone(),
        replication_factor: settings.backbone.replication,
        request_timeout: Duration::from_secs(10),
    };
    Ok(Arc::new(ScyllaStore::connect(&config).await?))
}
