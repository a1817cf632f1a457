"""A reader over windows written by hand: what a refresh tells, and where its buckets end."""

from __future__ import annotations

from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import Delta, WindowReader
from freshet.stream.store.generation import GENERATION_KEY
from tests.stream.read.fake_windows import RESOLUTION_MS, UNITS, FakeRedis, Partition

RULES = ReadRules(RESOLUTION_MS, 100, "o", "c", out_of_order_ms=0)


def reader_of(client: FakeRedis, num_buckets: int = 4) -> WindowReader:
    return WindowReader(client, 0, RESOLUTION_MS, num_buckets, rules=RULES)  # type: ignore[arg-type]


def changed(delta: Delta) -> list[int]:
    return [at_ms // RESOLUTION_MS for at_ms in delta.changed_buckets_ms.tolist()]


def units(reader: WindowReader, start: int, num_buckets: int) -> list[int]:
    end_ms = (start + num_buckets) * RESOLUTION_MS
    values: list[int] = reader.sums(end_ms, num_buckets)[0, UNITS].tolist()
    return values


def test_the_newest_bucket_is_of_the_furthest_frontier_and_what_is_ahead_is_read_in_time() -> None:
    client = FakeRedis()
    first, second = Partition(client, number=0), Partition(client, number=1)
    reader = reader_of(client)
    assert list(reader.span.buckets) == []
    first.write(5, {(7, 0): {0: 10}}, ["a"], frontier_ms=75, last_event_ms=75)
    second.write(5, {}, frontier_ms=89)
    reader.refresh()
    assert list(reader.span.buckets) == [5, 6, 7, 8]
    first.write(6, {(10, 0): {0: 3}}, last_event_ms=109)
    reader.refresh()
    assert list(reader.span.buckets) == [5, 6, 7, 8], "one wrong clock would empty it"
    second.write(6, {}, frontier_ms=99)
    assert changed(reader.refresh()) == []
    assert units(reader, 6, 4) == [0, 10, 0, 0]
    second.write(7, {}, frontier_ms=105)
    assert changed(reader.refresh()) == [10], "of a partition that did not move"
    assert units(reader, 7, 4) == [10, 0, 0, 3]
    first.write(7, {(6, 0): {0: 2}, (8, 0): {0: 1}})
    assert changed(reader.refresh()) == [8], "what was sent again of bucket 6 came too late for us"
    assert units(reader, 6, 5) == [0, 10, 1, 0, 3]
    later = reader_of(client)
    later.refresh()
    assert units(later, 6, 5) == [0, 10, 1, 0, 3]


def test_what_was_ahead_at_the_first_look_is_read_when_the_frontier_comes() -> None:
    client = FakeRedis()
    part = Partition(client)
    part.write(5, {(7, 0): {0: 10}, (9, 0): {0: 4}}, ["a"], frontier_ms=75, last_event_ms=95)
    reader = reader_of(client)
    reader.refresh()
    assert units(reader, 6, 4) == [0, 10, 0, 0]
    part.write(6, {}, frontier_ms=92)
    assert changed(reader.refresh()) == [9]
    assert units(reader, 6, 4) == [0, 10, 0, 4]


def test_a_bucket_that_left_while_it_was_read_is_not_told_as_changed() -> None:
    client = FakeRedis()
    first, second = Partition(client, number=0), Partition(client, number=1)
    first.write(5, {(10, 0): {0: 1}, (11, 0): {0: 2}}, ["a"], frontier_ms=115)
    second.write(5, {}, frontier_ms=115)
    reader = reader_of(client)
    reader.refresh()
    first.write(6, {(8, 0): {0: 4}, (11, 0): {0: 3}})
    second.write(6, {})

    def jump() -> None:
        # The first partition is read in the first transaction, and the second moves before its own.
        client.before_transaction = leap

    def leap() -> None:
        client.before_transaction = None
        second.write(7, {(14, 0): {0: 7}}, ["a"], frontier_ms=145)

    client.before_transaction = jump
    assert changed(reader.refresh()) == [11, 14]
    assert units(reader, 8, 7) == [0, 0, 0, 3, 0, 0, 7]


def test_a_generation_that_ends_earlier_takes_the_buckets_back_and_tells_all_of_them() -> None:
    client = FakeRedis()
    before, after = Partition(client), Partition(client, generation=1)
    before.write(5, {(n, 0): {0: n} for n in range(10, 14)}, ["a"], frontier_ms=135)
    reader = reader_of(client)
    reader.refresh()
    after.write(3, {(n, 0): {0: 100 + n} for n in range(8, 12)}, ["a"], frontier_ms=115)
    client.values[GENERATION_KEY] = b"1"
    assert changed(reader.refresh()) == [8, 9, 10, 11]
    assert list(reader.span.buckets) == [8, 9, 10, 11]
    assert units(reader, 7, 7) == [0, 108, 109, 110, 111, 0, 0]
