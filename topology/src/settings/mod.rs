//! Settings: a TOML file and the environment, read here and nowhere else.
//!
//! Every setting is one line of [`table::SETTINGS`]; `NEONHUB_X` in the environment wins over `x` in the file. A value that
//! cannot be worked with ends the start with the setting's name, its value (secrets masked) and what would do.

mod kept;
mod parse;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderValue;
use neonhub_api::Origins;
use neonhub_api::cache::redis::RedisCache;
use neonhub_schemas::access::KeySecret;

pub use kept::kept_secret;
pub use parse::{SettingError, Values};
pub use table::{SETTINGS, Setting};

use crate::serving::{ClientLimits, ConnectionLimits, TlsFiles};

/// What the process was told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub ingest_addr: SocketAddr,
    pub api_addr: SocketAddr,
    pub processors_addr: SocketAddr,
    pub log: LogSettings,
    pub traces: TraceSettings,
    pub backbone: BackboneSettings,
    pub clickhouse: ClickHouseSettings,
    pub store: StoreSettings,
    pub cache: CacheSettings,
    pub access: AccessSettings,
    pub limits: LimitSettings,
    /// Of ingest, and of the query API.
    pub connections: ConnectionLimits,
    /// Of one address, at each of both.
    pub clients: ClientLimits,
    /// Of both; `None`: plain HTTP.
    pub tls: Option<TlsFiles>,
    pub processing: ProcessingSettings,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub filter: String,
    pub json: bool,
}

#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Of an OpenTelemetry collector; `None`: nothing is traced.
    pub endpoint: Option<String>,
    /// Of traces that begin here, how many are told of: 0 to 1.
    pub ratio: f64,
}

#[derive(Clone)]
pub struct BackboneSettings {
    /// Empty: the embedded log.
    pub kafka_brokers: String,
    pub kafka_properties: BTreeMap<String, String>,
    pub topic_prefix: String,
    pub partitions: u32,
    pub replication: u32,
    /// Names this process among others of its role; the same after a restart.
    pub instance: String,
}

impl std::fmt::Debug for BackboneSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackboneSettings")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("topic_prefix", &self.topic_prefix)
            .field("partitions", &self.partitions)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct ClickHouseSettings {
    /// Where the embedded front listens.
    pub front_addr: SocketAddr,
    /// Of a real server; `None`: the embedded front.
    pub url: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Of the user who reads a server's tables; `None`: there is none.
    pub reader_password: Option<String>,
    pub database: String,
    pub cluster: Option<String>,
    pub libchdb: Option<PathBuf>,
    pub connections: usize,
}

impl std::fmt::Debug for ClickHouseSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseSettings")
            .field("front_addr", &self.front_addr)
            .field("url", &self.url)
            .field("user", &self.user)
            .field("database", &self.database)
            .finish_non_exhaustive()
    }
}

/// Who writes through the embedded front.
const EMBEDDED_WRITER: &str = "neonhub";

impl ClickHouseSettings {
    /// Where ClickHouse answers.
    #[must_use]
    pub fn effective_url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("http://{}", self.front_addr))
    }

    /// User and password of whoever writes: those of the settings; for the embedded front, where there are none,
    /// `neonhub` and a password that is kept beside its data.
    ///
    /// # Errors
    /// The data folder cannot be used.
    pub fn writer(&self, data_dir: &Path) -> anyhow::Result<(Option<String>, Option<String>)> {
        if self.url.is_some() {
            return Ok((self.user.clone(), self.password.clone()));
        }
        let user = self.user.clone().unwrap_or_else(|| EMBEDDED_WRITER.to_owned());
        let password = match &self.password {
            Some(password) => password.clone(),
            None => kept_secret(&data_dir.join("clickhouse-password"))?,
        };
        Ok((Some(user), Some(password)))
    }
}

#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Empty: the local store.
    pub scylla_nodes: Vec<String>,
    pub scylla_keyspace: String,
}

#[derive(Clone)]
pub struct CacheSettings {
    /// Of answers in memory.
    pub bytes: u64,
    /// Of answers about open and about closed time.
    pub open: Duration,
    pub closed: Duration,
    /// `None`: no cache is shared.
    pub redis_url: Option<String>,
}

impl std::fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheSettings")
            .field("bytes", &self.bytes)
            .field("open", &self.open)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
pub struct AccessSettings {
    pub workspace: String,
    pub write_key: Option<String>,
    pub api_key: Option<String>,
    pub webhook_secret: Option<String>,
    /// Under which the keys that people make are recognised.
    pub key_secret: Option<KeySecret>,
    /// Of an API key.
    pub requests_per_minute: u32,
    pub timezone: String,
    pub api_origins: Origins,
    /// Empty: any.
    pub ingest_origins: Vec<String>,
}

impl std::fmt::Debug for AccessSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessSettings")
            .field("workspace", &self.workspace)
            .field("timezone", &self.timezone)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct LimitSettings {
    pub max_event_bytes: usize,
    pub max_batch_bytes: usize,
    pub max_batch_events: usize,
    pub events_per_second: u32,
    pub burst: u32,
}

#[derive(Clone, Debug)]
pub struct ProcessingSettings {
    pub workers: u32,
    pub commit_interval: Duration,
    pub dedup_window: Duration,
    pub out_of_orderness: Duration,
    pub landing_linger: Duration,
    pub landing_rows: usize,
    pub landing_inserts: usize,
    pub max_keys: u32,
    /// State of refine in memory, and as much of metrics.merge; each over all partitions.
    pub state_memory_bytes: usize,
    pub session_timeout: Duration,
}

fn redis_url(values: &Values, url: String) -> Result<String, SettingError> {
    match RedisCache::new(&url) {
        Ok(_) => Ok(url),
        Err(error) => {
            Err(values.wrong("redis_url", format!("it must be like redis://user:password@host:6379/0 ({error})")))
        }
    }
}

impl Settings {
    /// Reads the process's environment and the file that it names.
    ///
    /// # Errors
    /// A setting cannot be worked with.
    #[expect(clippy::disallowed_methods, reason = "the only reader of the environment")]
    pub fn from_process() -> Result<(Self, Values), SettingError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        let values = Values::read(environment)?;
        Ok((Self::from_values(&values)?, values))
    }

    /// # Errors
    /// A setting cannot be worked with.
    pub fn from_values(values: &Values) -> Result<Self, SettingError> {
        let url = values.url("clickhouse_url")?;
        let (url, user, password) = url.map_or((None, None, None), |url| (Some(url.base), url.user, url.password));
        let settings = Self {
            data_dir: values.path("data_dir").unwrap_or_else(|| PathBuf::from("neonhub-data")),
            ingest_addr: values.address("ingest_addr")?,
            api_addr: values.address("api_addr")?,
            processors_addr: values.address("processors_addr")?,
            log: LogSettings {
                filter: values.text("log"),
                json: values.one_of("log_format", &["human", "json"])? == "json",
            },
            traces: TraceSettings { endpoint: values.collector("otlp_endpoint")?, ratio: values.ratio("trace_ratio")? },
            backbone: BackboneSettings {
                kafka_brokers: values.text("kafka_brokers"),
                kafka_properties: values.pairs("kafka_properties")?,
                topic_prefix: values.matching("topic_prefix", "letters, digits, `.`, `_` and `-`", |byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
                })?,
                partitions: values.number("partitions", 1, 1_000)?,
                replication: values.number("replication", 1, 15)?,
                instance: values.matching("instance", "letters, digits and `-`", |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'-'
                })?,
            },
            clickhouse: ClickHouseSettings {
                front_addr: values.address("clickhouse_addr")?,
                url,
                user: values.optional("clickhouse_user").or(user),
                password: values.optional("clickhouse_password").or(password),
                reader_password: values.secret("clickhouse_reader_password")?,
                database: values.matching("clickhouse_database", "letters, digits and `_`", |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_'
                })?,
                cluster: values.optional("clickhouse_cluster"),
                libchdb: values.path("libchdb"),
                connections: values.number("olap_connections", 1, 64)?,
            },
            store: StoreSettings {
                scylla_nodes: values.list("scylla_nodes"),
                scylla_keyspace: values.matching("scylla_keyspace", "letters, digits and `_`", |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_'
                })?,
            },
            cache: CacheSettings {
                bytes: values.number::<u64>("query_cache_mb", 0, 1_000_000)? << 20,
                open: Duration::from_millis(values.number("query_cache_ms", 0, 3_600_000)?),
                closed: Duration::from_millis(values.number("query_cache_closed_ms", 0, 86_400_000)?),
                redis_url: values.optional("redis_url").map(|url| redis_url(values, url)).transpose()?,
            },
            access: AccessSettings {
                workspace: values.checked("bootstrap_workspace", "1 to 64 of a-z, 0-9, `-` and `_`", |text| {
                    neonhub_schemas::ids::is_workspace_name(text)
                })?,
                write_key: values.secret("bootstrap_write_key")?,
                api_key: values.secret("bootstrap_api_key")?,
                webhook_secret: values.secret("bootstrap_webhook_secret")?,
                key_secret: values
                    .optional("key_secret")
                    .map(|text| KeySecret::new(&text).map_err(|error| values.wrong("key_secret", error.to_string())))
                    .transpose()?,
                requests_per_minute: values.number("requests_per_minute", 0, u32::MAX)?,
                timezone: values.checked("workspace_timezone", "an IANA time zone, like Europe/Berlin", |text| {
                    neonhub_schemas::window::Calendar::new(text).is_ok()
                })?,
                api_origins: if values.one_of("allow_any_origin", &["false", "true"])? == "true" {
                    Origins::Any
                } else {
                    match values.origins("api_origins")? {
                        origins if origins.is_empty() => Origins::None,
                        origins => Origins::Named(
                            origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect(),
                        ),
                    }
                },
                ingest_origins: values.origins("ingest_origins")?,
            },
            limits: LimitSettings {
                max_event_bytes: values.number("max_event_bytes", 1_024, 900_000)?,
                max_batch_bytes: values.number("max_batch_bytes", 1_024, 64 * 1024 * 1024)?,
                max_batch_events: values.number("max_batch_events", 1, 1_000_000)?,
                events_per_second: values.number("events_per_second", 1, u32::MAX)?,
                burst: match values.optional("events_burst") {
                    Some(_) => values.number("events_burst", 1, u32::MAX)?,
                    None => values.number::<u32>("events_per_second", 1, u32::MAX)?.saturating_mul(2).max(100),
                },
            },
            connections: ConnectionLimits {
                max_open: values.number("max_connections", 10, 10_000_000)?,
                head_timeout: Duration::from_millis(values.number("head_timeout_ms", 100, 3_600_000)?),
                stall_timeout: Duration::from_millis(values.number("stall_timeout_ms", 100, 3_600_000)?),
                idle_timeout: Duration::from_millis(values.number("idle_timeout_ms", 100, 86_400_000)?),
                ..ConnectionLimits::default()
            },
            clients: ClientLimits {
                connections: values.number("connections_per_address", 0, 10_000_000)?,
                requests_per_minute: values.number("requests_per_minute_per_address", 0, u32::MAX)?,
                trusted_proxies: values.networks("trusted_proxies")?,
            },
            tls: match (values.path("tls_certificate_file"), values.path("tls_key_file")) {
                (Some(certificate), Some(key)) => Some(TlsFiles { certificate, key }),
                (None, None) => None,
                (Some(_), None) => {
                    return Err(
                        values.wrong("tls_key_file", "NEONHUB_TLS_CERTIFICATE_FILE is set, which needs its key")
                    );
                }
                (None, Some(_)) => {
                    return Err(values
                        .wrong("tls_certificate_file", "NEONHUB_TLS_KEY_FILE is set, which needs its certificate"));
                }
            },
            processing: ProcessingSettings {
                workers: values.number("workers", 1, 256)?,
                commit_interval: Duration::from_millis(values.number("commit_interval_ms", 1, 60_000)?),
                dedup_window: Duration::from_secs(values.number("dedup_window_seconds", 1, 7 * 86_400)?),
                out_of_orderness: Duration::from_secs(values.number("out_of_orderness_seconds", 0, 86_400)?),
                landing_linger: Duration::from_millis(values.number("landing_linger_ms", 0, 60_000)?),
                landing_rows: values.number("landing_rows", 1, 10_000_000)?,
                landing_inserts: values.number("landing_inserts", 1, 64)?,
                max_keys: values.number("max_metric_keys", 1, 10_000_000)?,
                state_memory_bytes: values.number::<usize>("state_memory_mb", 1, 1_000_000)? << 20,
                session_timeout: Duration::from_millis(values.number("session_timeout_ms", 6_000, 300_000)?),
            },
        };
        Ok(settings)
    }

    #[must_use]
    pub fn is_embedded_log(&self) -> bool {
        self.backbone.kafka_brokers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, SettingError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings::from_values(&Values::read(pairs)?)
    }

    #[test]
    fn defaults_are_the_embedded_stack_on_loopback() {
        let settings = read(&[]).unwrap();
        assert!(settings.is_embedded_log());
        assert_eq!(settings.ingest_addr.to_string(), "127.0.0.1:7001");
        assert_eq!(settings.clickhouse.effective_url(), "http://127.0.0.1:8123");
        // An empty value is no value.
        assert!(read(&[("NEONHUB_TOPIC_PREFIX", ""), ("NEONHUB_KAFKA_BROKERS", "")]).unwrap().is_embedded_log());
    }

    #[test]
    fn wrong_values_are_named_with_what_would_do() {
        let error = read(&[("NEONHUB_INGEST_ADDR", "localhost")]).unwrap_err().to_string();
        assert!(error.contains("NEONHUB_INGEST_ADDR") && error.contains("`localhost`"), "{error}");
        let error = read(&[("NEONHUB_WORKSPACE_TIMEZONE", "Mars/Olympus")]).unwrap_err().to_string();
        assert!(error.contains("IANA"), "{error}");
        let error = read(&[("NEONHUB_BOOTSTRAP_WRITE_KEY", "se:cret")]).unwrap_err().to_string();
        assert!(error.contains("NEONHUB_BOOTSTRAP_WRITE_KEY") && !error.contains("se:cret"), "{error}");
        assert!(read(&[("NEONHUB_PARTITIONS", "0")]).is_err());
    }

    #[test]
    fn origins_are_named_or_any() {
        let origins = |pairs: &[(&str, &str)]| read(pairs).map(|settings| settings.access.api_origins);
        assert_eq!(origins(&[]).unwrap(), Origins::None);
        assert_eq!(origins(&[("NEONHUB_ALLOW_ANY_ORIGIN", "true")]).unwrap(), Origins::Any);
        let named = origins(&[("NEONHUB_API_ORIGINS", "https://a.example, http://b.example:8080")]).unwrap();
        let expected = ["https://a.example", "http://b.example:8080"].map(HeaderValue::from_static);
        assert_eq!(named, Origins::Named(expected.into()));
        for wrong in ["a.example", "https://a.example/", "https://", "*"] {
            assert!(read(&[("NEONHUB_INGEST_ORIGINS", wrong)]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn proxies_are_networks_or_addresses() {
        let clients = read(&[("NEONHUB_TRUSTED_PROXIES", "10.0.0.0/8, fd00::1")]).unwrap().clients;
        let expected = ["10.0.0.0/8", "fd00::1/128"].map(|network| network.parse().unwrap());
        assert_eq!(clients, ClientLimits { trusted_proxies: expected.into(), ..ClientLimits::default() });
        let error = read(&[("NEONHUB_TRUSTED_PROXIES", "10.0.0.0/33")]).unwrap_err().to_string();
        assert!(error.starts_with("NEONHUB_TRUSTED_PROXIES = `10.0.0.0/33`"), "{error}");
    }

    #[test]
    fn a_certificate_comes_with_its_key() {
        let (certificate, key) = (("NEONHUB_TLS_CERTIFICATE_FILE", "/c.pem"), ("NEONHUB_TLS_KEY_FILE", "/k.pem"));
        assert_eq!(read(&[]).unwrap().tls, None);
        let files = TlsFiles { certificate: "/c.pem".into(), key: "/k.pem".into() };
        assert_eq!(read(&[certificate, key]).unwrap().tls, Some(files));
        for (given, missing) in [(certificate, key.0), (key, certificate.0)] {
            let error = read(&[given]).unwrap_err().to_string();
            assert!(error.starts_with(missing), "{error}");
        }
    }

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "from-a-file\n").unwrap();
        let file = ("NEONHUB_BOOTSTRAP_API_KEY_FILE", path.to_str().unwrap());
        assert_eq!(read(&[file]).unwrap().access.api_key.as_deref(), Some("from-a-file"));
        let both = [file, ("NEONHUB_BOOTSTRAP_API_KEY", "from-the-environment")];
        assert_eq!(read(&both).unwrap().access.api_key.as_deref(), Some("from-the-environment"));
        let error = read(&[("NEONHUB_BOOTSTRAP_API_KEY_FILE", "/nowhere/key")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere/key"), "{error}");
        assert!(read(&[("NEONHUB_DATA_DIR_FILE", "/nowhere/key")]).is_ok(), "not for what is no secret");
    }

    #[test]
    fn a_short_key_secret_is_refused_and_not_shown() {
        let error = read(&[("NEONHUB_KEY_SECRET", "hunter2")]).unwrap_err().to_string();
        assert!(error.contains("NEONHUB_KEY_SECRET") && error.contains("32") && !error.contains("hunter2"), "{error}");
        let settings = read(&[("NEONHUB_KEY_SECRET", "hunter2-hunter2-hunter2-hunter2-hunter2")]).unwrap();
        assert!(settings.access.key_secret.is_some() && !format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn the_shared_cache_is_named_by_a_url_that_is_never_shown() {
        let settings = read(&[("NEONHUB_REDIS_URL", "redis://:hunter2@cache:6379/1")]).unwrap();
        assert!(settings.cache.redis_url.is_some() && !format!("{settings:?}").contains("hunter2"));
        for url in ["cache:6379", "rediss://:hunter2@cache:6379", "http://:hunter2@cache"] {
            let error = read(&[("NEONHUB_REDIS_URL", url)]).unwrap_err().to_string();
            assert!(error.starts_with("NEONHUB_REDIS_URL") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn credentials_leave_the_url_and_are_never_shown() {
        let settings = read(&[("NEONHUB_CLICKHOUSE_URL", "http://writer:hun%40ter2@ch:8123")]).unwrap();
        assert_eq!(settings.clickhouse.effective_url(), "http://ch:8123");
        assert_eq!(settings.clickhouse.password.as_deref(), Some("hun@ter2"));
        assert!(!format!("{settings:?}").contains("hun@ter2"));
        let error = read(&[("NEONHUB_CLICKHOUSE_URL", "ftp://writer:hunter2@ch")]).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
