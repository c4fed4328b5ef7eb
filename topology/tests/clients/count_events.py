"""Counts a workspace's events with the unmodified clickhouse-connect, as a data team does.

Usage: python count_events.py HOST PORT WORKSPACE   (the Python that deploy/fetch-test-clients.sh prints as python=…)
Prints {"total": …, "distinct_message_ids": …, "by_kind": {"track": …, …}}; no FINAL: every event is there once.
"""

import json
import sys

import clickhouse_connect


def main() -> int:
    if len(sys.argv) != 4:
        print("usage: python count_events.py HOST PORT WORKSPACE", file=sys.stderr)
        return 2
    host, port, workspace = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    client = clickhouse_connect.get_client(host=host, port=port, database="neonhub")
    by_kind = client.query(
        "SELECT toString(kind) AS kind, count() AS events FROM neonhub.events"
        " WHERE workspace = {workspace:String} GROUP BY kind ORDER BY kind",
        parameters={"workspace": workspace},
    ).result_rows
    [(total, distinct_message_ids)] = client.query(
        "SELECT count(), uniqExact(message_id) FROM neonhub.events WHERE workspace = {workspace:String}",
        parameters={"workspace": workspace},
    ).result_rows
    print(json.dumps({"total": total, "distinct_message_ids": distinct_message_ids, "by_kind": dict(by_kind)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
