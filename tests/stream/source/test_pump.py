"""History goes as fast as it is folded, live by the clock, never ahead of what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.source.batches import SourceBatch
from freshet.stream.source.pump import MAX_AHEAD_MS, Progress, Pump

START_MS = 1_000_000
SLICE_MS = 900


def batches(num: int, size: int = 10) -> Iterator[SourceBatch]:
    for i in range(num):
        start_ms = START_MS + i * SLICE_MS
        values: list[bytes | None] = [b"x" * size]
        yield SourceBatch(start_ms, start_ms + SLICE_MS, ["orders"], [b"a"], values, [start_ms])


class FakeTimer:
    """Time that passes only when somebody waits, and a little with each look at it."""

    def __init__(self, stop_at_ms: float = float("inf")) -> None:
        self.wall_ms = 0.0
        self._stop_at_ms = stop_at_ms

    @property
    def stopped(self) -> bool:
        return self.wall_ms >= self._stop_at_ms

    def now_ms(self) -> float:
        self.wall_ms += 0.01
        return self.wall_ms

    def wait(self, duration_ms: float) -> None:
        self.wall_ms += max(duration_ms, 0.01)


class FakeOutlet:
    """Remembers what was sent when, and the clock's line; folds nothing until told."""

    def __init__(self, timer: FakeTimer, *, send_takes_ms: float = 0.0) -> None:
        self.timer, self.send_takes_ms = timer, send_takes_ms
        self.queued: list[SourceBatch] = []
        self.sent: list[tuple[float, SourceBatch]] = []
        self.anchors: list[tuple[float, int, float]] = []
        self.full_from, self.full_until_ms, self.folded_at_ms = 10**9, 0.0, 0.0

    def room_for(self, batch: SourceBatch) -> bool:
        return (
            len(self.sent) + len(self.queued) < self.full_from
            or self.timer.wall_ms >= self.full_until_ms
        )

    def drained(self) -> bool:
        return not self.queued and self.timer.wall_ms >= self.folded_at_ms

    def send(self, batch: SourceBatch) -> None:
        self.timer.wall_ms += self.send_takes_ms
        self.queued.append(batch)

    def flush(self) -> None:
        self.timer.wall_ms += 0.01
        self.sent += [(self.timer.wall_ms, batch) for batch in self.queued]
        self.queued.clear()

    def set_clock(self, simulated_ms: int, speed: float) -> None:
        self.timer.wall_ms += 0.01
        self.anchors.append((self.timer.wall_ms, simulated_ms, speed))

    def clock_at(self, wall_ms: float) -> float:
        at_ms, simulated_ms, speed = [anchor for anchor in self.anchors if anchor[0] <= wall_ms][-1]
        return simulated_ms + (wall_ms - at_ms) * speed

    @property
    def acknowledged_ms(self) -> int:
        return self.sent[-1][1].end_ms if self.sent else START_MS


def pump(outlet: FakeOutlet, timer: FakeTimer, **over: object) -> tuple[Pump, list[Progress]]:
    told: list[Progress] = []
    arguments = {"live_from_ms": 0, "speed": 9.0, **over}
    return Pump(outlet, timer, on_progress=told.append, **arguments), told  # type: ignore[arg-type]


def test_live_batches_leave_when_the_clock_reaches_their_start() -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer)
    pump(outlet, timer)[0].run(batches(20))
    assert len(outlet.sent) == 20
    for wall_ms, batch in outlet.sent:
        assert outlet.clock_at(wall_ms) == pytest.approx(batch.start_ms, abs=9.0)
    # 19 slices of 900 ms at 9 times the speed, then the end.
    assert outlet.sent[-1][0] == pytest.approx(19 * 100, rel=0.02)


def test_history_is_sent_at_once_with_the_clock_held() -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer)
    live_from_ms = START_MS + 50 * SLICE_MS
    pump(outlet, timer, live_from_ms=live_from_ms)[0].run(batches(60))
    assert outlet.sent[49][0] < 10
    held = [
        (simulated_ms, speed)
        for _, simulated_ms, speed in outlet.anchors
        if simulated_ms < live_from_ms
    ]
    assert held and all(speed == 0.0 for _, speed in held)
    assert (outlet.anchors[len(held)][1:]) == (live_from_ms, 0.0)
    assert outlet.anchors[len(held) + 1][1:] == (live_from_ms, 9.0)


def test_live_begins_when_history_is_folded() -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer)
    outlet.folded_at_ms = 3_000
    runner, told = pump(outlet, timer, live_from_ms=START_MS + 5 * SLICE_MS)
    runner.run(batches(8))
    assert outlet.sent[4][0] < 100 and outlet.sent[5][0] >= 3_000
    assert not any(progress.history_folded for progress in told if progress.phase == "history")
    assert any(progress.waiting for progress in told)
    assert all(progress.history_folded for progress in told if progress.phase != "history")


def test_a_held_back_source_holds_the_clock_and_moves_its_line_afterwards() -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer)
    outlet.full_from, outlet.full_until_ms = 5, 10_000
    pump(outlet, timer)[0].run(batches(20))
    fifth_end_ms = START_MS + 5 * SLICE_MS
    assert outlet.clock_at(9_000) == fifth_end_ms
    assert outlet.sent[5][0] >= 10_000
    assert outlet.sent[-1][0] == pytest.approx(10_000 + 14 * 100, rel=0.02)


@given(
    takes_ms=st.floats(0, 400),
    full_from=st.integers(0, 30),
    full_until_ms=st.integers(0, 5_000),
    history=st.integers(0, 30),
)
def test_the_clock_never_shows_a_time_that_was_not_sent(
    takes_ms: float, full_from: int, full_until_ms: int, history: int
) -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer, send_takes_ms=takes_ms)
    outlet.full_from, outlet.full_until_ms = full_from, full_until_ms
    pump(outlet, timer, live_from_ms=START_MS + history * SLICE_MS)[0].run(batches(30))
    assert [batch.start_ms for _, batch in outlet.sent] == [
        START_MS + i * SLICE_MS for i in range(30)
    ]
    simulated = [simulated_ms for _, simulated_ms, _ in outlet.anchors]
    assert simulated == sorted(simulated)
    for wall_ms, simulated_ms, _ in outlet.anchors:
        sent_ms = max(
            (batch.end_ms for at_ms, batch in outlet.sent if at_ms <= wall_ms), default=START_MS
        )
        assert simulated_ms <= sent_ms
    for (_, batch), (wall_ms, _) in pairwise(outlet.sent):
        # Between two batches the line may run on for as long as one batch takes, no longer.
        assert outlet.clock_at(wall_ms) <= batch.end_ms + 9.0 * (MAX_AHEAD_MS + takes_ms + 1)


def test_seconds_end_the_live_part_and_the_clock_stays() -> None:
    timer = FakeTimer()
    outlet = FakeOutlet(timer)
    runner, told = pump(outlet, timer, live_wall_ms=1_000)
    runner.run(batches(10_000))
    assert 9 <= len(outlet.sent) <= 11
    assert outlet.anchors[-1][1:] == (outlet.acknowledged_ms, 0.0)
    assert told[-1].phase == "done" and told[-1].history_folded


def test_a_stop_while_history_waits_leaves_it_unfolded() -> None:
    timer = FakeTimer(stop_at_ms=500)
    outlet = FakeOutlet(timer)
    outlet.full_from, outlet.full_until_ms = 3, float("inf")
    runner, told = pump(outlet, timer, live_from_ms=float("inf"))
    runner.run(batches(100))
    assert len(outlet.sent) == 3 and not outlet.queued
    assert told[-1] == Progress("done", START_MS + 3 * SLICE_MS, history_folded=False)
