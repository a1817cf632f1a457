"""No label is learnt before it was final: wild sales that may still change are not seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from freshet.stream.fold.batches import RawBatch
from freshet.stream.units import HOUR_MS
from tests.integration.test_learn import HOURS, NOW_MS, SKUS, Process, orders

START_MS = (NOW_MS // HOUR_MS - HOURS) * HOUR_MS
# A look a day, the first twelve hours after what was final at the training: of the second one the
# newest final hour is the last, and the next one would be seen if it were taken for final.
TRAINED_AT = 160
SOLD_UNTIL = TRAINED_AT + 12 + 24
# What took how long.
SECONDS = ("tune_s", "total_s", "guard_60000.s", "guard_86400000.s", "latency_ratio")


def wild(end: int) -> list[tuple[int, bytes | None]]:
    """Five hundred units of every item, where some ten are sold, half an hour before the newest.

    Its minute is over and its hour too, but neither is final: late sales still count.
    """
    at_ms = START_MS + (end - 1) * HOUR_MS - HOUR_MS // 2
    found: list[tuple[int, bytes | None]] = []
    for sku in range(SKUS):
        line: dict[str, Any] = {"sku": f"s{sku}", "region": "north", "unit_price": 2.0}
        line |= {"event_id": f"wild-{end}-{sku}", "event_time": at_ms, "quantity": 500}
        found.append((at_ms, json.dumps(line).encode()))
    return found


def usual() -> list[tuple[int, bytes | None]]:
    """What is sold after the training."""
    rest = orders(range(TRAINED_AT, SOLD_UNTIL))
    return list(zip(rest.timestamps_ms.tolist(), rest.values, strict=True))


@contextmanager
def opened(process: Process) -> Iterator[Shop]:
    """A shop whose process ends with it."""
    try:
        yield Shop(process)
    finally:
        if process.process is not None:
            process.process.kill()
            process.process.wait()


class Shop:
    """A shop that sells, and learns; its log goes on where it ended."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._offset = len(orders(range(TRAINED_AT)).values)
        process.prepare(range(TRAINED_AT))

    def sell(self, lines: Sequence[tuple[int, bytes | None]]) -> None:
        """All of it at once."""
        times, values = zip(*lines, strict=True)
        offsets = self._offset + np.arange(len(lines), dtype=np.int64)
        self._offset += len(lines)
        stamps = np.array(times, np.int64)
        batch = RawBatch(list(values), [None] * len(lines), stamps, offsets, self._offset)
        self.process.sell(batch)

    def weights(self) -> bytes:
        """Those that the request led to."""
        manifest = self.process.registry.find("r1")
        assert manifest is not None
        path = self.process.registry.path(manifest.version)
        return (path / "model.safetensors").read_bytes()

    def told(self, looks: int) -> dict[str, Any]:
        """What the gate saw, at the newest of so many looks."""
        gate = self.process.events_until("trial", count=looks)[-1].gate
        return {name: value for name, value in gate.items() if name not in SECONDS}


def test_sales_that_are_not_final_are_neither_learnt_nor_judged_on(
    mock_broker: str, redis_server: str, tmp_path: Path
) -> None:
    """Both shops sell wildly in an hour, one before it is judged by, one after."""
    seen = []
    for database, name in enumerate(("after", "before")):
        redis = f"{redis_server.rstrip('/')}/{database}"
        with opened(Process(mock_broker, redis, tmp_path / name)) as shop:
            if name == "before":
                shop.sell(wild(TRAINED_AT))
            shop.process.ask("r1")
            shop.process.start()
            first = shop.told(1)
            weights = shop.weights()
            if name == "after":
                shop.sell(wild(TRAINED_AT))
            shop.sell([*usual(), *(wild(SOLD_UNTIL) if name == "before" else [])])
            seen.append((first, shop.told(2), weights))
    after, before = seen
    assert after[1]["days"] == 2.0
    assert before[2] == after[2]
    assert before[:2] == after[:2]
