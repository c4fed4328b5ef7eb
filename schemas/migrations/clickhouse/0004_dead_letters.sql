-- What was refused, and why; a row a dead letter, kept for 90 days.
CREATE TABLE IF NOT EXISTS `{database}`.dead_letters {on_cluster}
(
    workspace LowCardinality(String),
    reason LowCardinality(String),
    detail String,
    field String,
    stage LowCardinality(String),
    place String,
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD),
    original String,
    encoding LowCardinality(String),
    original_size UInt64,
    partition UInt32,
    offset UInt64
)
ENGINE = {replicated}MergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (workspace, received_at, place)
TTL toDateTime(received_at) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000;
