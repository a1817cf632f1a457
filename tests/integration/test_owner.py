"""One owner finds the drift of a whole shop on a real Kafka, killed, asleep, or taken over."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from freshet.online.drift.monitor import DriftMonitor
from freshet.online.owner.process import open_watch
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.failpoints import VARIABLE
from freshet.stream.kafka import Fenced, Publisher, TableReader, ensure_topics, shard_of
from freshet.stream.schemas import AdjustmentDecision, DriftAlert, OwnerState, Score
from freshet.stream.store.connection import connect
from freshet.stream.store.layout import EFFECTS_OWNER_KEY
from freshet.stream.units import HOUR_MS
from tests.integration.shop import wait_for
from tests.integration.test_adjusted import raise_alarm
from tests.integration.test_worker import (
    Shop,
    read,
    save_random_weights,
    scores,
    settings_for,
)
from tests.integration.worker_pair import RUN, WorkerPair
from tests.online.owner.drifting import FIRST, LAST, SHARDS, expected, mark_of, scores_of, settle

WATCHED = {"FRESHET_DRIFT__WATCH": "true", "FRESHET_DRIFT__FALSE_ALERTS": "0.5"}
OVER = {
    **WATCHED,
    "FRESHET_DRIFT__CLEAR_BUCKETS": "3",
    "FRESHET_WORKER__ADJUST": "false",
    "FRESHET_TELEMETRY__LOG_FORMAT": "json",
}
LEASE_S = "5"
ALERT_TOLD = 70
"""An hour by which the drift has been found, and is not over."""


def world(kafka: str, redis: str, folder: Path, name: str) -> Settings:
    settings = settings_for(kafka, redis, folder, f"{folder.name}.{name}", **OVER)
    ensure_topics(settings, live=True)
    return settings


def play(
    settings: Settings, hours: range, workers: Sequence[Sequence[int]] = (range(SHARDS),)
) -> None:
    """What workers write that have these shards: all hours of one, then all of the next."""
    topics = settings.kafka.topics
    with Publisher(settings) as publisher:
        for shards in workers:
            for hour in hours:
                for one in scores_of(hour):
                    if shard_of(one.item_id, SHARDS) in shards:
                        publisher.produce(topics.scores, encode(one), key=one.item_id)
                publisher.flush()
                for shard in shards:
                    mark = encode(mark_of(shard, hour + 1))
                    publisher.produce(topics.scored, mark, key=f"{shard}@{HOUR_MS}")
                publisher.flush()


def alerts(settings: Settings) -> list[DriftAlert]:
    """What a reader of committed records finds."""
    return read(settings, settings.kafka.topics.drift, DriftAlert)


def decided(settings: Settings) -> int:
    """Up to which hour."""
    found = read(settings, settings.kafka.topics.owner, OwnerState)
    return max((one.decided_until_ms // HOUR_MS for one in found), default=0)


@pytest.mark.parametrize("workers", [[[0, 2], [1, 3]], [[3], [0, 1], [2]]])
def test_two_workers_and_three_lead_to_the_alerts_of_one(
    kafka_broker: str, redis_server: str, tmp_path: Path, workers: Sequence[Sequence[int]]
) -> None:
    settings = world(kafka_broker, redis_server, tmp_path, f"workers{len(workers)}")
    play(settings, range(FIRST, LAST), workers)
    with ExitStack() as stack:
        writes = Fenced(settings, f"{settings.kafka.group_prefix}.owner")
        stack.callback(writes.close)
        watch = open_watch(settings, writes, lambda: True, lambda: 2**60, stack)
        settle(watch)
    assert alerts(settings) == expected() and decided(settings) == LAST


class Owners:
    """Owners as processes, one after the other."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.redis = connect(settings.redis)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        """Another one, as after the lease of the one before it has ended."""
        self.redis.delete(EFFECTS_OWNER_KEY)
        with self.log_file(len(self.processes)).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "freshet.online.owner", LEASE_S],
                env={**os.environ, "OMP_NUM_THREADS": "1", VARIABLE: failpoint},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        assert process.stdin is not None
        process.stdin.write(pickle.dumps(self.settings))
        process.stdin.close()
        self.processes.append(process)
        return process

    def killed(self, failpoint: str) -> None:
        """One that dies there by itself."""
        assert self.start(failpoint).wait(60) == -signal.SIGKILL

    def said(self, number: int, text: str) -> bool:
        return text in self.log_file(number).read_text("utf-8", "replace")

    def log_file(self, number: int) -> Path:
        return self.folder / f"owner-{number}.log"

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.redis.close()


@pytest.fixture
def owners(kafka_broker: str, redis_server: str, tmp_path: Path) -> Iterator[Owners]:
    made = Owners(world(kafka_broker, redis_server, tmp_path, "killed"), tmp_path)
    yield made
    made.close()


def asleep(process: subprocess.Popen[bytes]) -> bool:
    state = Path(f"/proc/{process.pid}/stat").read_text("utf-8")
    return state.rpartition(")")[2].split()[0] == "T"


def test_owners_that_are_killed_or_sleep_at_any_step_tell_each_alert_once(owners: Owners) -> None:
    settings = owners.settings
    play(settings, range(FIRST, ALERT_TOLD), [[0, 1], [2, 3]])
    for failpoint in ("before_drift", "fenced_produced"):
        owners.killed(failpoint)
        assert alerts(settings) == [] and decided(settings) == 0
    # In the middle of its transaction one falls asleep, and another takes over meanwhile.
    sleeper = owners.start("fenced_produced:1:SIGSTOP")
    wait_for(lambda: asleep(sleeper))
    other = owners.start()
    begun = [one for one in expected() if one.state == "drift"]
    wait_for(lambda: alerts(settings) == begun)
    sleeper.send_signal(signal.SIGCONT)
    assert sleeper.wait(30) == 0
    assert alerts(settings) == begun and decided(settings) == ALERT_TOLD

    other.terminate()
    assert other.wait(30) == 0
    play(settings, range(ALERT_TOLD, LAST), [[3], [0], [1, 2]])
    owners.killed("after_drift")
    owners.start()
    assert alerts(settings) == expected() and decided(settings) == LAST
    play(settings, range(LAST, LAST + 1))
    wait_for(lambda: decided(settings) == LAST + 1)
    assert alerts(settings) == expected()
    assert owners.said(5, '"restored":true') or owners.said(5, '"restored": true')


def decisions(settings: Settings) -> list[AdjustmentDecision]:
    """How segments in alarm are served, as a reader of committed records finds it."""
    found = read(settings, settings.kafka.topics.decisions, AdjustmentDecision)
    return sorted(found, key=lambda one: one.as_of_ms)


def test_owners_that_are_killed_around_a_decision_decide_each_cutoff_once(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    name = f"{tmp_path.name}.decided"
    settings = settings_for(kafka_broker, redis_server, tmp_path, name, **WATCHED)
    save_random_weights(Path(settings.worker.weights), seed=0)
    ensure_topics(settings, live=True)
    shop = Shop(settings)
    shop.sell(48)
    raise_alarm(settings)
    owners = Owners(settings, tmp_path)
    try:
        owners.killed("before_decision")
        assert decisions(settings) == []
        owners.killed("after_decision")
        [first] = decisions(settings)
        assert first.as_of_ms == shop.now_ms
        assert [one.segment for one in first.segments] == ["-"]
        owners.start()
        shop.sell(1)
        wait_for(lambda: len(decisions(settings)) > 1)
        assert [one.as_of_ms for one in decisions(settings)] == [first.as_of_ms, shop.now_ms]
    finally:
        owners.close()


@pytest.mark.slow
def test_three_workers_score_and_their_owner_finds_what_one_monitor_finds_in_all_scores(
    kafka_broker: str, redis_server: str, tmp_path: Path
) -> None:
    pair = WorkerPair(
        kafka_broker, redis_server, tmp_path, tmp_path.name, items=24, portion=2_048, **OVER
    )
    topics = pair.settings.kafka.topics
    try:
        for _ in range(3):
            one = pair.start(code=RUN)
            pair.wait(lambda one=one: one.said("shards_changed"), "another one joined")  # type: ignore[misc]
        pair.wait_shared()
        for _ in range(14):
            pair.sell_and_wait()
        pair.shop.factor = 12
        for _ in range(10):
            pair.sell_and_wait()
            if alerts(pair.settings):
                break
        pair.wait(lambda: alerts(pair.settings), "an alert")
    finally:
        pair.close()
    told = alerts(pair.settings)
    by_bucket: dict[int, dict[str, Score]] = {}
    for score in scores(pair.settings):
        if score.resolution_ms == HOUR_MS:
            by_bucket.setdefault(score.bucket_start_ms, {}).setdefault(score.item_id, score)
    monitor, found = DriftMonitor(pair.settings.drift, HOUR_MS), list[DriftAlert]()
    for bucket_ms, of_items in sorted(by_bucket.items()):
        now_ms = max(score.scored_at_ms for score in of_items.values())
        found += monitor.update(bucket_ms, list(of_items.values()), now_ms=now_ms)
    assert told == found[: len(told)]
    with TableReader(pair.settings, [topics.scored]) as reader:
        keys = {record.key for record in reader.read_to_end()}
    assert len(keys) == pair.num_shards and len(by_bucket) > 10
    assert len({shard_of(one, pair.num_shards) for one in of_items}) == pair.num_shards
