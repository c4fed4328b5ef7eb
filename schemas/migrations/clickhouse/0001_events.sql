-- Raw facts: each event once, so that count() needs no FINAL. `partition` and `offset` are its place in events.<source>.
CREATE TABLE IF NOT EXISTS `{database}`.events {on_cluster}
(
    workspace LowCardinality(String),
    message_id String,
    source Enum8('behavior' = 1, 'campaign' = 2, 'integration' = 3),
    kind LowCardinality(String),
    name LowCardinality(String),
    user_id String,
    anonymous_id String,
    group_id String,
    previous_id String,
    session_id String,
    campaign LowCardinality(String),
    platform LowCardinality(String),
    value Nullable(Decimal(38, 6)),
    timestamp DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    properties JSON,
    context JSON,
    partition UInt32,
    offset UInt64 CODEC(Delta, ZSTD)
)
ENGINE = {replicated}MergeTree
PARTITION BY toYYYYMM(timestamp)
ORDER BY (workspace, source, kind, timestamp, message_id)
SETTINGS non_replicated_deduplication_window = 10000;
