"""Sends events with the unmodified segment-analytics-python, as a customer's server does, and prints what was sent.

Usage: python segment_python.py HOST WRITE_KEY COUNT   (the Python that deploy/fetch-test-clients.sh prints as python=…)
HOST is e.g. http://127.0.0.1:7001; the events take turns: track, page, identify, screen, group, alias.
Prints {"sent": [{"message_id": …, "kind": …, "name": …, …}, …]}, each event as it must be in the table `events`, with those
of its properties that must be there; exit code 1 if an event was not delivered.
"""

import json
import logging
import os
import sys
from datetime import datetime, timedelta, timezone

from segment.analytics import Client

FIRST_EVENT = datetime(2025, 5, 1, tzinfo=timezone.utc)

# What is given to the SDK for event number n, one event a second.
CALLS = [
    ("track", lambda n: {"event": "Order Completed", "properties": {"order_id": f"order-{n}", "revenue": 3.5, "country": "be"}}),
    ("page", lambda n: {"category": "Docs", "name": "Pricing", "properties": {"path": "/pricing", "n": n}}),
    ("identify", lambda n: {"traits": {"email": f"python-{n % 10}@shop.example", "plan": "pro"}}),
    ("screen", lambda n: {"name": "Checkout", "properties": {"step": n % 3}}),
    ("group", lambda n: {"group_id": f"company-{n % 3}", "traits": {"name": f"Company {n % 3}"}}),
    ("alias", lambda n: {"previous_id": f"visitor-{n}"}),
]


def row(kind, call):
    return {
        "message_id": call["message_id"],
        "kind": kind,
        "name": call.get("event") or call.get("name") or kind,
        "user_id": call["user_id"],
        "anonymous_id": call.get("anonymous_id", ""),
        "group_id": call.get("group_id", ""),
        "previous_id": call.get("previous_id", ""),
        "value": call.get("properties", {}).get("revenue"),
        "timestamp": call["timestamp"].isoformat(),
        "properties": call.get("properties") or call.get("traits") or {},
        "library": "analytics-python",
    }


def main() -> int:
    if len(sys.argv) != 4 or not sys.argv[3].isdigit():
        print("usage: python segment_python.py HOST WRITE_KEY COUNT", file=sys.stderr)
        return 2
    host, write_key, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # It logs each answer that is not a good one, which is what some tests are about.
    logging.disable(logging.CRITICAL)
    undelivered = []
    client = Client(
        write_key, host=host, max_retries=5, upload_size=20, gzip=True,
        on_error=lambda error, items: undelivered.append(f"{len(items)} events: {error}"),
    )
    sent = []
    for n in range(count):
        kind, fields = CALLS[n % len(CALLS)]
        call = {
            "user_id": f"user-{n % 10}",
            "message_id": f"segment-python-{os.getpid()}-{n}",
            "timestamp": FIRST_EVENT + timedelta(seconds=n),
            **fields(n),
        }
        if kind != "alias":
            call["anonymous_id"] = f"device-{n % 10}"
        is_queued, _ = getattr(client, kind)(**call)
        if not is_queued:
            undelivered.append(f"{call['message_id']}: the queue is full")
        sent.append(row(kind, call))
    client.shutdown()

    if undelivered:
        print(f"not delivered: {undelivered[0]}", file=sys.stderr)
    print(json.dumps({"sent": sent}))
    return 1 if undelivered else 0


if __name__ == "__main__":
    sys.exit(main())
