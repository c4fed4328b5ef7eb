//! Pure: no I/O, no clock, no async.
//!
//! The table of settings: what `neonhub settings` prints and the README shows.

/// One setting. In the environment its name is `NEONHUB_` and upper case.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub default: &'static str,
    pub is_secret: bool,
    pub about: &'static str,
}

const fn open(name: &'static str, default: &'static str, about: &'static str) -> Setting {
    Setting { name, default, is_secret: false, about }
}

const fn secret(name: &'static str, about: &'static str) -> Setting {
    Setting { name, default: "", is_secret: true, about }
}

pub const SETTINGS: &[Setting] = &[
    open("config", "neonhub.toml", "The settings file; read when it exists. Only in the environment."),
    open(
        "data_dir",
        "neonhub-data",
        "Folder of the embedded log, ClickHouse data, local store and workers' local state.",
    ),
    open("ingest_addr", "127.0.0.1:7001", "Where ingest listens."),
    open("api_addr", "127.0.0.1:7002", "Where the query API listens."),
    open("processors_addr", "127.0.0.1:7003", "Where processors answer health and metrics, with `run processors`."),
    open("clickhouse_addr", "127.0.0.1:8123", "Where the embedded ClickHouse front listens."),
    open("kafka_brokers", "", "host:port,… of a Kafka cluster; empty: the embedded log."),
    secret("kafka_properties", "librdkafka properties for all clients: name=value;name=value (security, SASL)."),
    secret("clickhouse_url", "http://user:password@host:8123 of a ClickHouse server; empty: the embedded front."),
    open("clickhouse_user", "", "User at ClickHouse; wins over the URL's."),
    secret("clickhouse_password", "Password at ClickHouse; wins over the URL's."),
    secret(
        "clickhouse_reader_password",
        "`neonhub migrate` makes the user neonhub_reader with it on a ClickHouse server, who reads the tables, within limits; \
         empty: none.",
    ),
    open("clickhouse_database", "neonhub", "Database of all tables."),
    open("clickhouse_cluster", "", "Cluster to create replicated tables on; empty: plain tables."),
    open("scylla_nodes", "", "host:port,… of ScyllaDB or Cassandra; empty: the local store."),
    open("scylla_keyspace", "neonhub", "Keyspace of all tables there."),
    open("query_cache_mb", "64", "MiB of answers to metric queries that a process of the query API keeps; 0: none."),
    open("query_cache_ms", "1000", "How old an answer about open time may be."),
    open(
        "query_cache_closed_ms",
        "60000",
        "How old an answer may be whose windows are all final: late events alone can change it.",
    ),
    secret(
        "redis_url",
        "redis://user:password@host:6379/0: where the processes of the query API share these answers; empty: each keeps its own.",
    ),
    open("topic_prefix", "", "In front of every topic, group and transactional id."),
    open("partitions", "4", "Partitions of the topics that scale; fixed when the topics are created."),
    open("replication", "1", "Replication factor of topics and keyspace that are created here."),
    open("instance", "0", "Names this process among others of its role; the same after a restart."),
    open("bootstrap_workspace", "default", "The workspace that the bootstrap keys open."),
    secret("bootstrap_write_key", "Write key for SDKs; long and random outside of a trial."),
    secret("bootstrap_api_key", "Bearer key for the query API; long and random outside of a trial."),
    secret(
        "bootstrap_webhook_secret",
        "whsec_… that providers sign webhooks with (Standard Webhooks); empty: no webhooks.",
    ),
    secret(
        "key_secret",
        "Keys that people make are recognised with it, 32 characters or more, the same for all roles and for good; empty: made \
         in the data folder by the embedded stack, else there are only the bootstrap keys.",
    ),
    open("requests_per_minute", "60000", "Quota of an API key, of each process of the query API; 0: none."),
    open("workspace_timezone", "UTC", "IANA zone of the workspace's hours, days, weeks and months."),
    open("allow_any_origin", "false", "true: browsers on any site may read the query API (with a key)."),
    open("api_origins", "", "https://dashboard.example,…: sites whose browsers may read the query API."),
    open("ingest_origins", "", "https://shop.example,…: sites whose browsers may send events; empty: any."),
    open("max_event_bytes", "32768", "Largest event."),
    open("max_batch_bytes", "512000", "Largest request body, as sent and after decompression."),
    open("max_batch_events", "10000", "Most events in one request."),
    open("events_per_second", "1000000", "Quota of a write key."),
    open("events_burst", "", "Events of a write key that may come at once; empty: two seconds' worth, at least 100."),
    open(
        "max_connections",
        "20000",
        "Open connections of ingest, and as many of the query API; less where the system allows fewer open files.",
    ),
    open("head_timeout_ms", "10000", "From the first byte of a request's head to its last."),
    open("stall_timeout_ms", "10000", "The longest pause of a client that sends a body or reads an answer."),
    open("idle_timeout_ms", "75000", "How long a connection is kept open for its next request."),
    open(
        "connections_per_address",
        "0",
        "Open connections of one IP address (of IPv6: one /64) at ingest, and as many at the query API; 0: any.",
    ),
    open(
        "requests_per_minute_per_address",
        "0",
        "Requests of one IP address (of IPv6: one /64) at ingest, and as many at the query API, of each process; 0: any.",
    ),
    open(
        "trusted_proxies",
        "",
        "10.0.0.0/8,…: proxies whose X-Forwarded-For says which address a request is from; empty: the connection's own.",
    ),
    open(
        "tls_certificate_file",
        "",
        "PEM: ingest and the query API speak TLS with this certificate and those that lead to its root; empty: plain HTTP.",
    ),
    open(
        "tls_key_file",
        "",
        "PEM: the key of that certificate, not encrypted. Both files are followed as they change.",
    ),
    open("workers", "1", "Threads of each processor in this process."),
    open("commit_interval_ms", "100", "The longest that processed records wait for their commit."),
    open("dedup_window_seconds", "3600", "A message id that comes again within this time is a retry."),
    open("out_of_orderness_seconds", "30", "How far behind the newest event time an event is not late yet."),
    open("landing_linger_ms", "400", "How long rows wait for others before they are inserted."),
    open("landing_rows", "100000", "Most records of one insert."),
    open("landing_inserts", "2", "Inserts of a landing's thread that run side by side."),
    open("max_metric_keys", "10000", "Keys of a metric in one window; the rest is counted under __other__."),
    open(
        "state_memory_mb",
        "512",
        "MiB of state that refine, and that metrics.merge, keeps in memory, all partitions; the rest waits on the local disk.",
    ),
    open("session_timeout_ms", "6000", "How long a Kafka group waits for a member that fell silent."),
    open("libchdb", "", "The file libchdb.so; empty: the one that set-up put into the cache."),
    open("cache_dir", "", "Where set-up puts what it fetches; empty: $XDG_CACHE_HOME/neonhub or ~/.cache/neonhub."),
    open("olap_connections", "4", "Statements that the embedded ClickHouse runs at one time."),
    open("log", "info,fjall=warn,lsm_tree=warn", "Log filter: info, debug, neonhub_processors=debug,…"),
    open(
        "otlp_endpoint",
        "",
        "http://host:4318 of an OpenTelemetry collector (OTLP over HTTP); empty: nothing is traced.",
    ),
    open(
        "trace_ratio",
        "0.01",
        "Of the requests without a traceparent, how many are traced: 0 to 1; those with one are as it says.",
    ),
    open("log_format", "human", "human or json."),
];

#[cfg(test)]
mod tests {
    use super::SETTINGS;

    #[test]
    fn the_readme_names_every_setting_with_its_default() {
        let readme = include_str!("../../../README.md");
        for setting in SETTINGS {
            let name = format!("`NEONHUB_{}`", setting.name.to_ascii_uppercase());
            let line = readme.lines().find(|line| line.starts_with(&format!("| {name}")));
            let line = line.unwrap_or_else(|| panic!("README.md does not name {name}"));
            assert!(line.contains(setting.default), "README.md: {name} has the default `{}`", setting.default);
        }
    }
}
