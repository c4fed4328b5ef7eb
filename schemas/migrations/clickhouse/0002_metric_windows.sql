-- One row an epoch of a window; the highest revision replaces the others. Readers merge the epochs.
-- Minutes are kept for 30 days and quarters and hours for 25 months after they last changed, whatever their own time.
CREATE TABLE IF NOT EXISTS `{database}`.metric_windows {on_cluster}
(
    workspace LowCardinality(String),
    metric LowCardinality(String),
    series UInt64,
    grain Enum8('minute' = 1, 'quarter' = 2, 'hour' = 3, 'day' = 4, 'week' = 5, 'month' = 6),
    zone LowCardinality(String),
    window_start DateTime('UTC') CODEC(Delta, ZSTD),
    window_end DateTime('UTC') CODEC(Delta, ZSTD),
    key String,
    dimensions Map(LowCardinality(String), String),
    epoch String,
    revision UInt64,
    final Bool,
    count UInt64,
    sum Decimal(38, 6),
    min Nullable(Decimal(38, 6)),
    max Nullable(Decimal(38, 6)),
    distinct String,
    distribution String,
    updated_at DateTime64(3, 'UTC')
)
ENGINE = {replicated}ReplacingMergeTree(revision)
PARTITION BY (grain, toYYYYMM(window_start))
ORDER BY (workspace, metric, series, grain, zone, window_start, key, epoch)
TTL toDateTime(updated_at) + INTERVAL 30 DAY DELETE WHERE grain = 'minute',
    toDateTime(updated_at) + INTERVAL 25 MONTH DELETE WHERE grain IN ('quarter', 'hour')
SETTINGS non_replicated_deduplication_window = 10000;
