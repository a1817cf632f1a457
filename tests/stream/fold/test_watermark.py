"""Future and late, against the rules read out record by record."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import WindowSettings
from freshet.stream.fold.frontier import NEVER_MS, Reach
from freshet.stream.fold.watermark import Aside, TimeRules, time_verdicts

RULES = st.builds(TimeRules, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
RECORDS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40)


def judge(records: list[tuple[int, int]], frontier_ms: int, rules: TimeRules):
    times, stamps = np.array(records, np.int64).reshape(-1, 2).T
    return time_verdicts(times, stamps, Reach(frontier_ms), rules)


@given(RECORDS, RULES)
def test_columns_are_judged_as_record_by_record(
    records: list[tuple[int, int]], rules: TimeRules
) -> None:
    frontier = None
    expected = []
    for time, stamp in records:
        future = time > stamp + rules.max_future_ms
        watermark = None if frontier is None else frontier - rules.out_of_order_ms
        late = not future and watermark is not None and time + rules.allowed_lateness_ms < watermark
        expected.append((future, late))
        if not future:
            frontier = time if frontier is None else max(frontier, time)
    verdict = judge(records, NEVER_MS, rules)
    assert list(zip(verdict.future.tolist(), verdict.too_late.tolist(), strict=True)) == expected
    assert verdict.frontier_ms == (NEVER_MS if frontier is None else frontier)


@given(RECORDS, RULES, st.integers(0, 40))
def test_two_batches_are_judged_as_one(
    records: list[tuple[int, int]], rules: TimeRules, cut: int
) -> None:
    whole = judge(records, NEVER_MS, rules)
    first = judge(records[:cut], NEVER_MS, rules)
    second = judge(records[cut:], first.frontier_ms, rules)
    assert whole.too_late.tolist() == first.too_late.tolist() + second.too_late.tolist()
    assert whole.watermark_ms.tolist() == first.watermark_ms.tolist() + second.watermark_ms.tolist()
    assert whole.frontier_ms == second.frontier_ms


@given(RECORDS, RULES)
def test_the_watermark_never_falls(records: list[tuple[int, int]], rules: TimeRules) -> None:
    verdict = judge(records, NEVER_MS, rules)
    assert (np.diff(verdict.watermark_ms) >= 0).all()
    assert verdict.frontier_ms - rules.out_of_order_ms >= verdict.watermark_ms.max(
        initial=NEVER_MS - 10
    )


def test_a_record_exactly_at_a_limit_is_neither_future_nor_late() -> None:
    rules = TimeRules(out_of_order_ms=5, allowed_lateness_ms=10, max_future_ms=20)
    verdict = judge([(100, 80), (85, 85), (84, 84), (101, 80)], NEVER_MS, rules)
    assert verdict.too_late.tolist() == [False, False, True, False]
    assert verdict.future.tolist() == [False, False, False, True]
    assert verdict.frontier_ms == 100


def test_no_records_leave_the_frontier() -> None:
    assert judge([], 7, TimeRules(1, 1, 1)).frontier_ms == 7


def test_each_record_is_judged_by_the_watermark_before_it() -> None:
    rules = TimeRules(out_of_order_ms=5, allowed_lateness_ms=10, max_future_ms=20)
    records = [(400, 100), (100, 100), (130, 130), (114, 130), (115, 130), (99, 130)]
    verdict = judge(records, 90, rules)
    assert verdict.watermark_ms.tolist() == [85, 85, 95, 125, 125, 125]
    assert verdict.future.tolist() == [True, False, False, False, False, False]
    assert verdict.too_late.tolist() == [False, False, False, True, False, True]
    assert verdict.frontier_ms == 130
    assert verdict.first_ms == 90, "there was one before them"
    begun = judge(records, NEVER_MS, rules)
    assert begun.first_ms == 100, "the first in the log, neither the future one nor the smallest"


def test_an_event_at_the_beginning_of_time_is_one_and_moves_the_frontier() -> None:
    verdict = judge([(0, 0)], NEVER_MS, TimeRules(5, 10, 20))
    assert (verdict.frontier_ms, verdict.first_ms) == (0, 0)
    assert NEVER_MS < 0, "before the first event, no event has come yet"


def test_a_redriven_record_is_never_late_leaves_the_frontier_and_is_not_the_first() -> None:
    rules = TimeRules(out_of_order_ms=5, allowed_lateness_ms=10, max_future_ms=20)
    times, stamps = np.array([300, 900, 100, 7, 120]), np.array([300, 300, 100, 100, 120])
    redriven = Aside(np.array([True, False, False, True, False]), np.zeros(5, bool))
    verdict = time_verdicts(times, stamps, Reach(), rules, redriven)
    assert verdict.too_late.tolist() == [False] * 5
    assert verdict.future.tolist() == [False, True, False, False, False]
    assert (verdict.first_ms, verdict.frontier_ms) == (100, 120)
    one = Aside(redriven.redriven[:1], redriven.history[:1])
    aside = time_verdicts(times[:1], stamps[:1], Reach(), rules, one)
    assert (aside.first_ms, aside.frontier_ms) == (None, NEVER_MS)
    assert judge([], NEVER_MS, rules).first_ms is None


def test_a_record_of_history_is_never_late_nor_from_the_future_and_moves_nothing() -> None:
    rules = TimeRules(out_of_order_ms=5, allowed_lateness_ms=10, max_future_ms=20)
    times, stamps = np.array([100, 7, 900, 120]), np.array([100, 100, 100, 120])
    history = Aside(np.zeros(4, bool), np.array([False, True, True, False]))
    verdict = time_verdicts(times, stamps, Reach(), rules, history)
    assert not verdict.too_late.any() and not verdict.future.any()
    assert verdict.watermark_ms.tolist()[1:] == [95, 95, 95]
    assert verdict.frontier_ms == 120


def test_rules_are_taken_from_the_settings_each_from_its_own() -> None:
    windows = WindowSettings(out_of_order_ms=1, allowed_lateness_ms=2, max_future_ms=3)
    assert TimeRules.of(windows) == TimeRules(1, 2, 3)
