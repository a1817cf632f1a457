"""Quix Streams: one tumbling window of a minute by message key, in RocksDB with changelog topics,
exactly once.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from quixstreams import Application
from stopwatch import Stopwatch


def main(servers: str, orders: str, clicks: str, warm_up: int, total: int) -> None:
    watch = Stopwatch(warm_up, total)
    app = Application(
        broker_address=servers,
        consumer_group="bench-quix",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        state_dir=tempfile.mkdtemp(),
        loglevel="ERROR",
        topic_create_timeout=60,
    )
    for name in (orders, clicks):
        topic = app.topic(name, value_deserializer="json", timestamp_extractor=event_time)
        stream = app.dataframe(topic).apply(amount)
        stream = stream.update(lambda _: watch.count())
        stream.tumbling_window(60_000, grace_ms=900_000).sum().current()
    app.run()


def event_time(value: dict[str, Any], headers: Any, timestamp: float, kind: Any) -> int:
    return int(value["event_time"])


def amount(record: dict[str, Any]) -> float:
    if "session_id" in record:
        return 1.0
    return float(sum(line["quantity"] for line in record.get("lines") or [record]))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
