"""One clock for all processes: anchors, holding, setting back, and a Redis that does not answer."""

from __future__ import annotations

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.clock import Anchor, SimulatedClock
from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.store.clock import open_clock, read_anchor, set_anchor


class FakeRedis:
    """Keeps hashes; can be switched off."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.answers = True
        self.reads = 0
        self.connection_pool = redis.ConnectionPool()

    def hgetall(self, name: str) -> dict[bytes, bytes]:
        self._check()
        self.reads += 1
        return dict(self.hashes.get(name, {}))

    def hset(self, name: str, mapping: dict[str, str]) -> None:
        self._check()
        fields = self.hashes.setdefault(name, {})
        fields.update({key.encode(): value.encode() for key, value in mapping.items()})

    def _check(self) -> None:
        if not self.answers:
            raise redis.ConnectionError("off")


class Wall:
    """Wall time that moves when told."""

    def __init__(self, now_ms: int = 1_000_000) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def store() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def wall() -> Wall:
    return Wall()


def _clock(store: FakeRedis, wall: Wall) -> SimulatedClock:
    return SimulatedClock(lambda: read_anchor(store), wall_now_ms=wall)


def test_without_an_anchor_it_is_wall_time(store: FakeRedis, wall: Wall) -> None:
    clock = _clock(store, wall)
    wall.now_ms += 5_000
    assert clock.now_ms() == wall.now_ms
    assert clock.speed == 1.0


def test_simulated_time_runs_at_the_anchors_speed(store: FakeRedis, wall: Wall) -> None:
    set_anchor(store, 50_000_000, 900.0, wall_now_ms=wall)
    clock = _clock(store, wall)
    assert clock.now_ms() == 50_000_000
    wall.now_ms += 10
    assert clock.now_ms() == 50_009_000
    assert clock.speed == 900.0


def test_a_held_clock_stands_still(store: FakeRedis, wall: Wall) -> None:
    set_anchor(store, 7_000, 0, wall_now_ms=wall)
    clock = _clock(store, wall)
    wall.now_ms += 60_000
    assert clock.now_ms() == 7_000


def test_an_anchor_set_while_running_is_followed_within_the_reread_time(
    store: FakeRedis, wall: Wall
) -> None:
    clock = _clock(store, wall)
    set_anchor(store, 5_000, 2.0, wall_now_ms=wall)
    wall.now_ms += 200
    assert clock.now_ms() == 5_400


def test_redis_is_asked_at_most_once_in_the_reread_time(store: FakeRedis, wall: Wall) -> None:
    set_anchor(store, 5_000, 2.0, wall_now_ms=wall)
    clock = _clock(store, wall)
    for _ in range(199):
        wall.now_ms += 1
        clock.now_ms()
    assert store.reads == 1
    wall.now_ms += 1
    clock.now_ms()
    assert store.reads == 2


def test_a_clock_held_back_stands_still_rather_than_running_backwards(
    store: FakeRedis, wall: Wall
) -> None:
    set_anchor(store, 0, 1_000.0, wall_now_ms=wall)
    clock = _clock(store, wall)
    set_anchor(store, 100_000, 0, wall_now_ms=wall)
    wall.now_ms += 199
    assert clock.now_ms() == 199_000
    wall.now_ms += 1
    assert clock.now_ms() == 199_000
    set_anchor(store, 100_000, 1_000.0, wall_now_ms=wall)
    wall.now_ms += 300
    assert clock.now_ms() == 400_000


def test_an_anchor_set_to_an_earlier_time_moves_the_clock_back(
    store: FakeRedis, wall: Wall
) -> None:
    set_anchor(store, 9_000_000, 1.0, wall_now_ms=wall)
    clock = _clock(store, wall)
    assert clock.now_ms() == 9_000_000
    set_anchor(store, 1_000, 1.0, wall_now_ms=wall)
    wall.now_ms += 200
    assert clock.now_ms() == 1_200


def test_when_redis_stops_answering_the_clock_keeps_its_line(store: FakeRedis, wall: Wall) -> None:
    set_anchor(store, 0, 10.0, wall_now_ms=wall)
    clock = _clock(store, wall)
    store.answers = False
    wall.now_ms += 1_000
    assert clock.now_ms() == 10_000


def test_a_clock_cannot_be_opened_without_redis(store: FakeRedis) -> None:
    store.answers = False
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        open_clock(store)


@pytest.mark.parametrize(
    "fields",
    [{"wall_ms": "1"}, {"wall_ms": "x", "simulated_ms": "1", "speed": "1"}, {"speed": "nan"}],
)
def test_a_broken_anchor_is_refused(store: FakeRedis, fields: dict[str, str]) -> None:
    store.hset(
        "freshet:clock",
        mapping={"wall_ms": "1", "simulated_ms": "2", **fields} if len(fields) == 1 else fields,
    )
    if fields == {"wall_ms": "1"}:
        del store.hashes["freshet:clock"][b"simulated_ms"]
    with pytest.raises(StoreError):
        read_anchor(store)


@pytest.mark.parametrize("speed", [-1.0, float("inf"), float("nan")])
def test_a_speed_that_is_no_speed_is_refused(store: FakeRedis, speed: float) -> None:
    with pytest.raises(StoreError, match="speed"):
        set_anchor(store, 0, speed)
    assert store.hashes == {}


@given(
    st.lists(
        st.tuples(st.integers(0, 2_000), st.sampled_from([0.0, 0.5, 1.0, 3_600.0])), max_size=30
    )
)
def test_time_never_runs_backwards_while_the_source_moves_its_anchor_on(
    moves: list[tuple[int, float]],
) -> None:
    store, wall = FakeRedis(), Wall()
    anchor = Anchor(wall(), 0, 1.0)
    set_anchor(store, 0, 1.0, wall_now_ms=wall)
    clock, seen = _clock(store, wall), 0
    for wait_ms, speed in moves:
        wall.now_ms += wait_ms
        anchor = Anchor(wall(), anchor.at(wall()), speed)
        set_anchor(store, anchor.simulated_ms, speed, wall_now_ms=wall)
        now_ms = clock.now_ms()
        assert now_ms >= seen
        seen = now_ms
