-- From which offset on a metric definition counts, by partition of events.<source>.
CREATE TABLE IF NOT EXISTS `{database}`.metric_activations {on_cluster}
(
    workspace LowCardinality(String),
    metric LowCardinality(String),
    series UInt64,
    source Enum8('behavior' = 1, 'campaign' = 2, 'integration' = 3),
    partition UInt32,
    from_offset UInt64,
    until_offset Nullable(UInt64),
    definition String,
    position UInt64
)
ENGINE = {replicated}ReplacingMergeTree(position)
ORDER BY (workspace, metric, series, source, partition)
SETTINGS non_replicated_deduplication_window = 10000;
