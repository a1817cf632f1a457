"""Bytewax: one tumbling window of a minute by item, in memory with snapshots to SQLite."""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import windowing as win
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from bytewax.testing import TestingSink
from stopwatch import Stopwatch

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Line = tuple[datetime, float]


def main(servers: str, orders: str, clicks: str, warm_up: int, total: int) -> None:
    watch = Stopwatch(warm_up, total)
    flow = Dataflow("bench")
    source = KafkaSource([servers], [orders, clicks], starting_offset=-2, batch_size=1_000)
    records = op.input("in", flow, source)

    def lines_of(message: Any) -> list[tuple[str, Line]]:
        watch.count()
        record = json.loads(message.value)
        at = datetime.fromtimestamp(record["event_time"] / 1_000, UTC)
        lines = record.get("lines") or [record]
        return [
            (f"{line['sku']}|{line['region']}", (at, line.get("quantity", 1))) for line in lines
        ]

    lines = op.flat_map("lines", records, lines_of)
    clock = win.EventClock(
        ts_getter=lambda line: line[0], wait_for_system_duration=timedelta(seconds=5)
    )
    windower = win.TumblingWindower(align_to=EPOCH, length=timedelta(minutes=1))
    sums = win.fold_window(
        "sum",
        lines,
        clock,
        windower,
        lambda: 0.0,
        lambda total, line: total + line[1],
        lambda a, b: a + b,
    )
    op.output("out", sums.down, TestingSink([]))
    folder = Path(tempfile.mkdtemp())
    init_db_dir(folder, 1)
    cli_main(
        flow, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(str(folder))
    )


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
