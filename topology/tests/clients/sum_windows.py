"""Adds up a metric's windows from the topic metrics.windows with the unmodified kafka-python, as a stream consumer of a data
team does that has no ClickHouse.

Usage: python sum_windows.py BROKERS TOPIC WORKSPACE METRIC GRAIN
  BROKERS  host:port,…
  TOPIC    metrics.windows, with the prefix that there may be
  GRAIN    minute, quarter, hour, day, week, month
(the Python that deploy/fetch-test-clients.sh prints as python=…)
Prints {"records": N, "windows": {"2025-03-01T00:00:00Z": {"count": …, "sum": "…"}, …}}: by the windows' start, all dimensions
added up, from the beginning to the end that the topic had when this began. Sums are exact decimals.
"""

import json
import sys
import time
from collections import defaultdict
from decimal import Decimal

from kafka import KafkaConsumer, TopicPartition

LIMIT_S = 60


def records(brokers, topic):
    """What is committed of every partition, from its beginning to its present end."""
    consumer = KafkaConsumer(
        bootstrap_servers=brokers.split(","), isolation_level="read_committed", enable_auto_commit=False
    )
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise SystemExit(f"there is no topic {topic}")
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        deadline = time.monotonic() + LIMIT_S
        # A transaction's end takes an offset of its own, so positions tell what has been read, not records.
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise SystemExit(f"not read to the end in {LIMIT_S} s: {ends}")
            for batch in consumer.poll(timeout_ms=500).values():
                yield from batch
    finally:
        consumer.close()


def main() -> int:
    if len(sys.argv) != 6:
        print("usage: python sum_windows.py BROKERS TOPIC WORKSPACE METRIC GRAIN", file=sys.stderr)
        return 2
    brokers, topic, workspace, metric, grain = sys.argv[1:]
    seen = 0
    # The key names a window's epoch; the newest revision replaces the others, and epochs add up.
    newest = {}
    for record in records(brokers, topic):
        seen += 1
        if record.value is None:
            newest.pop(record.key, None)
            continue
        window = json.loads(record.value)
        if (window["workspace"], window["metric"], window["grain"]) != (workspace, metric, grain):
            continue
        known = newest.get(record.key)
        if known is None or known["revision"] < window["revision"]:
            newest[record.key] = window
    windows = defaultdict(lambda: {"count": 0, "sum": Decimal(0)})
    for window in newest.values():
        total = windows[window["window_start"]]
        total["count"] += window["count"]
        total["sum"] += Decimal(window["sum"])
    print(json.dumps({"records": seen, "windows": dict(sorted(windows.items()))}, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
