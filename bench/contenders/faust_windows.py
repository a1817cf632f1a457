"""Faust: one tumbling window of a minute by item, in its own table in memory with a changelog
topic.
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import faust
from stopwatch import Stopwatch

servers, orders, clicks = sys.argv[1:4]
watch = Stopwatch(*map(int, sys.argv[4:6]))
sys.argv[1:] = ["worker", "-l", "error", "--without-web"]

app = faust.App(
    f"bench-faust-{os.getpid()}",
    datadir=tempfile.mkdtemp(),
    broker=f"kafka://{servers}",
    store="memory://",
    topic_partitions=4,
)
table = app.Table("windows", default=float, partitions=4).tumbling(60.0, expires=3_600.0)
windows = table.relative_to(lambda event: event.value["event_time"] / 1_000)


def item(record: dict[str, Any]) -> str:
    return f"{record['sku']}|{record['region']}"


@app.agent(app.topic(orders, value_serializer="json"))
async def take_orders(stream: faust.StreamT[Any]) -> None:
    async for order in stream:
        for line in order.get("lines") or [order]:
            windows[item(line)] += line["quantity"]
        watch.count()


@app.agent(app.topic(clicks, value_serializer="json"))
async def take_clicks(stream: faust.StreamT[Any]) -> None:
    async for click in stream:
        windows[item(click)] += 1
        watch.count()


if __name__ == "__main__":
    app.main()
