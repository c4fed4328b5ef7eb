//! The benches that `make bench` runs, on little, each finding its own result right.

use crate::stack::{Backbone, Stack};

pub fn run() {
    let stack = Stack::start(Backbone::Kafka);
    let on_kafka = [
        "ingest --batch 10 --events 2000",
        "ingest --batch 1 --events 500",
        "refine --events 20000",
        "metrics --events 20000",
        "metrics --builtin --events 20000",
        "skew --events 20000",
        "workers --events 20000",
        "landing --events 20000",
        "restore --windows 20000",
        "latency --warm-up 0 --seconds 2",
    ];
    let embedded = [
        "query --days 2 --rounds 1",
        "viewers --days 2 --viewers 2 --seconds 1",
        "embedded --events 2000",
        "latency --to clickhouse --warm-up 0 --seconds 2",
        "memory --windows 20000 --days 1",
    ];
    // Of the embedded stack's own, beside which it has nothing.
    let no_servers = [("NEONHUB_KAFKA_BROKERS", ""), ("NEONHUB_SCYLLA_NODES", "")];
    let all = on_kafka.iter().map(|bench| (bench, [].as_slice()));
    for (bench, settings) in all.chain(embedded.iter().map(|bench| (bench, no_servers.as_slice()))) {
        let arguments: Vec<&str> = ["bench"].into_iter().chain(bench.split(' ')).chain(["--json"]).collect();
        let (text, success) = stack.try_command_with(&arguments, settings);
        assert!(success && text.contains("\"right\":true"), "neonhub bench {bench}: {text}");
    }
}
