"""Which rounds before the end of the log still wait for scores, and where they are read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from freshet.online.drift.pending import Issued, PendingForecasts
from freshet.online.worker import earlier
from freshet.online.worker.earlier import Earlier, spans_of, waiting_cutoffs_ms
from freshet.online.worker.recovery import Tail
from freshet.stream.config import Settings
from freshet.stream.kafka import Taken
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.online.worker.test_recovery import Client, message


def test_a_cutoff_waits_until_the_bucket_of_its_last_scored_step_is_final() -> None:
    days = PendingForecasts((1, 3), DAY_MS, 50)
    # The bucket of day 10 is open: it is step 3 of cutoff 8, and step 1 of cutoff 10.
    waiting = [8 * DAY_MS, 9 * DAY_MS, 10 * DAY_MS]
    assert waiting_cutoffs_ms(days, 10 * DAY_MS) == waiting
    assert waiting_cutoffs_ms(days, 11 * DAY_MS - 1) == waiting
    assert waiting_cutoffs_ms(days, None) == []
    assert waiting_cutoffs_ms(PendingForecasts((), DAY_MS, 50), 10 * DAY_MS) == []
    # What the pending forecasts say themselves: the cutoff before those has nothing open.
    none_KQ = np.zeros((1, 2, 1), np.float32)
    for cutoff in range(5, 11):
        days.add(Issued(cutoff * DAY_MS, "v", (0.5,), ["a"], [f"{cutoff}"], none_KQ))
    for bucket_ms in days.due_buckets(10 * DAY_MS):
        days.close_bucket(bucket_ms)
    assert days.cutoffs == waiting


def test_rounds_that_follow_each_other_closely_are_read_at_once() -> None:
    minutes = [HOUR_MS + minute * MINUTE_MS for minute in range(3)]
    assert spans_of([*minutes, 0, HOUR_MS]) == [
        (HOUR_MS, HOUR_MS + 17 * MINUTE_MS),
        (0, 15 * MINUTE_MS),
    ]


class TimedClient(Client):
    """A log of which each partition has one record a minute, from offset 0 at time 0 on."""

    lengths = (40, 100)

    def offsets_for_times(self, asked: list[Any], timeout_s: float) -> list[Any]:
        found = []
        for at in asked:
            offset = -(-at.offset // MINUTE_MS)
            offset = offset if offset < self.lengths[at.partition] else -1
            found.append(SimpleNamespace(partition=at.partition, offset=offset))
        return found


class World:
    """What `Earlier` reads from, and how long a take lasts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, take_s: float = 0.0) -> None:
        self.client = TimedClient(object(), "none")
        self.now_s, self.read = 0.0, list[tuple[int, int]]()
        self._take_s = take_s
        self._at: dict[int, int] = {}
        monkeypatch.setattr(earlier, "consumer", lambda *_, **over: self.client)
        monkeypatch.setattr(earlier, "take", self._take)
        monkeypatch.setattr(earlier, "time", SimpleNamespace(monotonic=lambda: self.now_s))

    def _take(self, client: TimedClient, max_records: int, max_wait_ms: int) -> Taken:
        assert client is self.client and max_records > 0 and max_wait_ms > 0
        self.now_s += self._take_s
        if client.assigned:
            self._at = {partition: offset for _, partition, offset in client.assigned}
            client.assigned = []
        taken, ends = [], {}
        for partition, offset in self._at.items():
            if offset >= client.lengths[partition]:
                ends["t", partition] = offset
            else:
                taken.append(message(partition, offset, b"%d" % offset))
                self._at[partition] += 1
        return Taken(taken, ends)


def tail_of(starts: dict[int, int], cut: set[int]) -> Tail:
    tail = Tail(Settings(), "t")
    tail.starts, tail.cut = starts, cut
    return tail


def read(cutoffs_ms: list[int], tail: Tail) -> list[tuple[int, int]]:
    found = Earlier(Settings(), "t", cutoffs_ms, tail)
    return sorted((partition, int(value)) for partition, value in found)


def test_the_records_of_each_round_are_read_and_none_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(monkeypatch)
    found = read([0, 50 * MINUTE_MS], tail_of({0: 39, 1: 99}, {0, 1}))
    # Partition 0 ends before the later round.
    assert found == [(0, n) for n in range(15)] + [(1, n) for n in (*range(15), *range(50, 65))]
    assert world.client.closed


def test_what_the_tail_holds_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    World(monkeypatch)
    assert read([5 * MINUTE_MS], tail_of({0: 8, 1: 0}, {0})) == [(0, 5), (0, 6), (0, 7)]
    # The log of partition 0 ends within the round.
    later = read([30 * MINUTE_MS], tail_of({0: 38, 1: 31}, {0, 1}))
    assert later == [*((0, n) for n in range(30, 38)), (1, 30)]


def test_where_the_tail_holds_all_or_nothing_waits_nobody_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(earlier, "consumer", lambda *_, **over: pytest.fail("asked"))
    assert read([0], tail_of({0: 0, 1: 0}, set())) == []
    assert read([], tail_of({0: 9, 1: 9}, {0, 1})) == []


def test_newer_rounds_come_first_and_what_takes_too_long_is_left_and_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The later round takes fifteen takes of 2.2 seconds; after 30 seconds nothing more is begun.
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(
        earlier, "log", SimpleNamespace(warning=lambda _, **more: said.append(more))
    )
    world = World(monkeypatch, take_s=2.2)
    found = read([0, 60 * MINUTE_MS], tail_of({0: 39, 1: 99}, {0, 1}))
    assert found == [(1, n) for n in range(60, 74)]
    assert said == [{"before_ms": 75 * MINUTE_MS, "spans_left": 1}]
    assert cast("Any", world.client).closed
