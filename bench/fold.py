"""What one event costs the process that folds it: decode, judge, fold and encode, apply, in CPU
time.

Events are in memory and Redis is real, so this is ingest without Kafka. Four weeks of history of
one orders and one clicks partition are back-filled with minute, hour and day windows, then a live
stream runs at all four default resolutions in small batches. Run: python -m bench.fold
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bench.report import write_result
from freshet.stream.config import RedisSettings, Resolution, Settings, WindowSettings
from freshet.stream.events.decoder import EventKind
from freshet.stream.fold.batches import RawBatch
from freshet.stream.fold.partition import PartitionWindows
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import OUTCOMES, Answer
from freshet.stream.store.redis import WindowStore
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

START_MS = 1_700_000_000_000
REGIONS = ("north", "south", "east")
CLICKS = ("view", "view", "view", "cart", "favourite", "checkout")
WHOLE_ORDERS, DUPLICATES, LATE = 0.05, 0.05, 0.02
BACK_FILL = (
    Resolution(resolution_ms=MINUTE_MS, buckets=1_440),
    Resolution(resolution_ms=HOUR_MS, buckets=1_344),
    Resolution(resolution_ms=DAY_MS, buckets=800),
)


@dataclass(frozen=True)
class Run:
    """One line of the table."""

    name: str
    kind: EventKind
    events: int
    span_ms: int
    items: int
    batch: int
    resolutions: tuple[Resolution, ...]


@dataclass
class Stages:
    """CPU seconds by stage, from wrapping the calls that are the stages."""

    cpu_s: dict[str, float] = field(default_factory=dict)

    def wrap(self, owner: Any, name: str, stage: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + time.process_time() - started

        setattr(owner, name, timed)


def events(
    run: Run, seed: int = 1
) -> tuple[list[bytes | None], np.ndarray[Any, np.dtype[np.int64]]]:
    """A log in time order: zipf items, whole orders, duplicates, late events."""
    draw = random.Random(seed)
    rank = np.random.default_rng(seed).zipf(1.2, 2 * run.events) % max(run.items // len(REGIONS), 1)
    values: list[bytes | None] = []
    stamps = np.empty(run.events, np.int64)
    for n in range(run.events):
        stamps[n] = START_MS + n * run.span_ms // run.events
        if draw.random() < DUPLICATES and values:
            values.append(values[-draw.randrange(1, min(len(values), 50) + 1)])
            continue
        late_ms = HOUR_MS if draw.random() < LATE else draw.randrange(3_000)
        values.append(_event(run.kind, n, int(stamps[n]) - late_ms, rank[n], draw))
    return values, stamps


def _event(kind: EventKind, number: int, time_ms: int, rank: int, draw: random.Random) -> bytes:
    head = {"event_id": f"{number:012d}-{draw.getrandbits(32):08x}", "event_time": time_ms}
    head["region"] = draw.choice(REGIONS)
    if kind == "clicks":
        click = {
            "session_id": f"s{draw.getrandbits(40)}",
            "sku": f"sku-{rank:05d}",
            "kind": draw.choice(CLICKS),
        }
        return json.dumps(head | click).encode()
    count = draw.randrange(2, 5) if draw.random() < WHOLE_ORDERS else 1
    lines = [
        {
            "sku": f"sku-{rank + n:05d}",
            "quantity": draw.randrange(1, 4),
            "unit_price": round(draw.uniform(1, 90), 2),
        }
        for n in range(count)
    ]
    body: dict[str, Any] = lines[0] if count == 1 else {"lines": lines}
    return json.dumps(head | {"order_id": f"o{number}"} | body).encode()


def batches(
    values: list[bytes | None], stamps: np.ndarray[Any, np.dtype[np.int64]], size: int
) -> Iterator[RawBatch]:
    for start in range(0, len(values), size):
        end = min(start + size, len(values))
        chosen = values[start:end]
        yield RawBatch(chosen, [None] * len(chosen), stamps[start:end], np.arange(start, end), end)


def measure(run: Run, url: RedisSettings) -> dict[str, Any]:
    """CPU microseconds an event by stage; raises if the books do not balance."""
    client = connect(url)
    client.flushall()
    windows_settings = WindowSettings(resolutions=run.resolutions)
    settings = Settings(windows=windows_settings, redis=url)
    windows = PartitionWindows.claim(
        WindowStore(client, 0), run.kind, f"freshet.{run.kind}.v1", 0, settings
    )
    windows.start_at(0)
    values, stamps = events(run)
    stages = Stages()
    stages.wrap(windows._decoder, "decode", "decode")
    stages.wrap(windows._tiles, "fold", "fold_and_encode")
    stages.wrap(windows._store, "apply", "apply")
    started, wall = time.process_time(), time.perf_counter()
    for batch in batches(values, stamps, run.batch):
        assert windows.apply(windows.fold(batch)) is Answer.APPLIED
    cpu_s, wall_s = time.process_time() - started, time.perf_counter() - wall
    header = windows.header
    books = [getattr(header, name) for name in OUTCOMES]
    assert sum(books) == header.read == run.events, books
    stages.cpu_s["judge_and_rest"] = cpu_s - sum(stages.cpu_s.values())
    memory: dict[str, Any] = client.info("memory")
    client.close()
    return {
        "run": run.name,
        "events": run.events,
        "items": header.items,
        "batch": run.batch,
        "bytes_an_event": round(sum(len(value or b"") for value in values) / run.events),
        "applied": header.applied,
        "duplicate": header.duplicate,
        "late_dropped": header.late_dropped,
        "cpu_us_an_event": round(1e6 * cpu_s / run.events, 2),
        "wall_us_an_event": round(1e6 * wall_s / run.events, 2),
        "events_a_cpu_second": round(run.events / cpu_s),
        "stages_cpu_us": {
            name: round(1e6 * value / run.events, 2) for name, value in sorted(stages.cpu_s.items())
        },
        "redis_mib": round(memory["used_memory"] / 2**20, 1),
    }


def main() -> None:
    """Measure, print and write bench/results/fold.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000, help="events of each run")
    count: int = parser.parse_args().events
    live = WindowSettings().resolutions
    runs = [
        Run("back-fill of orders, 4 weeks", "orders", count, 28 * DAY_MS, 120, 20_000, BACK_FILL),
        Run("back-fill of clicks, 4 weeks", "clicks", count, 28 * DAY_MS, 120, 20_000, BACK_FILL),
        Run(
            "live clicks, 10,000 items, 20,000 a batch",
            "clicks",
            count,
            200_000,
            10_000,
            20_000,
            live,
        ),
        Run(
            "live clicks, 10,000 items, 1,000 a batch",
            "clicks",
            count,
            200_000,
            10_000,
            1_000,
            live,
        ),
    ]
    rows = []
    with TemporaryDirectory() as folder, EmbeddedRedis(Path(folder)) as server:
        for run in runs:
            rows.append(measure(run, RedisSettings(url=server.url)))
            print(json.dumps(rows[-1]))
    print(write_result("fold", {"runs": rows}, ["numpy", "msgspec", "redis", "xxhash"]))


if __name__ == "__main__":
    main()
