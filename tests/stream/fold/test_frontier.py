"""The frontier where producers stamp records: by the rules read out, and with clocks run wild."""

from __future__ import annotations

import json
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import Settings, WindowSettings
from freshet.stream.fold.frontier import NEVER_MS, LargestTime, RankedTime, Reach, rule_of
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.stream.fold.windows_checks import (
    START_MS,
    Driver,
    LogRecord,
    MemoryStore,
    NaiveFrontier,
    stored_state,
)

SMALL = Settings(windows=WindowSettings(frontier_rank=3, max_step_ms=60, max_ahead_ms=600))
RULE = rule_of(SMALL.windows, "CreateTime")
# Runs of times near one place: gaps, returns, and one that runs away.
RUNS = st.lists(
    st.tuples(st.sampled_from([0, 50, 200, 900]), st.lists(st.integers(0, 70), max_size=30)),
    max_size=8,
)
EVENTS = RUNS.map(lambda runs: [at + time for at, times in runs for time in times])


def follow(times: list[int], reach: Reach, counts: list[bool] | None = None):
    column = np.array(times, np.int64)
    return RULE.follow(column, np.array(counts or [True] * len(times), np.bool_), reach)


@given(EVENTS, st.randoms(use_true_random=False))
def test_columns_are_followed_as_event_by_event(times: list[int], rng: random.Random) -> None:
    counts = [rng.random() < 0.9 for _ in times]
    naive, expected = NaiveFrontier(SMALL), []
    for time_ms, count in zip(times, counts, strict=True):
        before_ms = naive.frontier_ms
        expected.append((NEVER_MS if before_ms is None else before_ms, naive.too_far(time_ms)))
        if count:
            naive.count(time_ms)
    found = follow(times, Reach(), counts)
    assert list(zip(found.before_ms.tolist(), found.too_far.tolist(), strict=True)) == expected
    last_ms = naive.frontier_ms
    assert found.reach.frontier_ms == (NEVER_MS if last_ms is None else last_ms)
    assert found.reach.ahead.events == len(naive.row)


@given(EVENTS, st.integers(0, 100), st.integers(0, 100))
def test_three_batches_are_followed_as_one(times: list[int], first: int, second: int) -> None:
    whole = follow(times, Reach())
    reach, before = Reach(), []
    for part in (times[:first], times[first : first + second], times[first + second :]):
        followed = follow(part, reach)
        before += followed.before_ms.tolist()
        reach = followed.reach
    assert before == whole.before_ms.tolist()
    assert reach == whole.reach
    assert sorted(before) == before, "it never falls"


def test_there_is_no_frontier_before_three_events_and_then_it_is_the_third_largest() -> None:
    found = follow([10, 40, 30, 20, 35], Reach())
    assert found.before_ms.tolist() == [NEVER_MS] * 3 + [10, 20]
    assert found.reach == Reach(30, (40, 35, 30))


def test_a_row_of_twenty_that_spans_a_sixth_of_a_step_is_a_shop_that_woke_up() -> None:
    awake = [0, 1, 2]
    found = follow([*awake, *range(100, 119)], Reach())
    assert (found.reach.frontier_ms, found.reach.ahead.events) == (0, 19)
    woken = follow([119, 121], found.reach)
    assert woken.before_ms.tolist() == [0, 100], "the smallest of the row"
    assert woken.reach == Reach(100, (121, 100, 100))
    brief = follow([*awake, *[100 + n % 10 for n in range(50)]], Reach())
    assert brief.reach.frontier_ms == 0, "fifty within nine milliseconds are one producer's batch"


def test_five_that_span_half_a_step_are_a_small_shop_that_woke_up() -> None:
    found = follow([0, 1, 2, 100, 130, 110, 120], Reach())
    assert (found.reach.frontier_ms, found.reach.ahead.events) == (0, 4), "four that span thirty"
    assert follow([129], found.reach).reach == Reach(100, (100, 100, 100))
    brief = follow([0, 1, 2, 100, 105, 110, 120, 129], Reach())
    assert brief.reach.frontier_ms == 0, "they span 29"
    doubted = follow([0, 1, 2, 100, 3, 110, 120, 130, 140, 150], Reach())
    assert doubted.reach.frontier_ms == 1, "somebody's clock is wrong: five are too few"


def test_one_that_says_otherwise_breaks_the_row_and_the_next_must_be_six_times_as_long() -> None:
    broken = follow([0, 1, 2, *range(100, 119), 3, *range(119, 150)], Reach())
    assert (broken.reach.frontier_ms, broken.reach.ahead.events) == (1, 31)
    assert broken.reach.doubted_ms == 0
    assert follow([178], broken.reach).reach.frontier_ms == 1
    assert follow([179], broken.reach).reach.frontier_ms == 119, "it spans a whole step"
    later = RULE.begin(600)
    trusting = follow([*range(700, 720)], Reach(600, later.top_ms, later.ahead, doubted_ms=0))
    assert trusting.reach.frontier_ms == 700, "that was long ago"


def test_a_frontier_that_begins_at_a_time_follows_from_there() -> None:
    assert RULE.begin(500) == Reach(500, (500, 500, 500))
    found = follow([400, 450, 520, 530, 900], RULE.begin(500))
    assert found.reach == Reach(500, (530, 520, 500), found.reach.ahead)
    assert found.reach.ahead.events == 1


def test_nothing_is_too_far_from_where_history_ends_before_live_events_have_moved_it() -> None:
    windows = SMALL.windows.model_copy(update={"history_before": 500})
    rule = rule_of(windows, "CreateTime")
    times = np.array([9_000, *range(3_000, 3_025), 9_000])
    found = rule.follow(times, np.ones(len(times), np.bool_), rule.begin(500))
    assert found.reach.top_ms == (3_024, 3_023, 3_022), "five in a row, and those after them"
    assert found.too_far.tolist() == [False] * 26 + [True]
    moved = follow(times.tolist(), RULE.begin(500))
    assert moved.too_far.tolist() == [True] * 5 + [False] * 21 + [True], "elsewhere it is"


@pytest.mark.parametrize("stamps", ["LogAppendTime", ""])
def test_where_kafka_stamps_records_the_largest_time_is_followed(stamps: str) -> None:
    assert isinstance(rule_of(WindowSettings(), stamps), LargestTime)
    assert isinstance(rule_of(WindowSettings(frontier_rank=1), "CreateTime"), LargestTime)
    assert rule_of(WindowSettings(), "CreateTime") == RankedTime(3, HOUR_MS, 7 * DAY_MS)


# Clocks run wild ----------------------------------------------------------------------------------

SHOP = Settings(
    windows=WindowSettings(
        resolutions=(
            {"resolution_ms": MINUTE_MS, "buckets": 10_000},
            {"resolution_ms": HOUR_MS, "buckets": 20_000},
        ),
    ),
    worker={"resolution_ms": HOUR_MS},
)
HONEST_SKUS = ["a", "b", "c"]


def order(number: int, sku: str, time_ms: int) -> LogRecord:
    """Its producer's clock stamps the record too."""
    event = {"event_id": f"e{number}", "event_time": time_ms, "sku": sku, "region": "n"}
    value = json.dumps(event | {"quantity": 1, "unit_price": 1}).encode()
    return LogRecord(value, time_ms)


def mixed_log(share: float, ahead_ms: int, batch: int) -> list[LogRecord]:
    """Six hours of orders, four a minute; batches of a producer whose clock is wrong among them."""
    rng, log = random.Random(7), []
    for number in range(1_440):
        if number % batch == 0:
            wild = number > 0 and rng.random() < share
        time_ms = START_MS + number * 15_000 - rng.randrange(3_000)
        sku = "wild" if wild else HONEST_SKUS[number % 3]
        log.append(order(number, sku, time_ms + (ahead_ms if wild else 0)))
    return log


def folded(log: list[LogRecord], size: int = 97):
    store = MemoryStore()
    driver = Driver(store, "orders", SHOP, log, "CreateTime")
    driver.drain(size)
    return stored_state(store, store, driver.topic, SHOP)


@pytest.mark.parametrize("batch", [1, 20])
@pytest.mark.parametrize("share", [0.1, 0.25])
@pytest.mark.parametrize("ahead_ms", [2 * HOUR_MS, DAY_MS, 365 * DAY_MS])
def test_one_clock_that_runs_wild_costs_the_others_nothing(
    ahead_ms: int, share: float, batch: int
) -> None:
    log = mixed_log(share, ahead_ms, batch)
    found = folded(log)
    honest = [json.loads(record.value) for record in log if b'"wild"' not in record.value]
    expected = Counter((one["event_time"] // HOUR_MS, one["sku"]) for one in honest)
    sold = {
        (bucket, item.removesuffix("|n")): count
        for (width, bucket, item, channel), count in found["sums"].items()
        if (width, channel) == (HOUR_MS, "orders") and item != "wild|n"
    }
    assert sold == expected
    header, wild = found["header"], len(log) - len(honest)
    assert header["late_dropped"] == 0
    assert header["dead_letter"] == (wild if ahead_ms > 7 * DAY_MS else 0)
    newest_ms = max(one["event_time"] for one in honest)
    assert newest_ms - 5 * MINUTE_MS < header["frontier_ms"] <= newest_ms


def test_a_small_shop_goes_on_at_the_fifth_order_after_its_night() -> None:
    """Three orders an hour; the first four of a morning wait for the fifth, and none is lost."""
    evening = [START_MS + n * 20 * MINUTE_MS for n in range(9)]
    morning = [evening[-1] + 9 * HOUR_MS + n * 20 * MINUTE_MS for n in range(5)]
    times = evening + morning
    woken = folded([order(n, "a", at) for n, at in enumerate(times)])["header"]
    assert woken["frontier_ms"] == morning[0]
    asleep = folded([order(n, "a", at) for n, at in enumerate(times[:-1])])["header"]
    assert asleep["frontier_ms"] == evening[-3]
    assert (woken["applied"], woken["late_dropped"], woken["dead_letter"]) == (14, 0, 0)


@pytest.mark.parametrize("gap_ms", [9 * HOUR_MS, 62 * HOUR_MS, 6 * DAY_MS, 14 * DAY_MS])
def test_a_shop_that_sleeps_loses_nothing_below_seven_days(gap_ms: int) -> None:
    times = [START_MS + n * 15_000 for n in range(200)]
    times += [times[-1] + gap_ms + n * 15_000 for n in range(200)]
    header = folded([order(n, "a", at) for n, at in enumerate(times)])["header"]
    assert header["late_dropped"] == 0
    lost = header["dead_letter"]
    # Ten minutes of four orders each are refused before a sleep of weeks is believed.
    assert lost == (41 if gap_ms > 7 * DAY_MS else 0)
    assert header["applied"] == 400 - lost
    assert header["frontier_ms"] == times[-3]
