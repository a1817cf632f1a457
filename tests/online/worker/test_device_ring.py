"""The ring on the device holds what the reader's newest buckets hold, and nothing that left it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.online.worker.device_ring import COPY_ROWS, FIRST_CAPACITY, NEVER, DeviceRing
from freshet.stream.arrays import Ints
from freshet.stream.read.progress import InputState
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, VIEWS, FakeReader

N = 10


def ring_of(reader: FakeReader) -> DeviceRing:
    ring = DeviceRing(reader, torch.device("cpu"))  # type: ignore[arg-type]
    ring.copy(reader.refresh())
    return ring


def units(ring: DeviceRing, row: int, first: int, steps: int) -> list[float]:
    values: list[float] = ring.units(np.array([row]), first, steps)[0].tolist()
    return values


def test_a_slot_is_cleared_when_its_bucket_leaves_or_sales_of_a_lap_ago_seem_to_be_new() -> None:
    reader = FakeReader(num_buckets=N)
    for hour in range(3):
        reader.add("sparse|n", FIRST + hour, UNITS, 7_000)
        reader.add("sparse|n", FIRST + hour, VIEWS, 5)
    reader.add("busy|n", FIRST, UNITS, 1_000)
    ring = ring_of(reader)
    for hour in range(1, 3 * N + 1):
        reader.add("busy|n", FIRST + hour, UNITS, 1_000)
        ring.copy(reader.refresh())
        oldest = FIRST + hour - N + 1
        expected = [
            7.0 if FIRST <= bucket < FIRST + 3 else 0.0 for bucket in range(oldest, oldest + N)
        ]
        assert units(ring, 0, oldest, N) == expected
        views = ring.clicks(np.array([0]), oldest, N)[0, :, 0].tolist()
        assert views == [5.0 if value else 0.0 for value in expected]
        assert units(ring, 1, oldest, N) == [
            float(bucket >= FIRST) for bucket in range(oldest, oldest + N)
        ]


@pytest.mark.parametrize("jump", [1, N - 1, N, N + 1, 5 * N + 3])
def test_a_jump_of_the_head_clears_each_bucket_that_it_passes_and_keeps_the_rest(jump: int) -> None:
    reader = FakeReader(num_buckets=N)
    for hour in range(N):
        reader.add("a|n", FIRST + hour, UNITS, 1_000 * (hour + 1))
    ring = ring_of(reader)
    reader.add("b|n", FIRST + N - 1 + jump, UNITS, 9_000)
    ring.copy(reader.refresh())
    oldest = FIRST + jump
    kept = [float(hour + 1) for hour in range(jump, N)]
    assert units(ring, 0, oldest, N) == kept + [0.0] * (N - len(kept))
    assert units(ring, 1, oldest, N) == [0.0] * (N - 1) + [9.0]


def test_buckets_outside_the_ring_are_zero_and_never_those_that_share_their_slot() -> None:
    reader = FakeReader(num_buckets=N)
    for hour in range(2 * N):
        reader.add("a|n", FIRST + hour, UNITS, 1_000)
        reader.add("a|n", FIRST + hour, VIEWS, 3)
    ring = ring_of(reader)
    held = [0.0] * (N + 2) + [1.0] * N + [0.0] * 5
    assert units(ring, 0, FIRST - 2, 2 * N + 7) == held
    assert (ring.clicks(np.array([0]), FIRST - 2, 2 * N + 7)[0, :, 0] / 3).tolist() == held


def test_the_furthest_partition_moves_the_ring_and_one_without_data_does_not() -> None:
    class ThreePartitions(FakeReader):
        @property
        def inputs(self) -> dict[tuple[str, int], InputState]:
            (furthest,) = super().inputs.values()
            empty = replace(furthest, frontier_ms=None)
            behind = replace(furthest, frontier_ms=(FIRST + 2) * HOUR_MS)
            return {("orders", 0): empty, ("orders", 1): furthest, ("orders", 2): behind}

    reader = ThreePartitions(num_buckets=N)
    for hour in range(4):
        reader.add("a|n", FIRST + hour, UNITS, 1_000 * (hour + 1))
    ring = ring_of(reader)
    assert units(ring, 0, FIRST, 5) == [1.0, 2.0, 3.0, 4.0, 0.0]
    reader.add("b|n", FIRST + N + 1, UNITS, 9_000)
    ring.copy(reader.refresh())
    assert units(ring, 0, FIRST, N + 2) == [0.0, 0.0, 3.0, 4.0] + [0.0] * (N - 2)
    assert units(ring, 1, FIRST, N + 2) == [0.0] * (N + 1) + [9.0]


def test_without_any_data_nothing_is_held() -> None:
    class Empty(FakeReader):
        @property
        def inputs(self) -> dict[tuple[str, int], InputState]:
            (first,) = super().inputs.values()
            return {("orders", 0): replace(first, frontier_ms=None)}

    ring = ring_of(Empty(num_buckets=N))
    assert units(ring, 0, FIRST, N) == [0.0] * N


def test_every_click_lands_in_the_slot_of_its_kind_and_units_are_no_thousandths() -> None:
    reader = FakeReader(num_buckets=N)
    for channel in range(len(CHANNELS)):
        reader.add("a|n", FIRST, channel, 1_500 + channel)
    ring = ring_of(reader)
    views = CHANNELS.index("views")
    assert units(ring, 0, FIRST, 1) == [1.5]
    clicks = ring.clicks(np.array([0]), FIRST, 1)[0, 0].tolist()
    assert clicks == [1_500.0 + views + place for place in range(len(CHANNELS) - views)]


def test_rows_beyond_the_first_rooms_hold_their_own_numbers_and_keep_them() -> None:
    reader = FakeReader(num_buckets=4)
    reader.add("i0|n", FIRST, UNITS, 250)
    ring = ring_of(reader)
    for row in range(1, 700):
        reader.add(f"i{row}|n", FIRST + row % 2, UNITS, 1_000 * row)
    ring.copy(reader.refresh())
    for row in (1, 255, 256, 511, 512, 699):
        expected = [0.0, 0.0]
        expected[row % 2] = float(row)
        assert units(ring, row, FIRST, 2) == expected
        assert ring.first_buckets(np.array([row])).tolist() == [FIRST + row % 2]
    assert units(ring, 0, FIRST, 2) == [0.25, 0.0]


def test_room_is_doubled_so_that_growing_is_rare() -> None:
    reader = FakeReader(num_buckets=4)
    rooms = []
    for row in range(FIRST_CAPACITY + 1):
        reader.add(f"i{row}|n", FIRST, UNITS, 1_000)
        if row in (FIRST_CAPACITY - 2, FIRST_CAPACITY - 1, FIRST_CAPACITY):
            ring = ring_of(reader)
            rooms.append((len(ring._units_IN), len(ring._clicks_INC), len(ring._first_I)))
    assert rooms == [(FIRST_CAPACITY,) * 3, (FIRST_CAPACITY,) * 3, (2 * FIRST_CAPACITY,) * 3]


def test_the_first_bucket_of_an_item_is_its_earliest_event_of_any_kind_and_stays() -> None:
    reader = FakeReader(num_buckets=N)
    reader.add("a|n", FIRST + 3, UNITS, 1_000)
    reader.add("b|n", FIRST + 5, VIEWS, 1)
    ring = ring_of(reader)
    assert ring.first_buckets(np.array([0, 1])).tolist() == [FIRST + 3, FIRST + 5]
    reader.add("a|n", FIRST + 1, VIEWS, 1)
    reader.add("b|n", FIRST + 2 * N, UNITS, 1_000)
    ring.copy(reader.refresh())
    assert ring.first_buckets(np.array([1, 0])).tolist() == [FIRST + 5, FIRST + 3]
    assert NEVER > FIRST + 10**9


def test_only_stretches_of_buckets_that_changed_are_asked_for_and_so_many_rows_at_once() -> None:
    asked: list[tuple[int, int, list[int]]] = []

    class WatchedReader(FakeReader):
        def sums(self, end_ms: int, num_buckets: int, rows: Ints | None = None) -> Ints:
            assert rows is not None
            asked.append((end_ms // HOUR_MS - num_buckets - FIRST, num_buckets, rows.tolist()))
            return super().sums(end_ms, num_buckets, rows)

    reader = WatchedReader(num_buckets=N)
    for row in range(COPY_ROWS + 1):
        reader.add(f"i{row}|n", FIRST, UNITS, 1_000)
    ring_of(reader)
    assert asked == [(0, 1, list(range(COPY_ROWS))), (0, 1, [COPY_ROWS])]
    asked.clear()
    ring = ring_of(reader)
    assert asked == [], "nothing changed"
    for row, hour in ((7, 1), (3, 2), (7, 5), (3, 8), (7, 9)):
        reader.add(f"i{row}|n", FIRST + hour, UNITS, 1_000 * hour)
    ring.copy(reader.refresh())
    assert asked == [(1, 2, [3, 7]), (5, 1, [3, 7]), (8, 2, [3, 7])]
    assert units(ring, 3, FIRST, N) == [0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 0.0]
    assert units(ring, 7, FIRST + 1, 9) == [1.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 9.0]
