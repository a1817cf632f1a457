"""Mixed records on a real Kafka while ingest is killed: books and days as they were meant to be.

Two shops on one Kafka. One sends events: orders flat and nested under one map, bad lines, refunds,
junk, repeats, clicks in Avro by a Schema Registry, and old orders by `freshet history load` in
three orders of arrival, the loader being killed too. The other's orders are states that Debezium
tells. Ingest dies by SIGKILL at random moments while records come, and is run to the end. Then the
books, the letters and the days must be what was counted as records were made, and `freshet verify`
agrees.

Run: KAFKA_HOME=... python -m bench.what_comes_in [--records 200000] [--kills 5] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.mixed_log import (
    ARRIVALS,
    CLICK,
    SCHEMA_ID,
    START_MS,
    STEP_MS,
    Clicks,
    Expected,
    Orders,
    clicks_map,
    history,
    orders_map,
)
from bench.mixed_shop import BOOKS, PARTITIONS, Shop
from bench.mixed_states import States, states_map
from bench.report import write_result
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.layout import OUTCOMES
from freshet.stream.store.server import EmbeddedRedis
from tests.integration.messy_log import MessyRecord, publish
from tests.integration.shop import wait_for
from tests.stream.events.formats.fake_registry import FakeRegistry, serving

SHARES: Final = {"orders": 0.26, "clicks": 0.15, "history": 0.24, "states": 0.35}
PORTIONS: Final = len(ARRIVALS) + 1
MOMENT_S: Final = 0.03
PATIENCE_S: Final = 600.0


@dataclass
class Feed:
    """What is sent to a shop, portion by portion, and what must come of it."""

    shop: Shop
    expected: Expected
    portions: list[list[MessyRecord]]
    loads: dict[str, list[bytes]] = field(default_factory=dict)
    loader_killed_at: list[int] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(map(len, (*self.portions, *self.loads.values())))

    def send(self) -> None:
        """Live records, and between their portions the loads of history."""
        loads = list(self.loads.items())
        for number, portion in enumerate(self.portions):
            publish(self.shop.settings, portion)
            if number < len(loads):
                self._load(*loads[number], last=number == len(loads) - 1)

    def _load(self, arrival: str, lines: list[bytes], *, last: bool) -> None:
        """One load of history; the first time a loader is killed, and run again."""
        path = self.shop.folder / f"{arrival}.jsonl"
        path.write_bytes(b"\n".join(lines) + b"\n")
        words = ["history", "load", str(path), *([] if last else ["--more"])]
        if not last and not self.loader_killed_at:
            self._kill_loader(words)
        said = self.shop.run(*words)
        assert said.startswith("load "), said
        print(said.strip(), flush=True)

    def _kill_loader(self, words: list[str]) -> None:
        """By SIGKILL, once some of its records have come."""
        before = self.shop.log_records()
        with self.shop.start(*words) as child:
            while child.alive and self.shop.log_records() == before:
                pass
            child.process.kill()
        if child.process.returncode < 0:
            self.loader_killed_at.append(self.shop.log_records() - before)

    def settle(self) -> None:
        """Ends of history are skipped; what was sent twice is a duplicate by its sequence."""
        books, ends = self.expected.books, 2 * PARTITIONS if self.loads else 0
        books.update(read=ends, skipped=ends)
        again = self.shop.log_records() - books["read"]
        books.update(read=again, duplicate=again)


def events_feed(shop: Shop, rng: random.Random, records: int) -> Feed:
    """Orders and clicks as events, and three loads of old orders."""
    names, each = shop.settings.kafka.topics, round(records * SHARES["history"]) // len(ARRIVALS)
    orders = Orders(rng, names.orders, PARTITIONS)
    clicks = Clicks(rng, names.clicks, PARTITIONS)
    live = round(records * (SHARES["orders"] + SHARES["clicks"]))
    made = []
    for number in range(live):
        topic = clicks if rng.random() * live < records * SHARES["clicks"] else orders
        made.append(topic.record(number, START_MS + number * STEP_MS))
    expected = Expected()
    expected += orders.expected
    expected += clicks.expected
    loads = {}
    for place, arrival in enumerate(ARRIVALS):
        loads[arrival], old = history(orders, live + place * each, each, arrival)
        expected += old
    return Feed(shop, expected, in_portions(made), loads)


def states_feed(shop: Shop, rng: random.Random, records: int) -> Feed:
    """Orders as states."""
    states = States(rng, shop.settings.kafka.topics.orders, PARTITIONS)
    made: list[MessyRecord] = []
    while len(made) < records * SHARES["states"]:
        made += states.records(len(made), START_MS + len(made) * STEP_MS)
    return Feed(shop, states.expected, in_portions(made))


FEEDS: Final[dict[str, Callable[[Shop, random.Random, int], Feed]]] = {
    "events": events_feed,
    "states": states_feed,
}


def sections_of(shop: str, registry_url: str) -> dict[str, Any]:
    """What a shop's file of settings says."""
    if shop == "states":
        return {"events": {"orders": states_map()}}
    return {
        "kafka": {"registry": {"url": registry_url}},
        "events": {"orders": orders_map(), "clicks": clicks_map()},
        "windows": {"history_before": START_MS},
    }


def in_portions(made: list[MessyRecord]) -> list[list[MessyRecord]]:
    size = -(-len(made) // PORTIONS)
    return [made[start : start + size] for start in range(0, len(made), size)]


def storm(feed: Feed, kills: int, rng: random.Random) -> list[int]:
    """Send everything, kill ingest so often while it works, run it to the end; when it died."""
    killed_at: list[int] = []
    shop = feed.shop
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(feed.send)
        for moment in sorted(rng.uniform(0.02, 0.85) for _ in range(kills)):
            least = max(moment * feed.total, shop.books()["read"] + 1)
            if least > feed.total:  # Of a short log nothing may be left.
                break
            killed_at.append(killed(shop, least, rng.uniform(0, MOMENT_S)))
            print(f"{time.strftime('%H:%M:%S')} killed at {killed_at[-1]}", flush=True)
        if not sending.done():
            with shop.start("ingest"):
                sending.result()
        sending.result()
    shop.run("ingest", "--until-end")
    return killed_at


def killed(shop: Shop, least: float, more_s: float) -> int:
    """Ingest dies a moment after it has read so much; what it had read then."""
    child = shop.start("ingest")
    wait_for(lambda: not child.alive or shop.books()["read"] >= least, PATIENCE_S)
    time.sleep(more_s)
    assert child.alive, (shop.folder / "processes.log").read_text("utf-8")[-4_000:]
    child.process.kill()
    child.process.wait()
    return shop.books()["read"]


def judged(feed: Feed, kills: int, killed_at: list[int]) -> dict[str, Any]:
    """What is there, beside what should be."""
    shop, expected = feed.shop, feed.expected
    feed.settle()
    books, days = shop.books(), shop.days()
    wanted = Counter({cell: amount for cell, amount in expected.cells.items() if amount})
    report = json.loads(shop.run("verify", "--json"))
    letters, dead = shop.letters(), books["dead_letter"] + books["lines_dead"]
    holds = {
        "killed_at_work": len(killed_at) == kills and max(killed_at, default=0) < books["read"],
        "books_balance": books["read"] == sum(books[name] for name in OUTCOMES),
        "books_as_meant": all(books[name] == expected.books[name] for name in BOOKS),
        "days_as_meant": days == wanted,
        "verify_agrees": report["agrees"] and report["records"] == books["read"],
        "letters_complete": letters == {"dead_letter": dead, "late_dropped": books["late_dropped"]},
    }
    print_books(shop.folder.name, books, expected.books)
    wrong = [
        {"cell": cell, "stored": days[cell], "meant": wanted[cell]}
        for cell in sorted({*days, *wanted})
        if days[cell] != wanted[cell]
    ]
    kept = ("records", "cells", "differences", "log_missing", "shown")
    return {
        "records": books["read"],
        "ingest_killed_at": killed_at,
        "loader_killed_at": feed.loader_killed_at,
        "books": dict(books),
        "days_compared": len(wanted),
        "days_wrong": wrong[:20],
        "verify": {name: report[name] for name in kept},
        "holds": holds,
    }


def print_books(shop: str, books: Counter[str], meant: Counter[str]) -> None:
    """read = applied + duplicate + late_dropped + dead_letter + skipped."""
    sums = " + ".join(f"{name} {books[name]}" for name in OUTCOMES)
    print(f"{shop}: read {books['read']} = {sums}")
    print(f"  beside: lines_dead {books['lines_dead']}, conflicting {books['conflicting']}")
    for name in BOOKS:
        if books[name] != meant[name]:
            print(f"  {name}: {books[name]} in the books, {meant[name]} meant")


def measure(records: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Both shops on servers of their own, each with a database of its own."""
    found: dict[str, Any] = {}
    with ExitStack() as ends:
        kafka = RealKafka(Path(os.environ["KAFKA_HOME"]), folder / "kafka")
        ends.callback(kafka.stop)
        store = EmbeddedRedis(folder / "redis")
        ends.callback(store.stop)
        registry = ends.enter_context(serving(FakeRegistry()))
        registry.add(SCHEMA_ID, "AVRO", json.dumps(CLICK))
        for number, (name, feed_of) in enumerate(FEEDS.items()):
            servers = kafka.bootstrap_servers, f"{store.url.removesuffix('/0')}/{number}"
            shop = Shop(servers, folder / name, sections_of(name, registry.url))
            began_s, rng = time.monotonic(), random.Random(f"{seed} {name}")
            feed = feed_of(shop, rng, records)
            found[name] = judged(feed, kills, storm(feed, kills, rng))
            found[name]["seconds"] = round(time.monotonic() - began_s, 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=5, help="of each shop's ingest")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", default="", help="a folder for the logs; it must be new")
    parser.add_argument("--dry", action="store_true", help="write no result file")
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        place = Path(asked.keep or folder)
        found = measure(asked.records, asked.kills, asked.seed, place)
    result = {"asked": vars(asked), **found}
    if asked.dry:
        print(json.dumps(result, indent=2))
    else:
        packages = ["confluent-kafka", "redis", "fastavro", "freshet"]
        print(write_result("what_comes_in", result, packages).read_text("utf-8"))
    wrong = [
        f"{shop}: {name}" for shop in found for name, so in found[shop]["holds"].items() if not so
    ]
    print(f"violated: {wrong}" if wrong else "held")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
