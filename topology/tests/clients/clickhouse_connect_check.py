"""Checks the OLAP front with the official Python client. Argument: the base URL, with the user and password of a writer.
Exits 0 when all is right."""

import logging
import sys
import uuid
from datetime import datetime, timezone
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError

# The client logs a stream that breaks off, which is what one check is about.
logging.disable(logging.CRITICAL)
TABLE = "clickhouse_connect_check"


def check(name, seen, expected):
    if seen != expected:
        raise SystemExit(f"FAIL {name}: saw {str(seen)[:500]}, expected {str(expected)[:500]}")
    print(f"ok   {name}")


def fails(name, code, call):
    try:
        call()
    except DatabaseError as error:
        check(name, f"code: {code}" in str(error) or f"Code: {code}" in str(error), True)
        return
    raise SystemExit(f"FAIL {name}: no error")


def main():
    url = urlsplit(sys.argv[1])

    def connect(**options):
        return clickhouse_connect.get_client(
            host=url.hostname, port=url.port, username=url.username, password=url.password, **options
        )

    client = connect()
    check("version", int(client.server_version.split(".")[0]) >= 25, True)
    client.command("CREATE DATABASE IF NOT EXISTS neonhub")
    client = connect(database="neonhub")
    check("database", client.command("SELECT currentDatabase()"), "neonhub")
    check("ping", client.ping(), True)

    client.command(f"DROP TABLE IF EXISTS {TABLE}")
    client.command(
        f"CREATE TABLE {TABLE} (id UInt64, name String, at DateTime64(3, 'UTC'), tags Array(String), score Nullable(Float64),"
        " kind LowCardinality(String), properties JSON) ENGINE = MergeTree ORDER BY id"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    columns = ["id", "name", "at", "tags", "score", "kind", "properties"]
    at = datetime(2024, 3, 10, 1, 2, 3, 456000, tzinfo=timezone.utc)
    rows = [[n, f"it's \\ \n\t{n}", at, ["a", f"b'{n}"], None if n % 2 else n / 4, "k", {"n": n}] for n in range(5000)]
    # The client gives UTC times without a zone.
    expected = [[*row[:2], at.replace(tzinfo=None), *row[3:]] for row in rows]
    for compress in (False, "lz4", "zstd", "gzip"):
        client.command(f"TRUNCATE TABLE {TABLE}")
        with connect(database="neonhub", compress=compress) as each:
            summary = each.insert(TABLE, rows, column_names=columns)
            check(f"insert, compression {compress}", summary.written_rows, 5000)
            result = each.query(f"SELECT * FROM {TABLE} ORDER BY id")
            check(f"rows, compression {compress}", [list(row) for row in result.result_rows], expected)

    for attempt in range(2):
        client.insert(TABLE, rows[:3], column_names=columns, settings={"insert_deduplication_token": "once"})
    check("deduplication token", client.command(f"SELECT count() FROM {TABLE}"), 5003)

    values = {"name": rows[7][1], "ids": [7, 8], "at": at, "table": TABLE}
    found = client.query(
        "SELECT id FROM {table:Identifier} WHERE name = {name:String} AND id IN {ids:Array(UInt64)}"
        " AND at = {at:DateTime64(3, 'UTC')}",
        parameters=values,
    )
    check("parameters", found.result_rows, [(7,)])
    names = client.query("SELECT {names:Array(String)}", parameters={"names": ["it's", "a\\b"]})
    check("array of strings", names.result_rows, [(["it's", "a\\b"],)])

    settings = {"max_block_size": 1000, "max_threads": 1}
    check("setting", client.command("SELECT getSetting('max_block_size')", settings=settings), 1000)
    check("setting is gone", client.command("SELECT getSetting('max_block_size')") != 1000, True)

    with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(300000)", settings=settings) as stream:
        total = sum(row[0] for block in stream for row in block)
    check("streaming", total, 300000 * 299999 // 2)
    check("empty result", client.query("SELECT number FROM numbers(0)").result_rows, [])
    check("no rows, only names", client.query("SELECT 1 AS one, 'x' AS two LIMIT 0").column_names, ("one", "two"))
    check("raw query", client.raw_query("SELECT 1", fmt="CSV"), b"1\n")
    client.raw_insert(TABLE, ["id", "name"], "900001,raw\n", fmt="CSV")
    check("raw insert", client.command(f"SELECT name FROM {TABLE} WHERE id = 900001"), "raw")

    fails("unknown table", 60, lambda: client.query("SELECT * FROM no_such_table"))
    fails("syntax error", 62, lambda: client.query("SELEC 1"))
    fails("unknown database", 81, lambda: connect(database="no_such_database").query("SELECT 1"))

    def read_until_failure():
        sql = "SELECT throwIf(number = 250000, 'midway') FROM numbers(300000)"
        with client.query_row_block_stream(sql, settings=settings) as failing:
            for _ in failing:
                pass

    fails("an error midway", 395, read_until_failure)

    with connect(database="neonhub", session_id=str(uuid.uuid4())) as session:
        session.command("CREATE TEMPORARY TABLE kept (n UInt8)")
        session.command("SET max_threads = 3")
        session.insert("kept", [[1], [2]], column_names=["n"])
        check("temporary table", session.command("SELECT sum(n) FROM kept", settings={"max_threads": 1}), 3)
        check("session setting", session.command("SELECT getSetting('max_threads')"), 3)

    from clickhouse_connect.driver.external import ExternalData

    external = ExternalData(file_name="given", data=b"1\n2\n", fmt="CSV", structure="n UInt8")
    check("external data", client.query("SELECT sum(n) FROM given", external_data=external).result_rows, [(3,)])

    if sys.version_info >= (3, 11):
        frame = client.query_df(f"SELECT id, name FROM {TABLE} WHERE id < 10 ORDER BY id")
        check("data frame", list(frame["id"]), sorted([*range(10), 0, 1, 2]))
        client.insert_df(TABLE, frame.head(1).assign(id=900002, name="framed"))
        check("inserted data frame", client.command(f"SELECT name FROM {TABLE} WHERE id = 900002"), "framed")
    client.command(f"DROP TABLE {TABLE}")


main()
