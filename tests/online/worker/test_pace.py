"""Reads of Redis: soon after a bucket has ended, a gap apart, and once a second in any case."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from freshet.online.worker.pace import Pace, newest
from freshet.stream.codec import encode
from freshet.stream.read.progress import Input, InputState, ReadRules, live_cutoff_ms
from freshet.stream.schemas import WindowsAdvanced
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

# Minutes become final a whole minute after their end, so that both fall together.
RULES = ReadRules(MINUTE_MS, 1_440, out_of_order_ms=5_000, allowed_lateness_ms=55_000)
ORDERS, CLICKS = RULES.topics
NOON_MS = 12 * HOUR_MS


def state(frontier_ms: int | None, *, offset: int = 9, idle_ms: int | None = None) -> InputState:
    return InputState(offset, 0, frontier_ms, idle_ms, first_event_ms=0)


def notice(
    frontier_ms: int, *, offset: int = 10, topic: str = ORDERS, partition: int = 0
) -> dict[Input, WindowsAdvanced]:
    said = WindowsAdvanced(
        topic=topic, partition=partition, epoch=1, offset=offset, frontier_ms=frontier_ms
    )
    return {(topic, partition): said}


def pace_of(
    states: dict[Input, InputState], *, rules: ReadRules = RULES, took_s: float = 0.001
) -> Pace:
    """A pace whose last read began at 100 s and found these."""
    pace = Pace(rules)
    pace.read(states, started_s=100.0, ended_s=100.0 + took_s)
    return pace


def test_the_first_read_is_due_at_once() -> None:
    assert Pace(RULES).due(0.0) and Pace(RULES).wait_ms(0.0) == 0


def test_a_read_is_due_once_every_partition_of_the_orders_has_passed_the_end() -> None:
    pace = pace_of({(ORDERS, n): state(NOON_MS + 100) for n in range(2)})
    asked = []
    for partition, frontier_ms in ((0, 59_999), (0, 60_000), (1, 59_999), (1, 61_234)):
        offset = frontier_ms
        said = notice(NOON_MS + frontier_ms, offset=offset, partition=partition)
        pace.take(said)
        asked.append(pace.due(100.5))
    assert asked == [False, False, False, True]
    assert pace.wait_ms(100.5) == 0


def test_clicks_hold_no_cutoff_up() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS), (CLICKS, 0): state(NOON_MS)})
    pace.take(notice(NOON_MS + 60_000))
    assert pace.due(100.5)


def test_a_read_is_due_once_a_bucket_has_become_final_and_clicks_count_for_that() -> None:
    rules = replace(RULES, allowed_lateness_ms=30_000)
    both = {(ORDERS, 0): state(NOON_MS), (CLICKS, 0): state(NOON_MS)}
    pace = pace_of(both, rules=rules)
    # The minute that ended at noon is final when all have passed 35 s after it.
    pace.take(notice(NOON_MS + 35_000))
    assert not pace.due(100.5)
    pace.take(notice(NOON_MS + 34_999, topic=CLICKS))
    assert not pace.due(100.5)
    pace.take(notice(NOON_MS + 35_000, topic=CLICKS, offset=11))
    assert pace.due(100.5)


def test_without_a_notice_redis_is_read_once_a_second() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS)})
    assert [pace.due(at_s) for at_s in (100.99, 101.0, 102.0)] == [False, True, True]


def test_between_two_reads_there_is_a_gap_and_a_longer_one_after_a_dear_read() -> None:
    for took_s, free_at_s in ((0.001, 100.1), (0.02, 100.4), (0.5, 101.0)):
        pace = pace_of({(ORDERS, 0): state(NOON_MS)}, took_s=took_s)
        pace.take(notice(NOON_MS + HOUR_MS))
        assert not pace.due(free_at_s - 0.01) and pace.due(free_at_s + 0.001), took_s
        # Until then there is no use in asking again and again.
        assert pace.wait_ms(free_at_s - 0.01) in (10, 11)


def test_a_wait_for_notices_is_short_and_never_passes_the_next_look() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS)})
    assert [pace.wait_ms(at_s) for at_s in (100.0, 100.875, 100.96875, 101.0, 105.0)] == [
        *(50, 50, 32, 0, 0)
    ]


def test_an_idle_partition_holds_nothing_up_and_says_so_by_saying_the_same_again() -> None:
    pace = pace_of({(ORDERS, n): state(NOON_MS, offset=9) for n in range(2)})
    pace.take(notice(NOON_MS + 60_000, partition=0))
    assert not pace.due(100.5)
    pace.take(notice(NOON_MS, offset=9, partition=1))
    assert pace.due(100.5)


def test_where_all_are_idle_only_the_look_of_each_second_reads() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS, offset=9)})
    pace.take(notice(NOON_MS, offset=9))
    assert not pace.due(100.99) and pace.due(101.0)


def test_what_a_read_found_counts_an_idle_partition_as_far_as_it_was_idle() -> None:
    idle = {
        (ORDERS, 0): state(NOON_MS, idle_ms=NOON_MS + 59_000),
        (ORDERS, 1): state(NOON_MS + 59_500),
    }
    pace = pace_of(idle)
    pace.take(notice(NOON_MS + 61_000, partition=1))
    assert not pace.due(100.5)
    # Declared idle before its last record: that record is newer.
    stale = pace_of({(ORDERS, 0): state(NOON_MS + 59_000, idle_ms=NOON_MS - 120_000)})
    stale.take(notice(NOON_MS + 60_000))
    assert stale.due(100.5)


def test_a_notice_from_before_the_read_says_nothing() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS, offset=9)})
    pace.take(notice(NOON_MS + HOUR_MS, offset=8))
    assert not pace.due(100.5)


def test_partitions_without_data_have_no_say() -> None:
    pace = pace_of({(ORDERS, 0): state(NOON_MS), (ORDERS, 1): state(None)})
    pace.take(notice(NOON_MS + 60_000))
    assert pace.due(100.5)
    empty = pace_of({})
    assert not empty.due(100.5) and empty.due(101.0)


def test_days_end_at_local_midnight() -> None:
    spring_ms = 1_774_738_800_000  # 2026-03-29T00:00 in Berlin; that day has 23 hours
    rules = ReadRules(
        DAY_MS, 800, time_zone="Europe/Berlin", out_of_order_ms=0, allowed_lateness_ms=0
    )
    pace = pace_of({(ORDERS, 0): state(spring_ms)}, rules=rules)
    pace.take(notice(spring_ms + 23 * HOUR_MS - 1))
    assert not pace.due(100.5)
    pace.take(notice(spring_ms + 23 * HOUR_MS, offset=11))
    assert pace.due(100.5)


def test_of_several_notices_the_newest_of_each_partition_counts() -> None:
    said = [notice(ms, topic=topic) for ms in (60_000, 61_000) for topic in (ORDERS, CLICKS)]
    values: list[bytes | None] = [encode(one) for all_of in said for one in all_of.values()]
    found = newest([*values, None, b"", b"no notice"])
    assert {at: one.frontier_ms for at, one in found.items()} == {
        (ORDERS, 0): 61_000,
        (CLICKS, 0): 61_000,
    }


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 90_000), st.integers(5, 200)),
    min_size=1,
    max_size=40,
)


@given(STEPS)
def test_a_new_cutoff_is_read_within_the_gap_and_reads_are_few(
    steps: Iterable[tuple[int, int, int]],
) -> None:
    """Partitions run on by themselves; each write is noticed. The oracle is the reader's own."""
    stored = {(ORDERS, n): state(NOON_MS, offset=0) for n in range(3)}
    pace = pace_of(stored, took_s=0.001)
    now_s, read_cutoff_ms, reads_s = 100.0, NOON_MS, [100.0]
    for partition, further_ms, wait in steps:
        now_s += wait / 1_000
        at, old = (ORDERS, partition), stored[ORDERS, partition]
        assert old.frontier_ms is not None
        stored[at] = state(old.frontier_ms + further_ms, offset=old.offset + 1)
        pace.take(notice(old.frontier_ms + further_ms, offset=old.offset + 1, partition=partition))
        cutoff_ms = live_cutoff_ms(stored, ORDERS, RULES.grid)
        assert cutoff_ms is not None
        if cutoff_ms > read_cutoff_ms and now_s > reads_s[-1] + 0.1001:
            assert pace.due(now_s)
        if pace.due(now_s):
            assert now_s > reads_s[-1] + 0.0999
            pace.read(stored, started_s=now_s, ended_s=now_s + 0.001)
            reads_s.append(now_s)
            read_cutoff_ms = cutoff_ms
