"""Future and late, against the rules read out record by record."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.fold.watermark import NEVER_MS, TimeRules, time_verdicts

RULES = st.builds(TimeRules, st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
RECORDS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=40)


def judge(records: list[tuple[int, int]], frontier_ms: int, rules: TimeRules):
    times, stamps = np.array(records, np.int64).reshape(-1, 2).T
    return time_verdicts(times, stamps, frontier_ms, rules)


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
