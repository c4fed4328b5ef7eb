-- Who did what, when, to which resource. A change that was published twice has two rows with one id.
CREATE TABLE IF NOT EXISTS `{database}`.audit_log {on_cluster}
(
    workspace LowCardinality(String),
    id String,
    at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    actor String,
    action LowCardinality(String),
    resource String,
    revision UInt64,
    state String,
    partition UInt32,
    offset UInt64
)
ENGINE = {replicated}MergeTree
PARTITION BY toYear(at)
ORDER BY (workspace, at, id)
SETTINGS non_replicated_deduplication_window = 10000;
