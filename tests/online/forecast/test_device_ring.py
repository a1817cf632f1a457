"""The ring on the device holds what the reader's newest buckets hold, and nothing that left it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from freshet.online.forecast.device_ring import COPY_ROWS, NEVER, DeviceRing
from freshet.stream.arrays import Ints
from freshet.stream.errors import StoreUnavailableError
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.read.ring import Span
from freshet.stream.schemas import CHANNELS
from freshet.stream.store.generation import GENERATION_KEY
from freshet.stream.units import HOUR_MS
from tests.online.worker.windows import FIRST, UNITS, VIEWS, FakeReader
from tests.stream.read.fake_windows import RESOLUTION_MS, FakeRedis, Partition

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


def test_without_any_data_nothing_is_held() -> None:
    class Empty(FakeReader):
        @property
        def span(self) -> Span:
            return Span(self.num_buckets)

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


def test_there_is_room_for_as_many_items_as_the_reader_has_and_it_is_never_given_back() -> None:
    class Roomy(FakeReader):
        capacity = 7

    reader = Roomy(num_buckets=4)
    reader.add("a|n", FIRST, UNITS, 1_000)
    ring = ring_of(reader)
    for given, held in ((7, 7), (6, 7), (8, 8)):
        Roomy.capacity = given
        ring.copy(reader.refresh())
        rooms = (len(ring._units_IN), len(ring._clicks_INC), len(ring._first_I))
        assert rooms == (held,) * 3
        assert units(ring, 0, FIRST, 1) == [1.0]
        assert ring.first_buckets(np.arange(held)).tolist() == [FIRST] + [NEVER] * (held - 1)


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


def over(client: FakeRedis, num_buckets: int = 4) -> tuple[WindowReader, DeviceRing]:
    """A ring over a real reader of windows that are written by hand, 10 ms wide."""
    rules = ReadRules(RESOLUTION_MS, 100, "o", "c", out_of_order_ms=0)
    reader = WindowReader(client, 0, RESOLUTION_MS, num_buckets, rules=rules)  # type: ignore[arg-type]
    return reader, DeviceRing(reader, torch.device("cpu"))


def test_what_was_sent_again_ahead_of_every_frontier_is_kept_when_they_pass_it() -> None:
    client = FakeRedis()
    part = Partition(client)
    reader, ring = over(client)
    part.write(5, {(n, 0): {0: 1_000 * n} for n in range(8, 12)}, ["a"], frontier_ms=115)
    ring.copy(reader.refresh())
    assert units(ring, 0, 8, 4) == [8.0, 9.0, 10.0, 11.0]
    part.write(6, {(13, 0): {0: 7_000}}, last_event_ms=139)
    ring.copy(reader.refresh())
    # Bucket 13 will lie where 9 lies.
    assert units(ring, 0, 8, 7) == [8.0, 9.0, 10.0, 11.0, 0.0, 0.0, 0.0]
    for frontier in (12, 13, 14, 16, 17):
        part.write(frontier, {}, frontier_ms=10 * frontier + 5)
        ring.copy(reader.refresh())
        assert units(ring, 0, 13, 1) == [7.0 if 13 <= frontier < 17 else 0.0]


def test_late_sales_of_a_bucket_that_has_left_go_nowhere_and_of_one_that_is_held_count() -> None:
    client = FakeRedis()
    part = Partition(client)
    reader, ring = over(client)
    part.write(5, {(n, 0): {0: 1_000 * n} for n in range(10, 14)}, ["a"], frontier_ms=135)
    ring.copy(reader.refresh())
    part.write(6, {(9, 0): {0: 90_000}, (12, 0): {0: 50_000}})
    ring.copy(reader.refresh())
    assert units(ring, 0, 9, 5) == [0.0, 10.0, 11.0, 50.0, 13.0]


def test_another_generation_that_ends_earlier_takes_the_ring_back() -> None:
    client = FakeRedis()
    before, after = Partition(client), Partition(client, generation=1)
    reader, ring = over(client)
    before.write(5, {(n, 0): {0: 1_000 * n} for n in range(10, 14)}, ["a"], frontier_ms=135)
    ring.copy(reader.refresh())
    after.write(3, {(n, 0): {0: 2_000 * n} for n in (8, 11)}, ["a"], frontier_ms=115)
    client.values[GENERATION_KEY] = b"1"
    ring.copy(reader.refresh())
    assert units(ring, 0, 8, 6) == [16.0, 0.0, 0.0, 22.0, 0.0, 0.0]
    after.write(4, {}, frontier_ms=135)
    ring.copy(reader.refresh())
    assert units(ring, 0, 8, 6) == [0.0, 0.0, 0.0, 22.0, 0.0, 0.0]


def test_a_read_that_fails_after_the_ring_moved_is_made_up_for_by_the_next() -> None:
    client = FakeRedis()
    part = Partition(client)
    reader, ring = over(client)
    part.write(5, {(n, 0): {0: 1_000 * n} for n in range(8, 12)}, ["a"], frontier_ms=115)
    ring.copy(reader.refresh())

    def fail() -> None:
        client.before_transaction = None
        raise StoreUnavailableError("gone")

    part.write(6, {(13, 0): {0: 7_000}}, frontier_ms=135)
    client.before_transaction = fail
    with pytest.raises(StoreUnavailableError, match="gone"):
        reader.refresh()
    assert units(ring, 0, 8, 6) == [8.0, 9.0, 10.0, 11.0, 0.0, 0.0], "as it was"
    ring.copy(reader.refresh())
    assert units(ring, 0, 8, 6) == [0.0, 0.0, 10.0, 11.0, 0.0, 7.0]
