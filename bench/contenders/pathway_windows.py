"""Pathway: one tumbling window of a minute by item, in its own engine's memory."""

from __future__ import annotations

import os
import sys
from typing import Any

import pathway as pw
from stopwatch import Stopwatch


class Line(pw.Schema):
    event_time: int
    sku: str | None = pw.column_definition(default_value=None)
    region: str | None = pw.column_definition(default_value=None)
    quantity: float | None = pw.column_definition(default_value=None)
    lines: pw.Json | None = pw.column_definition(default_value=None)


def main(servers: str, orders: str, clicks: str, warm_up: int, total: int) -> None:
    watch = Stopwatch(warm_up, total)
    seen = {orders: 0, clicks: 0}
    settings = {"bootstrap.servers": servers, "group.id": f"bench-pathway-{os.getpid()}"}
    settings["auto.offset.reset"] = "earliest"
    for topic in (orders, clicks):
        records = pw.io.kafka.read(
            settings, topic=topic, format="json", schema=Line, autocommit_duration_ms=100
        )
        whole = records.filter(pw.this.lines.is_not_none())
        many = whole.select(pw.this.event_time, line=pw.this.lines).flatten(pw.this.line)
        many = many.select(
            pw.this.event_time,
            sku=pw.unwrap(pw.this.line["sku"].as_str()),
            region=pw.unwrap(pw.this.line["region"].as_str()),
            quantity=pw.unwrap(pw.this.line["quantity"].as_float()),
        )
        one = records.filter(pw.this.lines.is_none())
        one = one.select(
            pw.this.event_time,
            sku=pw.unwrap(pw.this.sku),
            region=pw.unwrap(pw.this.region),
            quantity=pw.coalesce(pw.this.quantity, 1.0),
        )
        lines = pw.Table.concat_reindex(one, many) if topic == orders else one
        window = pw.temporal.tumbling(duration=60_000)
        lines = lines.select(
            pw.this.event_time, pw.this.quantity, item=pw.this.sku + "|" + pw.this.region
        )
        sums = lines.windowby(lines.event_time, window=window, instance=lines.item).reduce(
            item=pw.this._pw_instance,
            start=pw.this._pw_window_start,
            total=pw.reducers.sum(pw.this.quantity),
        )
        pw.io.null.write(sums)

        def counted(
            key: Any, row: dict[str, Any], time: int, is_addition: bool, topic: str = topic
        ) -> None:
            if is_addition:
                watch.count(row["events"] - seen[topic])
                seen[topic] = row["events"]

        pw.io.subscribe(records.reduce(events=pw.reducers.count()), on_change=counted)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
