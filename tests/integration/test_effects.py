"""Two workers on a real Kafka have one owner of effects, whoever is killed or sleeps."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from freshet.online.effects.table import EffectsTable
from freshet.stream.kafka import TableReader
from freshet.stream.units import HOUR_MS
from tests.integration.test_worker import START_MS
from tests.integration.worker_pair import RUN, WorkerPair, WorkerProcess
from tests.starved import slowness

# Where others have the CPU it takes so many times longer to renew one.
LEASE_S = 5
LONGEST_LEASE_S = 40
SHORT_LEASE = """
from freshet.online.worker import owner
owner.LEASE_S = {lease_s}
owner.LOOK_S = 0.5
"""
# A child needs some seconds to import the network's library on a busy machine.
TAKE_OVER_S = 180.0
OWNS = re.compile(r"owns_effects.*?pid\W+(\d+)")


class Owned:
    """Workers of a shop of two days by hours, and what they say of its effects."""

    def __init__(self, world: WorkerPair) -> None:
        self.world = world
        lease_s = min(LONGEST_LEASE_S, round(LEASE_S * slowness()))
        self._code = SHORT_LEASE.format(lease_s=lease_s) + RUN

    def start(self) -> WorkerProcess:
        return self.world.start(code=self._code)

    def owners(self, worker: WorkerProcess) -> list[int]:
        """Process ids of the owners that a worker had, oldest first."""
        found = OWNS.findall(worker.log_file.read_text("utf-8", "replace"))
        return [int(pid) for pid in found]

    def all_owners(self) -> int:
        return sum(len(self.owners(worker)) for worker in self.world.workers)

    def table(self) -> EffectsTable:
        settings = self.world.settings
        table = EffectsTable()
        with TableReader(settings, [settings.kafka.topics.effects]) as reader:
            for record in reader.read_to_end():
                table.take(record.key, record.value)
        return table

    def hours(self, resolution_ms: int = HOUR_MS) -> list[int]:
        """As of which hours of the shop there are effects."""
        kept = {record.as_of_ms for record in self.table().keys().values()}
        return sorted((as_of_ms - START_MS) // HOUR_MS for as_of_ms in kept)

    def wait_published(self, hour: int) -> None:
        self.world.wait(lambda: self.hours()[-1:] == [hour], f"effects as of hour {hour}")

    def newest(self) -> list[dict[str, object]]:
        """The forecasts of the newest hour."""
        self.world.reader.read_to_end()
        newest_ms = self.world.shop.now_ms
        return [
            record
            for record in self.world.reader.found["forecasts"]
            if record["cutoff_ms"] == newest_ms and record["resolution_ms"] == HOUR_MS
        ]


@pytest.fixture
def owned(kafka_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Owned]:
    over = {"FRESHET_WORKER__EFFECTS": "true"}
    world = WorkerPair(kafka_broker, redis_server, tmp_path, tmp_path.name, items=8, **over)
    yield Owned(world)
    world.close()


def test_one_of_two_workers_owns_the_effects_and_another_when_it_is_killed_or_sleeps(
    owned: Owned,
) -> None:
    world = owned.world
    pair = [owned.start(), owned.start()]
    world.wait_complete()
    # The first round waited: its forecasts are whole, and name what they were dressed with.
    known = owned.table().at(HOUR_MS, world.shop.now_ms)
    assert known is not None and owned.hours() == [48]
    made = owned.newest()
    assert {record["effects_sha256"] for record in made} == {known.sha256}
    assert "ok" in {record["status"] for record in made} <= {"ok", "cold_start"}
    assert owned.all_owners() == 1

    first, second = sorted(pair, key=owned.owners, reverse=True)
    first.kill()
    third = owned.start()
    world.wait(lambda: owned.all_owners() == 2, "another owner", TAKE_OVER_S)
    world.shop.sell(24)
    owned.wait_published(72)

    # The owner sleeps past its lease; another worker's goes on, and it writes nothing any more.
    worker, other = sorted([second, third], key=owned.owners, reverse=True)
    (sleeper,) = owned.owners(worker)
    os.kill(sleeper, signal.SIGSTOP)
    world.wait(lambda: owned.owners(other), "an owner of the other worker", TAKE_OVER_S)
    os.kill(sleeper, signal.SIGCONT)
    world.wait(lambda: worker.said("effects_given_up"), "the sleeper's end")
    world.shop.sell(24)
    owned.wait_published(96)
    world.wait_complete()
    assert owned.all_owners() == 3 and worker.alive and other.alive
    assert owned.hours() == [48, 72, 96]
