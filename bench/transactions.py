"""What transactions cost: forecasts a second through the worker's publish path, with and without.

A real Kafka (KAFKA_HOME) and a real member of the worker group. 10,000 forecasts of 48 hours, as
the worker makes them, are encoded for log and table and committed in portions of 2,048 together
with the marks of four shards. Both ways take turns; a repetition is all 10,000. Forecasting itself
is left out, so the share of a whole round is smaller.

Run: KAFKA_HOME=... python -m bench.transactions [--items 10000] [--repetitions 9]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from bench.report import write_result
from freshet.online.forecast.context import Age
from freshet.online.forecast.publish import Numbers, Origin, forecast_records, significant
from freshet.online.worker.group import Membership
from freshet.online.worker.loop import PORTION
from freshet.online.worker.marks import Mark
from freshet.online.worker.outgoing import outgoing_forecasts
from freshet.online.worker.rounds import portions
from freshet.stream.config import Settings, load
from freshet.stream.health import Health
from freshet.stream.kafka import (
    AtLeastOnce,
    Commits,
    Delivery,
    ExactlyOnce,
    Publisher,
    ensure_topics,
    transactions,
)
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.process import Stop
from freshet.stream.schemas import WIRE_LEVELS, Compute, Forecast
from freshet.stream.units import HOUR_MS

STEPS = 48
SUM_STEPS = [1, 2, 3, 6, 12, 24, 48]
CUTOFF_MS = 480_000 * HOUR_MS
LONGEST_S = 60.0


def forecasts(num_items: int) -> list[Forecast]:
    """What a round of so many items publishes."""
    rng = np.random.default_rng(7)
    levels = np.sort(rng.gamma(2.0, 5.0, (num_items, STEPS, len(WIRE_LEVELS))), axis=2)
    sums = np.sort(rng.gamma(9.0, 9.0, (num_items, len(SUM_STEPS), len(WIRE_LEVELS))), axis=2)
    origin = Origin(
        resolution_ms=HOUR_MS,
        cutoff_ms=CUTOFF_MS,
        issued_at_ms=CUTOFF_MS + 5,
        weights_version="v0007-20260101T000000Z-0a1b2c3d",
        weights_sha256="ab" * 32,
        offsets={
            f"freshet.{name}.v1:{n}": 10**6 for name in ("orders", "clicks") for n in range(4)
        },
        series_by=("sku", "region"),
        degraded=False,
    )
    return forecast_records(
        [f"sku-{number:06d}|north" for number in range(num_items)],
        Numbers(significant(levels), significant(sums), SUM_STEPS),
        origin,
        age=Age(np.zeros(num_items, bool), np.zeros(num_items, bool)),
        context_sha256=["cd" * 32] * num_items,
        compute=Compute(device="cpu", dtype="float32", batch_shape=[256, 512]),
    )


def repetition(
    settings: Settings, membership: Membership, commits: Commits, records: list[Forecast]
) -> dict[str, float]:
    """Publish all of them; seconds of each part."""
    took_s = {"encode": 0.0, "commit": 0.0}
    cpu_s = time.process_time()
    for part in portions(len(records), PORTION):
        began_s = time.perf_counter()
        outgoing = outgoing_forecasts(settings.kafka.topics, records[part.start : part.stop])
        mark = Mark(CUTOFF_MS, part.stop, part.stop, len(records))
        encoded_s = time.perf_counter()
        moved = {shard: {HOUR_MS: mark} for shard in sorted(membership.shards)}
        assert commits.commit(outgoing, membership.offsets(moved))
        took_s["encode"] += encoded_s - began_s
        took_s["commit"] += time.perf_counter() - encoded_s
    return {**took_s, "cpu": time.process_time() - cpu_s, "all": sum(took_s.values())}


def joined(settings: Settings) -> Membership:
    """A member of the worker group with all shards."""
    membership = Membership(settings)
    deadline_s = time.monotonic() + LONGEST_S
    while len(membership.shards) < membership.num_shards:
        assert time.monotonic() < deadline_s, "nobody was assigned the shards"
        membership.poll(100)
    return membership


def measure(settings: Settings, num_items: int, repetitions: int) -> dict[str, Any]:
    """Both ways in turn, after a warm-up of each."""
    membership, health = joined(settings), Health(Stop(), "start")
    delivery = Delivery(Publisher(settings), health, CollectorRegistry())
    ways: dict[str, Commits] = {
        "exactly_once": ExactlyOnce(settings, "bench", membership, health),
        "at_least_once": AtLeastOnce(delivery, membership),
    }
    records = forecasts(num_items)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(repetitions + 1):
        for name, commits in ways.items():
            membership.poll(0)
            took = repetition(settings, membership, commits, records)
            if number:
                found[name].append(took)
    for commits in ways.values():
        commits.close()
    delivery.close()
    membership.close()
    return numbers(found, num_items)


def numbers(found: dict[str, list[dict[str, float]]], num_items: int) -> dict[str, Any]:
    """Seconds and forecasts a second of each way, and what one costs beside the other."""
    ways = {}
    for name, runs in found.items():
        seconds = {
            part: {
                "min": round(min(run[part] for run in runs), 4),
                "median": round(statistics.median(run[part] for run in runs), 4),
            }
            for part in runs[0]
        }
        rates = {kind: round(num_items / seconds["all"][kind]) for kind in ("min", "median")}
        ways[name] = {
            "seconds": seconds,
            "forecasts_a_second": {"best": rates["min"], "median": rates["median"]},
        }
    pairs = zip(found["exactly_once"], found["at_least_once"], strict=True)
    cost = statistics.median(1 - without["all"] / once["all"] for once, without in pairs)
    best = [min(run["all"] for run in found[name]) for name in ("exactly_once", "at_least_once")]
    return {
        **ways,
        "cost_median_of_pairs": round(cost, 3),
        "cost_of_best": round(1 - best[1] / best[0], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=9)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder, ExitStack() as ends:
        kafka = RealKafka(Path(os.environ["KAFKA_HOME"]), Path(folder) / "kafka")
        ends.callback(kafka.stop)
        settings = load(
            environ={"FRESHET_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        ).settings
        ensure_topics(settings, live=True)
        found = measure(settings, asked.items, asked.repetitions)
    value_bytes = round(
        statistics.mean(
            len(one.value or b"")
            for one in outgoing_forecasts(settings.kafka.topics, forecasts(50))
        )
    )
    result = {
        "items": asked.items,
        "portion": PORTION,
        "repetitions": asked.repetitions,
        "bytes_a_forecast": value_bytes,
        "transaction_timeout_ms": transactions.TRANSACTION_TIMEOUT_MS,
        **found,
    }
    print(write_result("transactions", result, ["confluent-kafka", "freshet"]).read_text())


if __name__ == "__main__":
    main()
