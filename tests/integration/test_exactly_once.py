"""Forecasts on a real Kafka: each committed once, whoever sleeps, dies or joins meanwhile.

Without `CHAOS_SEEDS` one worker that sleeps, one that dies and one that joins; with it every point
of a transaction, and a broker that dies in the middle of one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.faults.world import Broker
from tests.integration.worker_pair import POISED, RUN, SLOW, WorkerPair

LONG = "CHAOS_SEEDS" in os.environ
JOINS = 5
Made = Callable[..., WorkerPair]
# Where one worker falls asleep, and where the other dies.
POINTS = (
    ("before_forecasts", "transaction_offsets_sent"),
    ("transaction_offsets_sent", "transaction_produced"),
    ("transaction_produced", "before_forecasts"),
    ("after_forecasts", "after_forecasts"),
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def world(kafka_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Made]:
    made: list[WorkerPair] = []

    def make(bootstrap_servers: str = kafka_broker, **options: object) -> WorkerPair:
        made.append(
            WorkerPair(bootstrap_servers, redis_server, tmp_path, tmp_path.name, **options)  # type: ignore[arg-type]
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def proved(pair: WorkerPair) -> None:
    """Each forecast is there once, and every shard is complete at every cutoff."""
    found = pair.account()
    assert not found.twice and not found.faults
    assert found.complete and not found.incomplete and not found.skipped
    assert found.forecasts == len(found.complete) * (pair.shop.items + 1) / pair.num_shards


@pytest.mark.parametrize(("asleep_at", "dead_at"), POINTS if LONG else POINTS[:1])
def test_a_worker_that_sleeps_past_its_session_and_one_that_dies_leave_each_forecast_once(
    world: Made, asleep_at: str, dead_at: str
) -> None:
    pair = world()
    sleeper = pair.start(f"{asleep_at}:30:SIGSTOP")
    other = pair.start(f"{dead_at}:45")
    pair.wait_shared()
    pair.sell_until(lambda: sleeper.asleep)
    # Nobody goes on from an open transaction: it may be committed yet, for ten seconds.
    waited_s = pair.wait_complete()
    assert (waited_s > 9) == (asleep_at == "transaction_offsets_sent"), waited_s
    sleeper.signal(signal.SIGCONT)
    pair.sell_and_wait()
    pair.sell_until(lambda: not other.alive)
    pair.wait_complete()
    pair.sell_and_wait()
    proved(pair)


def test_a_worker_that_joins_in_the_middle_of_a_round_makes_nothing_twice(world: Made) -> None:
    over = {"FRESHET_WORKER__MICRO_BATCH": "1", "FRESHET_KAFKA__SESSION_TIMEOUT_MS": "2000"}
    pair = world(items=24, portion=2_048, **over)
    # All of its round is one transaction, which it makes in five seconds.
    pair.start(code=SLOW)
    for _ in range(JOINS):
        joining = pair.start(code=POISED)
        pair.wait(lambda one=joining: one.asleep and pair.all_complete(), "the round before")  # type: ignore[misc]
        pair.shop.sell(1)
        joining.signal(signal.SIGCONT)
        pair.wait_complete()
        pair.sell_and_wait()
        if any(one.said("shards_lost") for one in pair.workers):
            break
        # On a busy machine it came when the round was over: the next one tries.
    else:
        pytest.fail("nobody joined in the middle")
    proved(pair)


@pytest.mark.skipif(not LONG, reason="takes a minute: with CHAOS_SEEDS only")
@pytest.mark.parametrize("asleep_at", ["transaction_produced", "transaction_offsets_sent"])
def test_a_broker_that_dies_in_the_middle_of_a_transaction_leaves_each_forecast_once(
    world: Made, tmp_path: Path, asleep_at: str
) -> None:
    broker = Broker(Path(os.environ["KAFKA_HOME"]).resolve(), tmp_path / "kafka")
    try:
        pair = world(broker.address)
        worker = pair.start(f"{asleep_at}:30:SIGSTOP", code=RUN)
        pair.start()
        pair.wait_shared()
        pair.sell_until(lambda: worker.asleep)
        broker.restart()
        worker.signal(signal.SIGCONT)
        pair.wait_complete()
        pair.sell_and_wait()
        proved(pair)
    finally:
        broker.stop()
