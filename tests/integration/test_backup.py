"""The runbook's backup and restore, word for word, of a shop that goes on meanwhile."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from freshet.stream.config import Settings
from freshet.stream.kafka import Publisher, ensure_topics
from freshet.stream.kafka.servers import RealKafka
from freshet.stream.store.server import EmbeddedRedis
from freshet.stream.units import HOUR_MS
from freshet.stream.verify.verify import verify
from tests.integration import shop
from tests.integration.test_worker import (
    START_MS,
    eventually,
    forecasts,
    save_random_weights,
    settings_for,
)
from tests.integration.test_worker import running as worker_of

ROOT = Path(__file__).parents[2]
SKUS = [f"s{number}" for number in range(5)]
EVENTS_AN_HOUR = 25


def commands() -> list[str]:
    """The blocks of the page's section, in order."""
    page = (ROOT / "docs/runbook.md").read_text("utf-8")
    section = page.partition("\n## Backup and restore\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def sell(settings: Settings, hours: range) -> None:
    """So many orders an hour of each hour, stamped when they happened."""
    with Publisher(settings) as publisher:
        for hour in hours:
            for number in range(EVENTS_AN_HOUR):
                at_ms = START_MS + hour * HOUR_MS + number * HOUR_MS // EVENTS_AN_HOUR
                event = {"event_id": f"{hour}-{number}", "sku": SKUS[number % 5], "region": "-"}
                event |= {"event_time": at_ms, "quantity": 1 + hour % 3, "unit_price": 2}
                value = json.dumps(event).encode()
                publisher.produce(settings.kafka.topics.orders, value, key=b"k", timestamp_ms=at_ms)
        publisher.flush()


def forecast_to(settings: Settings, hour: int) -> None:
    """Until all items are forecast at the cutoff of an hour."""
    at_ms = START_MS + hour * HOUR_MS
    eventually(
        lambda: {one.item_id for one in forecasts(settings) if one.cutoff_ms == at_ms},
        lambda found: len(found) == len(SKUS),
    )


@contextmanager
def all_running(settings: Settings) -> Iterator[None]:
    with shop.running(settings), worker_of(settings):
        yield


class Place:
    """Where the servers keep their things, and what the page calls it."""

    def __init__(self, folder: Path) -> None:
        home = os.environ.get("KAFKA_HOME", "")
        if not home or shutil.which("redis-cli") is None:
            pytest.skip("there is no KAFKA_HOME, or no redis-cli on PATH")
        self.folder, self.home = folder, Path(home)
        self.kafka = RealKafka(self.home, folder / "kafka")
        self.redis = EmbeddedRedis(folder / "redis", append_only=True)
        self._ports = self.kafka.port, self.redis.port
        self.environ = os.environ | {
            "BACKUP": str(folder / "backup"),
            "KAFKA_LOG": str(folder / "kafka" / "log"),
            "REDIS_URL": self.redis.url,
            "REDIS_DIR": str(folder / "redis"),
            "REGISTRY": str(folder / "registry"),
        }

    def run(self, block: str) -> None:
        subprocess.run(["bash", "-euc", block], env=self.environ, check=True, timeout=180)

    def start_kafka(self) -> None:
        self.kafka = RealKafka(self.home, self.folder / "kafka", self._ports[0])

    def start_redis(self) -> None:
        self.redis = EmbeddedRedis(self.folder / "redis", self._ports[1])

    def destroy(self) -> None:
        for server in (self.kafka, self.redis):
            server.process.kill()
            server.process.wait(120)
        for name in ("kafka", "redis", "registry"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()

    def stop(self) -> None:
        self.kafka.stop()
        self.redis.stop()


def test_a_shop_that_was_restored_goes_on_as_if_nothing_had_been_lost(tmp_path: Path) -> None:
    dump, copy_kafka, copy_registry, restore, append_only = commands()
    place = Place(tmp_path)
    with ExitStack() as stack:
        stack.callback(place.stop)
        over = {"FRESHET_KAFKA__PARTITIONS": "1", "FRESHET_WINDOWS__IDLE_MS": str(10**9)}
        servers = place.kafka.bootstrap_servers, place.redis.url
        settings = settings_for(*servers, tmp_path, "backup", **over)
        save_random_weights(Path(settings.worker.weights), seed=0)
        ensure_topics(settings, live=False)
        (tmp_path / "registry").mkdir()
        (tmp_path / "registry" / "note").write_text("kept")
        with all_running(settings):
            sell(settings, range(31))
            forecast_to(settings, 30)
            place.run(dump)
            # Kafka goes on, windows and forecasts too: the Redis of the backup is behind.
            sell(settings, range(31, 33))
            forecast_to(settings, 32)
            place.kafka.stop()
            place.run(copy_kafka)
            place.start_kafka()
            place.run(copy_registry)
            # What is of after the backup is lost.
            sell(settings, range(33, 35))
            forecast_to(settings, 34)
        place.destroy()
        place.run(restore)
        place.start_kafka()
        place.start_redis()
        place.run(append_only)
        assert {at.cutoff_ms for at in forecasts(settings)} <= {
            START_MS + hour * HOUR_MS for hour in range(33)
        }
        with all_running(settings):
            sell(settings, range(33, 36))
            forecast_to(settings, 35)
        assert verify(settings).agrees
        assert shop.books(settings)["applied"] == 36 * EVENTS_AN_HOUR
        made = Counter((one.item_id, one.cutoff_ms) for one in forecasts(settings))
        assert {(item, at) for (item, at) in made if at == START_MS + 30 * HOUR_MS}
        assert set(made.values()) == {1}
        assert (tmp_path / "registry" / "note").read_text() == "kept"
