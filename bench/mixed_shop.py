"""A shop of its own for a bench: its settings, topics and processes, and what they have written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import redis

from bench.mixed_log import Cell
from freshet.stream.child import Child
from freshet.stream.config import load
from freshet.stream.kafka import consumer, ensure_topics, log_range
from freshet.stream.kafka.topics import dead_letter_topic
from freshet.stream.store.layout import OUTCOMES
from freshet.stream.units import DAY_MS, HOUR_MS
from tests.integration.shop import environ_for, read, store_of
from tests.integration.test_ingest_kill import places, stored

PARTITIONS: Final = 3
BOOKS: Final = ("read", *OUTCOMES, "lines_dead", "conflicting")
OVER: Final = {
    "FRESHET_KAFKA__PARTITIONS": str(PARTITIONS),
    # Small batches, so that there are many moments between two effects.
    "FRESHET_INGEST__BATCH_MAX_RECORDS": "250",
    # Much of these logs is meant to be lost.
    "FRESHET_INGEST__MAX_LOST_SHARE": "1",
    # A busy machine is no fault.
    "FRESHET_KAFKA__REQUEST_TIMEOUT_MS": "20000",
    "FRESHET_REDIS__TIMEOUT_MS": "20000",
    "OMP_NUM_THREADS": "1",
}
WIDTHS: Final = [
    {"resolution_ms": HOUR_MS, "buckets": 1_344},
    {"resolution_ms": DAY_MS, "buckets": 800},
]
# Of units what was sold in the end; verify compares the others.
COUNTED: Final = {"units": ("net", 1), "returns": ("net", -1)}
NOT_COUNTED: Final = ("revenue", "orders")


def toml(value: Any) -> str:
    """A value in TOML, tables inline.

    >>> toml({"a.b": [1, "x"], "c": {"d": True}})
    '{"a.b" = [1, "x"], "c" = {"d" = true}}'
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


class Shop:
    """A shop's settings, topics and processes."""

    def __init__(self, servers: tuple[str, str], folder: Path, sections: dict[str, Any]) -> None:
        folder.mkdir()
        self.folder, self.config = folder, folder / "freshet.toml"
        sections.setdefault("windows", {})["resolutions"] = WIDTHS
        text = "".join(f"{name} = {toml(section)}\n" for name, section in sections.items())
        self.config.write_text(text, "utf-8")
        self.environ = environ_for(*servers, folder.name, **OVER)
        self.settings = load(self.config, self.environ).settings
        ensure_topics(self.settings, live=False)
        self._store, self._reader = store_of(self.settings), consumer(self.settings, "count")
        names = self.settings.kafka.topics
        self.places = [(t, n) for t in (names.orders, names.clicks) for n in range(PARTITIONS)]

    def command(self, *words: str) -> list[str]:
        """A `freshet` command of this shop."""
        return [sys.executable, "-m", "freshet", *words, "--config", str(self.config)]

    def run(self, *words: str) -> str:
        """Run a command to its end; what it said."""
        environ = {**os.environ, **self.environ}
        done = subprocess.run(self.command(*words), env=environ, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout[-2_000:] + done.stderr[-4_000:]
        return done.stdout

    def start(self, *words: str) -> Child:
        """Run a command beside us."""
        log_file = self.folder / "processes.log"
        return Child(self.command(*words), log_file=log_file, environ=self.environ)

    def books(self) -> Counter[str]:
        """What is in the books of all partitions together."""
        books = Counter(dict.fromkeys(BOOKS, 0))
        headers = [self._store.header(*place) for place in self.places]
        for header in filter(None, headers):
            books.update({name: getattr(header, name) for name in BOOKS})
        return books

    def log_records(self) -> int:
        """How many records lie on the event topics."""
        return sum(log_range(self._reader, *place)[1] for place in self.places)

    def days(self) -> Counter[Cell]:
        """What the tiles of days hold, straight from Redis; of units what was sold in the end."""
        cells: Counter[Cell] = Counter()
        with redis.Redis.from_url(self.settings.redis.url.get_secret_value()) as client:
            for place in self.places:
                for (width_ms, day, item_id, channel), amount in stored(client, *place)[1].items():
                    what, sign = COUNTED.get(channel, (channel, 1))
                    if width_ms == DAY_MS and channel not in NOT_COUNTED:
                        cells[day, item_id, what] += sign * amount
        return Counter({cell: amount for cell, amount in cells.items() if amount})

    def letters(self) -> dict[str, int]:
        """Records on the topics of what was not used, those sent twice counted once."""
        topics = self.settings.kafka.topics
        dead, late = set(), set()
        for topic in (topics.orders, topics.clicks):
            for record in read(self.settings, dead_letter_topic(topic)):
                line = dict(record.headers).get("freshet-line")
                dead.add((*places(record, "freshet.error."), line))
        for record in read(self.settings, topics.late):
            late.add(places(record, "freshet.source."))
        return {"dead_letter": len(dead), "late_dropped": len(late)}
