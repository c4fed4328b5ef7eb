//! Settings of the query API. `topology` reads them from the environment; nothing here does.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::http::HeaderValue;
use neonhub_schemas::window::{Calendar, CalendarError};

use crate::cache::CacheConfig;

/// A Bearer key and the workspace it opens.
#[derive(Clone)]
pub struct ApiKey {
    pub workspace: String,
    pub key: String,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("workspace", &self.workspace).field("key", &"***").finish()
    }
}

/// Origins as in RFC 6454: `https://dashboard.example`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// None but the API's own.
    #[default]
    None,
    Named(Vec<HeaderValue>),
    Any,
}

/// Everything the routes need to know.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    pub keys: Vec<ApiKey>,
    /// IANA zone of a workspace, where it is not `default_zone`. It must be the one the metric windows are stored in.
    pub workspace_zones: BTreeMap<String, String>,
    pub default_zone: String,
    /// Largest request body, in bytes.
    pub body_limit: usize,
    /// Requests a minute of one key, all of which may come at once; 0: no limit.
    pub requests_per_minute: u32,
    /// Pages that may read answers (a dashboard on another host).
    pub origins: Origins,
    /// Most rows of one metric query: windows × groups.
    pub max_rows: usize,
    /// How long a query may take before 504.
    pub query_timeout: Duration,
    /// Updates that a live client may fall behind before it is sent to replay from the log.
    pub live_buffer: usize,
    /// Live clients at one time.
    pub max_live_clients: usize,
    /// Comments that keep idle live connections open.
    pub heartbeat: Duration,
    pub cache: CacheConfig,
    /// How often the store and `control` are compared.
    pub reconcile_interval: Duration,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            workspace_zones: BTreeMap::new(),
            default_zone: "UTC".to_owned(),
            body_limit: 1024 * 1024,
            requests_per_minute: 60_000,
            origins: Origins::None,
            max_rows: 50_000,
            query_timeout: Duration::from_secs(60),
            live_buffer: 4_096,
            max_live_clients: 10_000,
            heartbeat: Duration::from_secs(15),
            cache: CacheConfig::default(),
            reconcile_interval: Duration::from_secs(60),
        }
    }
}

impl ApiConfig {
    #[must_use]
    pub fn zone_of(&self, workspace: &str) -> &str {
        self.workspace_zones.get(workspace).unwrap_or(&self.default_zone)
    }

    /// # Errors
    /// A zone is no IANA zone.
    pub fn check(&self) -> Result<(), CalendarError> {
        self.workspace_zones.values().chain([&self.default_zone]).try_for_each(|zone| Calendar::new(zone).map(drop))
    }

    /// One workspace `acme` with the key `secret`, nothing that waits for long, and no cache.
    #[must_use]
    pub fn for_testing() -> Self {
        Self {
            keys: vec![ApiKey { workspace: "acme".to_owned(), key: "secret".to_owned() }],
            query_timeout: Duration::from_secs(5),
            live_buffer: 64,
            cache: CacheConfig { bytes: 0, ..CacheConfig::default() },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked_and_zones_are_checked() {
        let config = ApiConfig::for_testing();
        assert!(!format!("{config:?}").contains("secret"));
        assert!(config.check().is_ok());
        assert!(ApiConfig { default_zone: "Mars/Olympus".into(), ..config }.check().is_err());
    }
}
