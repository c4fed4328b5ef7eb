"""Counts a workspace's events with the unmodified clickhouse-connect, as a data team does.

Usage: python count_events.py HOST PORT WORKSPACE   (the Python that deploy/fetch-test-clients.sh prints as python=…)
Prints {"total": …, "distinct_message_ids": …, "by_kind": {"track": …, …}, "fields": {…}}; no FINAL: every event is there
once. The fields are those that segment_node.mjs fills, one entry an event where they differ by event.
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
    fields = client.query(
        """
        SELECT
            toFloat64(sumIf(value, kind = 'track')) AS revenue,
            groupUniqArrayIf(name, kind = 'track') AS track_names,
            groupUniqArrayIf(toString(properties.country), kind = 'track') AS track_countries,
            groupUniqArrayIf(toString(properties.path), kind = 'page') AS page_paths,
            groupUniqArrayIf(name, kind = 'screen') AS screen_names,
            arraySort(groupUniqArrayIf(group_id, kind = 'group')) AS group_ids,
            uniqExactIf(previous_id, kind = 'alias') AS previous_ids,
            arraySort(groupUniqArray(user_id)) AS user_ids,
            groupUniqArray(toString(context.library.name)) AS libraries,
            toString(toDate(min(timestamp))) AS first_day,
            dateDiff('second', min(timestamp), max(timestamp)) AS seconds
        FROM neonhub.events WHERE workspace = {workspace:String}
        """,
        parameters={"workspace": workspace},
    )
    counts = {"total": total, "distinct_message_ids": distinct_message_ids, "by_kind": dict(by_kind)}
    print(json.dumps(counts | {"fields": fields.first_item}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
