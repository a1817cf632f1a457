"""Two workers are killed and put to sleep in turn, and a foreign client counts their forecasts.

A real Kafka (KAFKA_HOME), a real Redis, workers as processes, a shop whose hours pass every twelve
seconds. Every second hour, at a random moment around its rounds, one worker dies by SIGKILL (and is
started again) or sleeps for 14 s with a session of 6. A client that knows nothing of our code
reads what is committed: each (item, resolution, cutoff) must be there once, and each cutoff of each
shard complete, or named. The same with `worker.exactly_once = false` shows what is counted.

Run: KAFKA_HOME=... python -m bench.exactly_once [--seconds 600] [--without 180]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.report import write_result
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import HOUR_MS
from tests.integration.forecast_record import Account
from tests.integration.test_worker import START_MS
from tests.integration.worker_pair import WorkerPair, WorkerProcess

BEAT_S = 12.0
ASLEEP_S = 14.0
CALM_BEATS = 3
IN_A_ROUND = 0.75
ROUND_S = 0.5
MOMENT_S = 2.0  # after an hour has passed: windows are seen within a second, rounds take another
ITEMS = 160
MOST_LOST = 0.01


@dataclass
class Storm:
    """What is done to the workers of a shop, hour after hour."""

    pair: WorkerPair
    rng: random.Random
    done: Counter[str] = field(default_factory=Counter)
    took_s: dict[str, list[float]] = field(default_factory=lambda: {"calm": [], "hurt": []})
    calm_ms: list[int] = field(default_factory=list)

    def run(self, seconds: float) -> None:
        """Calm hours, then hurt ones for so long, then calm ones."""
        self.pair.start()
        self.pair.start()
        self.pair.wait_shared()
        for _ in range(CALM_BEATS):
            self._hour()
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self._hurt_hour()
        self.pair.wait_complete()
        for _ in range(CALM_BEATS):
            self._hour()

    def _hour(self) -> None:
        """An hour of which all forecasts must come."""
        began_s = time.monotonic()
        self.pair.shop.sell(1)
        self.calm_ms.append(self.pair.shop.now_ms)
        self.took_s["calm"].append(self.pair.wait_complete())
        self.pair.reader.read(max(began_s + BEAT_S - time.monotonic(), 0))

    def _hurt_hour(self) -> None:
        """Two hours: something happens in the first, and the second passes in any case."""
        began_s = time.monotonic()
        place = sum(self.done.values()) % 2
        kill = sum(self.done.values()) // 2 % 2 == 0
        self.pair.shop.sell(1)
        self._await_moment()
        worker = self.pair.workers[place]
        if kill:
            self.done["sigkill"] += 1
            worker.kill()
            self.pair.workers[place] = self.pair.start()
            self.pair.workers.pop()
        else:
            self.done["sigstop"] += 1
            worker.signal(signal.SIGSTOP)
        hurt_s = time.monotonic()
        hour = (self.pair.shop.now_ms - START_MS) // HOUR_MS
        print(
            f"{time.strftime('%H:%M:%S')} hour {hour}: worker {place}", dict(self.done), flush=True
        )
        self._watch(began_s + BEAT_S, worker, hurt_s)
        self.pair.shop.sell(1)
        self._watch(began_s + 2 * BEAT_S, worker, hurt_s)

    def _await_moment(self) -> None:
        """Mostly in the middle of the round that is due now, else around it."""
        newest_ms, forecasts = self.pair.shop.now_ms, self.pair.reader.found["forecasts"]
        if self.rng.random() < IN_A_ROUND:
            self.pair.wait(lambda: forecasts[-1]["cutoff_ms"] == newest_ms, "a round begins")
            time.sleep(self.rng.uniform(0, ROUND_S))
        else:
            time.sleep(self.rng.uniform(0, MOMENT_S))

    def _watch(self, until_s: float, worker: WorkerProcess, hurt_s: float) -> None:
        began_s, complete = time.monotonic(), False
        while time.monotonic() < until_s:
            self.pair.reader.read(0.1)
            if time.monotonic() >= hurt_s + ASLEEP_S:
                worker.signal(signal.SIGCONT)
            if not complete and self.pair.all_complete():
                complete = True
                self.took_s["hurt"].append(time.monotonic() - began_s)


def measure(seconds: float, seed: int, keep: str = "", **over: str) -> dict[str, Any]:
    """One storm on servers of its own, and what was found after it."""
    with ExitStack() as ends:
        folder = Path(keep or ends.enter_context(TemporaryDirectory()))
        kafka = RealKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka")
        ends.callback(kafka.stop)
        redis = EmbeddedRedis(folder / "redis")
        ends.callback(redis.stop)
        pair = WorkerPair(kafka.bootstrap_servers, redis.url, folder, "storm", items=ITEMS, **over)
        ends.callback(pair.close)
        storm = Storm(pair, random.Random(seed))
        storm.run(seconds)
        return numbers(storm, pair.account())


def numbers(storm: Storm, found: Account) -> dict[str, Any]:
    """Counts as they are reported."""
    lost = found.incomplete + found.skipped
    calm = {(place, at_ms) for place, at_ms in lost if at_ms in storm.calm_ms}
    return {
        **storm.done,
        "forecasts": found.forecasts,
        "twice": len(found.twice),
        "cutoffs": found.cutoffs,
        "complete": len(found.complete),
        "incomplete": len(found.incomplete),
        "skipped": len(found.skipped),
        "lost_share": round(found.lost_share, 4),
        "lost_in_calm": len(calm),
        "lost_at_hours": sorted({(at_ms - START_MS) // HOUR_MS for _, at_ms in lost}),
        "disagreements": found.faults[:20],
        "complete_after_s": {
            name: {"median": round(sorted(some)[len(some) // 2], 2), "max": round(max(some), 2)}
            for name, some in storm.took_s.items()
            if some
        },
    }


def violated(found: dict[str, Any]) -> list[str]:
    """What must not be, and is."""
    wrong = [name for name in ("twice", "disagreements", "lost_in_calm") if found[name]]
    return wrong + (["lost_share"] if found["lost_share"] > MOST_LOST else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--without", type=float, default=180.0, help="seconds without transactions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", default="", help="a folder for the logs of the first storm")
    asked = parser.parse_args()
    found = measure(asked.seconds, asked.seed, asked.keep)
    without = {}
    if asked.without:
        without = measure(asked.without, asked.seed, FRESHET_WORKER__EXACTLY_ONCE="false")
    result = {"items": ITEMS, "exactly_once": found, "without_transactions": without}
    print(write_result("exactly_once", result, ["confluent-kafka", "redis", "freshet"]).read_text())
    wrong = violated(found)
    print(f"violated: {wrong}" if wrong else "held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
