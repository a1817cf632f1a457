"""Every fault, on a real Kafka and Redis: afterwards windows are what the log says, bit for bit.

Without more said, one seed of a short set. `CHAOS_SEEDS=5` runs five seeds of all of them (`make
chaos SEEDS=5`), and `CHAOS_REPORT=1` writes `bench/results/chaos.json`.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.report import write_result
from tests.integration.faults import scenarios
from tests.integration.faults.scenarios import FAULTS, Fault
from tests.integration.faults.world import Broker, Ingest, World
from tests.integration.shop import wait_for

LONG = "CHAOS_SEEDS" in os.environ
# One of each kind: death between two effects, a zombie, Redises that went back, a cut, a broker's
# death, bad bytes.
SHORT_SET = (
    scenarios.sigkill_at_failpoints,
    scenarios.zombie_after_sigstop,
    scenarios.redis_sigkill,
    scenarios.replica_promoted_with_lag,
    scenarios.redis_network_cut,
    scenarios.broker_sigkill,
    scenarios.poison,
)
SEEDS = range(1, int(os.environ.get("CHAOS_SEEDS", "1")) + 1)
REPORT = os.environ.get("CHAOS_REPORT")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME", "")
    if not home or not Path(home, "bin", "kafka-server-start.sh").exists():
        pytest.skip("KAFKA_HOME does not name an unpacked Kafka 4.x")
    return Path(home).resolve()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(kafka_home(), tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    yield found
    if REPORT:
        violations = sum(not one["proved"] for one in found)
        numbers = {"seeds": list(SEEDS), "violations": violations, "runs": found}
        write_result("chaos", numbers, ["confluent-kafka", "redis", "freshet"])


def run(world: World, fault: Fault, outcomes: list[dict[str, Any]]) -> None:
    begun_s = time.monotonic()
    outcome: dict[str, Any] = {"fault": world.name, "seed": world.seed, "states": world.states}
    outcome |= {"history": world.history, "proved": False}
    outcomes.append(outcome)
    try:
        fault(world)
        outcome |= world.prove() | {"proved": True}
    finally:
        outcome["seconds"] = round(time.monotonic() - begun_s, 1)
        world.close()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", FAULTS if LONG else SHORT_SET, ids=lambda fault: fault.__name__)
def test_windows_are_what_the_log_says_after(
    fault: Fault, seed: int, broker: Broker, tmp_path: Path, outcomes: list[dict[str, Any]]
) -> None:
    # Every other one with orders that are states, and two of four with history, in turn.
    turn = FAULTS.index(fault) + seed
    world = World(fault.__name__, seed, broker, tmp_path, turn % 2 == 0, turn // 2 % 2 == 0)
    run(world, fault, outcomes)


@pytest.mark.skipif(not LONG, reason="takes a minute: with CHAOS_SEEDS only")
@pytest.mark.parametrize("seed", SEEDS)
def test_windows_are_what_the_log_says_after_the_brokers_disk_was_full(
    seed: int, tmp_path: Path, outcomes: list[dict[str, Any]]
) -> None:
    home, mount = kafka_home(), tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(mount)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("mounting a small file system needs root")
    own = None
    try:
        own = Broker(home, mount / "kafka")
        world = World("broker_disk_full", seed, own, tmp_path)
        run(world, partial(scenarios.fill_disk, broker=own, mount=str(mount)), outcomes)
    finally:
        if own is not None:
            own.stop()
        subprocess.run(["umount", "-l", str(mount)], check=False)


def test_a_process_with_nothing_to_read_ends_although_it_is_still_joining(
    broker: Broker, tmp_path: Path
) -> None:
    """A client that was closed while its first assignment came in once waited for ever."""
    world = World("ends_while_joining", 1, broker, tmp_path)
    try:
        world.send(200)
        first = world.start()
        wait_for(lambda: world.read() >= 200)
        first.kill()
        last = Ingest(world.environ, tmp_path / "ingest.log", until_end=True)
        assert last.process.wait(120) == 0, world.tail()
    finally:
        world.close()
