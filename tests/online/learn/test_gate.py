"""The gate lets a clearly better challenger through, and an equal one only rarely."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.learn.gain import relative_gain
from freshet.online.learn.gate import GuardTrial, Trial, Verdict, judge
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

ITEMS, BUCKETS, SEGMENTS = 60, 18, 6


def trial(champion: np.ndarray, challenger: np.ndarray, affected: tuple[str, ...] = ()) -> Trial:
    segments = [f"s{row * SEGMENTS // len(champion)}" for row in range(len(champion))]
    anchors = np.ones(10)
    return Trial(
        champion_IT=champion,
        challenger_IT=challenger,
        segments=segments,
        affected=frozenset(affected),
        resolution_ms=HOUR_MS,
        champion_coverage=0.8,
        challenger_coverage=0.79,
        champion_anchor_A=anchors,
        challenger_anchor_A=anchors,
        champion_ms=5.0,
        challenger_ms=5.1,
        finite=True,
    )


def verdict(case: Trial) -> Verdict:
    return judge(case, margin=0.01, confidence=0.95)


def test_the_same_forecasts_are_never_promoted() -> None:
    champion = np.random.default_rng(1).gamma(2.0, 1.0, (ITEMS, BUCKETS))
    judged = verdict(trial(champion, champion))
    assert not judged.promote
    assert judged.reason == "gain_low 0 against 0.01"


@pytest.mark.parametrize(
    ("items", "confidence", "quantile"),
    [(2, 0.95, 6.314), (2, 0.99, 31.82), (3, 0.95, 2.920), (6, 0.95, 2.015), (11, 0.975, 2.228)],
)
def test_a_gain_is_as_sure_as_the_textbooks_table_of_students_t_says(
    items: int, confidence: float, quantile: float
) -> None:
    """Items that differ and days that do not: one degree of freedom less than there are items."""
    champion = np.ones((items, 30 * 24))
    challenger = champion * np.linspace(0.6, 0.8, items)[:, None]
    found = relative_gain(champion, challenger, resolution_ms=HOUR_MS, confidence=confidence)
    by_item = np.linspace(0.6, 0.8, items) / items
    error = np.sqrt(items / (items - 1) * np.square(by_item - by_item.mean()).sum())
    assert (found.gain - found.low) / error == pytest.approx(quantile, rel=1e-3)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10.0))
def test_the_gain_does_not_depend_on_the_unit_of_the_losses(seed: int, unit: float) -> None:
    rng = np.random.default_rng(seed)
    champion, challenger = rng.gamma(2.0, 1.0, (2, 8, 12))
    one = relative_gain(champion, challenger, resolution_ms=HOUR_MS, confidence=0.95)
    other = relative_gain(
        champion * unit, challenger * unit, resolution_ms=HOUR_MS, confidence=0.95
    )
    assert other.gain == pytest.approx(one.gain, abs=1e-9)
    assert other.low == pytest.approx(one.low, abs=1e-9)


def test_days_are_the_blocks_when_there_are_enough() -> None:
    assert (
        relative_gain(
            np.ones((5, 150)), np.ones((5, 150)), resolution_ms=HOUR_MS, confidence=0.95
        ).block_ms
        == DAY_MS
    )
    short = relative_gain(
        np.ones((5, 12)), np.ones((5, 12)), resolution_ms=HOUR_MS, confidence=0.95
    )
    assert (short.block_ms, short.num_blocks) == (2 * HOUR_MS, 6)


def test_a_gain_that_one_item_makes_is_not_believed() -> None:
    champion = np.ones((ITEMS, BUCKETS))
    champion[0] = 60.0
    challenger = champion.copy()
    challenger[0] = 30.0
    judged = verdict(trial(champion, challenger))
    assert judged.gain.gain > 0.2
    assert not judged.promote


def test_missing_cells_count_for_nothing() -> None:
    rng = np.random.default_rng(2)
    champion, challenger = rng.gamma(2.0, 1.0, (2, 8, 12))
    champion[3, 4] = challenger[5, 5] = np.nan
    kept = np.isfinite(champion) & np.isfinite(challenger)
    case = replace(trial(champion, challenger), segments=["s"] * 8)
    assert verdict(case).gain.gain == pytest.approx(
        1 - challenger[kept].sum() / champion[kept].sum()
    )


def better() -> Trial:
    champion = np.random.default_rng(3).gamma(20.0, 0.05, (ITEMS, BUCKETS))
    return trial(champion, champion * 0.7)


def failed(case: Trial) -> list[str]:
    return [condition.name for condition in verdict(case).conditions if not condition.ok]


def test_a_better_model_meets_every_condition() -> None:
    assert failed(better()) == []


def test_each_guard_alone_stops_a_better_model() -> None:
    case = better()
    worse = case.challenger_IT.copy()
    worse[:10] = case.champion_IT[:10] * 1.2
    assert failed(replace(case, finite=False)) == ["finite"]
    assert failed(replace(case, challenger_coverage=0.6)) == ["coverage_distance"]
    assert failed(replace(case, challenger_anchor_A=np.full(10, 1.2))) == ["anchor_loss"]
    assert failed(replace(case, challenger_ms=11.0)) == ["latency_ratio"]
    assert failed(replace(case, challenger_IT=worse)) == ["segment_loss:s0"]


def test_more_may_be_forgotten_the_more_is_gained() -> None:
    forgets = np.full(10, 1.06)
    assert failed(replace(better(), challenger_anchor_A=forgets)) == []
    champion = better().champion_IT
    little = replace(better(), challenger_IT=champion * 0.9, challenger_anchor_A=forgets)
    assert failed(little) == ["anchor_loss"]


def guard(factor: float, items: int = 20, days: int = 12, noise: float = 0.0) -> GuardTrial:
    """Days on which the challenger loses so many times what the champion does."""
    rng = np.random.default_rng(9)
    champion = rng.gamma(20.0, 0.05, (items, days))
    challenger = champion * (factor + noise * rng.normal(size=(1, days)))
    return GuardTrial(DAY_MS, champion, challenger, finite=True)


# A gain of 30 % pays for a loss of a quarter of that, of 10 % for 5 % all the same.
@pytest.mark.parametrize(
    ("factor", "share", "holds"),
    [
        (0.5, 0.7, True),
        (1.074, 0.7, True),
        (1.076, 0.7, False),
        (1.049, 0.9, True),
        (1.051, 0.9, False),
    ],
)
def test_another_resolution_may_lose_as_much_as_may_be_forgotten(
    factor: float, share: float, holds: bool
) -> None:
    champion = better().champion_IT
    case = replace(better(), challenger_IT=champion * share, guards=(guard(factor),))
    assert failed(case) == ([] if holds else ["guard_86400000"])


def test_a_loss_at_another_resolution_that_may_be_chance_is_no_loss() -> None:
    noisy = guard(1.10, noise=0.5)
    assert failed(replace(better(), guards=(noisy,))) == []
    sure = guard(1.10, noise=0.01)
    assert failed(replace(better(), guards=(sure,))) == ["guard_86400000"]


@pytest.mark.parametrize(("items", "days", "few"), [(20, 5, True), (4, 12, True), (5, 6, False)])
def test_of_few_windows_the_loss_itself_decides_at_twice_of_that_and_it_is_said(
    items: int, days: int, few: bool
) -> None:
    for factor, holds in ((1.14, few), (1.16, False)):
        judged = verdict(replace(better(), guards=(guard(factor, items, days),)))
        report = judged.report()
        assert judged.promote is holds
        assert report["guard_86400000.few"] is few
        assert report["guard_86400000.ok"] is holds
        assert report["guard_86400000"] == pytest.approx(factor - 1.0, rel=1e-5)
        assert report["guard_86400000.threshold"] == pytest.approx(0.15 if few else 0.075)
        assert (report["guard_86400000.blocks"], report["guard_86400000.items"]) == (days, items)


def test_without_windows_of_another_resolution_nothing_is_known_against_it() -> None:
    empty = GuardTrial(MINUTE_MS, np.zeros((0, 0)), np.zeros((0, 0)), finite=True)
    unsold = GuardTrial(DAY_MS, np.zeros((9, 9)), np.zeros((9, 9)), finite=True)
    judged = verdict(replace(better(), guards=(empty, unsold)))
    assert judged.promote
    assert judged.report()["guard_60000.few"] is judged.report()["guard_86400000.few"] is True
    assert judged.report()["guard_60000.items"] == judged.report()["guard_86400000.items"] == 0.0


def test_what_a_guard_cost_is_told() -> None:
    report = verdict(replace(better(), guards=(replace(guard(1.0), seconds=1.23456),))).report()
    assert report["guard_86400000.s"] == 1.235


def test_a_forecast_that_is_not_finite_at_another_resolution_is_none() -> None:
    broken = replace(guard(0.5), finite=False)
    assert failed(replace(better(), guards=(broken,))) == ["guard_86400000"]


def test_cells_that_one_version_has_no_loss_for_guard_nothing() -> None:
    case = guard(1.0)
    challenger = case.challenger_IT.copy()
    challenger[3] = np.nan
    assert failed(replace(better(), guards=(replace(case, challenger_IT=challenger),))) == []
    poisoned = case.champion_IT.copy()
    poisoned[3] = 1e6
    both = replace(case, champion_IT=poisoned, challenger_IT=challenger * 1.2)
    assert failed(replace(better(), guards=(both,))) == ["guard_86400000"]


def test_a_drifted_segment_alone_makes_the_test_and_the_others_guard() -> None:
    case = better()
    helped = case.champion_IT.copy()
    helped[:10] *= 0.7
    assert verdict(replace(case, challenger_IT=helped, affected=frozenset({"s0"}))).promote
    harmed = case.champion_IT * 1.03
    harmed[:10] = helped[:10]
    assert "overall_gain" not in failed(
        replace(case, challenger_IT=harmed, affected=frozenset({"s0"}))
    )
    harmed[10:] = case.champion_IT[10:] * 1.08
    assert "overall_gain" in failed(replace(case, challenger_IT=harmed, affected=frozenset({"s0"})))


@pytest.mark.parametrize(
    ("champion", "challenger", "passes"),
    [
        # At most the champion's distance from 80 % and a band of 5 %, to either side.
        (0.80, 0.7501, True),
        (0.80, 0.7499, False),
        (0.80, 0.8499, True),
        (0.80, 0.8501, False),
        (0.70, 0.6501, True),
        (0.70, 0.6499, False),
        (0.70, 0.9499, True),
        (0.90, 0.6501, True),
        (0.60, 0.80, True),
        (0.30, 0.25, True),
        (0.80, 0.60, False),
    ],
)
def test_a_challengers_intervals_may_be_little_further_off_than_the_champions(
    champion: float, challenger: float, passes: bool
) -> None:
    case = replace(better(), champion_coverage=champion, challenger_coverage=challenger)
    assert failed(case) == ([] if passes else ["coverage_distance"])


def value_of(case: Trial, name: str) -> tuple[float, float]:
    (found,) = (condition for condition in verdict(case).conditions if condition.name == name)
    return found.value, found.threshold


def test_the_conditions_say_what_was_measured_and_against_what() -> None:
    case = replace(
        better(),
        champion_coverage=0.7,
        challenger_coverage=0.95,
        champion_anchor_A=np.array([[2.0, np.nan], [2.0, 4.0]]),
        challenger_anchor_A=np.array([[3.0, np.nan], [3.0, 4.0]]),
        champion_ms=4.0,
        challenger_ms=6.0,
    )
    assert value_of(case, "coverage_distance") == pytest.approx((0.15, 0.15))
    # 10 against 8; a quarter of the gain of 30 %, which is the same everywhere and so is sure.
    assert value_of(case, "anchor_loss") == pytest.approx((0.25, 0.075))
    assert value_of(case, "latency_ratio") == (1.5, 2.0)
    assert value_of(case, "overall_gain") == pytest.approx((0.3, -0.01))
    assert value_of(case, "gain_low") == pytest.approx((0.3, 0.01))
    assert value_of(case, "segment_loss:s2") == pytest.approx((-3.0 / 7.0, 0.05))
    assert value_of(case, "blocks") == (6.0, 6.0)
    assert value_of(case, "items") == (60.0, 5.0)


def test_what_is_at_most_twice_as_slow_may_serve() -> None:
    assert failed(replace(better(), champion_ms=5.0, challenger_ms=10.0)) == []
    assert failed(replace(better(), champion_ms=5.0, challenger_ms=10.1)) == ["latency_ratio"]
    no_time = replace(better(), champion_ms=0.0, challenger_ms=5.0)
    assert value_of(no_time, "latency_ratio") == (5e6, 2.0)


def test_no_gain_is_not_above_a_margin_of_nothing() -> None:
    champion = better().champion_IT
    judged = judge(trial(champion, champion), margin=0.0, confidence=0.95)
    assert [one.name for one in judged.conditions if not one.ok] == ["gain_low"]


def test_without_anchors_nothing_was_forgotten() -> None:
    nothing = np.zeros(0)
    case = replace(better(), champion_anchor_A=nothing, challenger_anchor_A=nothing)
    assert value_of(case, "anchor_loss")[0] == 0.0
    assert failed(case) == []


def test_a_twentieth_may_be_forgotten_however_little_is_gained() -> None:
    case = better()
    little = replace(case, challenger_IT=case.champion_IT * 0.96)
    assert value_of(little, "anchor_loss")[1] == 0.05
    for factor, stops in ((1.049, []), (1.051, ["anchor_loss"])):
        changed = replace(little, challenger_anchor_A=case.champion_anchor_A * factor)
        assert failed(changed) == stops


def test_just_as_much_may_be_forgotten_as_is_allowed() -> None:
    case = better()
    half = replace(case, challenger_IT=case.champion_IT * 0.5)
    assert value_of(half, "anchor_loss")[1] == 0.125, "a quarter of the gain"
    for factor, stops in ((1.125, []), (1.126, ["anchor_loss"])):
        changed = replace(half, challenger_anchor_A=case.champion_anchor_A * factor)
        assert failed(changed) == stops


def test_what_may_be_forgotten_hangs_on_the_sure_end_of_the_gain() -> None:
    """Items gain between nothing and 60 %: 30 % on average, and surely much less."""
    case = better()
    share_I1 = np.linspace(0.4, 1.0, ITEMS)[:, None]
    unsure = replace(
        case, challenger_IT=case.champion_IT * np.random.default_rng(0).permutation(share_I1)
    )
    gain = verdict(unsure).gain
    assert gain.gain - gain.low > 0.02
    between = 1.0 + 0.25 * (gain.low + gain.gain) / 2.0
    below = 1.0 + 0.25 * gain.low - 1e-6
    assert "anchor_loss" in failed(replace(unsure, challenger_anchor_A=np.full(10, between)))
    assert "anchor_loss" not in failed(replace(unsure, challenger_anchor_A=np.full(10, below)))


@pytest.mark.parametrize(("worse", "stops"), [(1.04, False), (1.06, True), (0.5, False)])
def test_a_segment_may_not_get_worse_by_more_than_a_twentieth(worse: float, stops: bool) -> None:
    case = better()
    challenger = case.challenger_IT.copy()
    challenger[20:30] = case.champion_IT[20:30] * worse
    # Harm is the champion's gain over the challenger: 0.06 of 1.06 is more than a twentieth.
    harm = 1.0 - 1.0 / worse
    changed = replace(case, challenger_IT=challenger)
    assert value_of(changed, "segment_loss:s2") == pytest.approx((harm, 0.05))
    assert failed(changed) == (["segment_loss:s2"] if stops else [])


def test_a_segment_that_chance_alone_makes_worse_stops_nobody() -> None:
    """One item of ten loses three times as much, the others nothing: 17 % and no evidence."""
    case = better()
    challenger = case.challenger_IT.copy()
    challenger[20:30] = case.champion_IT[20:30]
    challenger[20] *= 3.0
    changed = replace(case, challenger_IT=challenger)
    assert value_of(changed, "segment_loss:s2")[0] > 0.1
    assert failed(changed) == []


def test_the_worst_segments_are_told_first_and_no_more_than_twenty() -> None:
    champion = np.ones((60, BUCKETS))
    challenger = champion * np.repeat(np.linspace(0.5, 0.8, 30), 2)[:, None]
    # Both items of s04 lose half as much again; of s07 one loses three times as much, by chance.
    challenger[8:10] = 1.5
    challenger[14:16] = [[3.0], [1.0]]
    segments = [f"s{row // 2:02d}" for row in range(60)]
    conditions = verdict(replace(trial(champion, challenger), segments=segments)).conditions
    told = [one.name for one in conditions if one.name.startswith("segment_loss")]
    expected = [4, 7, *range(29, 11, -1)]
    assert told == [f"segment_loss:s{number:02d}" for number in expected]


@pytest.mark.parametrize(("members", "own_test"), [(4, False), (5, True)])
def test_a_drifted_segment_of_fewer_than_five_items_makes_no_test_of_its_own(
    members: int, own_test: bool
) -> None:
    case = better()
    segments = ["few" if row < members else "many" for row in range(ITEMS)]
    changed = replace(case, segments=segments, affected=frozenset({"few"}))
    assert verdict(changed).gain.num_items == (members if own_test else ITEMS)


def test_of_several_drifted_segments_the_surest_gain_decides() -> None:
    case = better()
    challenger = case.champion_IT.copy()
    # The gain of s1 is larger and made by one item; that of s4 is everywhere.
    challenger[10] = 0.0
    challenger[11:20] *= 0.75
    challenger[40:50] *= 0.8
    changed = replace(case, challenger_IT=challenger, affected=frozenset({"s1", "s3", "s4"}))
    found = verdict(changed).gain
    assert found.gain == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2)


def test_five_items_in_six_blocks_are_enough_and_one_less_is_not() -> None:
    champion = np.random.default_rng(3).gamma(20.0, 0.05, (5, 6))
    segments = ["s"] * 5
    enough = replace(trial(champion, champion * 0.5), segments=segments)
    assert failed(enough) == []
    fewer = replace(trial(champion[:4], champion[:4] * 0.5), segments=segments[:4])
    assert failed(fewer) == ["items"]
    shorter = replace(trial(champion[:, :5], champion[:, :5] * 0.5), segments=segments)
    assert failed(shorter) == ["blocks"]


def test_a_gain_must_be_surely_above_the_margin() -> None:
    champion = better().champion_IT
    for gain, promoted in ((0.0101, True), (0.0099, False)):
        assert verdict(trial(champion, champion * (1.0 - gain))).promote is promoted


def test_the_standard_error_is_that_of_the_textbook_for_blocks_and_items() -> None:
    """Clustered two ways, written out with loops: time, items, less each cell counted twice.

    Two items that sold nothing come last: as cells they count, as items they do not.
    """
    rng = np.random.default_rng(8)
    champion = rng.gamma(5.0, 0.001, (7, 13))
    # Whole hours and whole items are better or worse, beside noise of each cell.
    share = (
        rng.normal(0.8, 0.1, (7, 1))
        + rng.normal(0.0, 0.1, (1, 13))
        + rng.normal(0.0, 0.02, (7, 13))
    )
    challenger = champion * share
    idle = np.zeros((2, 13))
    found = relative_gain(
        np.vstack([champion, idle]),
        np.vstack([challenger, idle]),
        resolution_ms=HOUR_MS,
        confidence=0.9,
    )
    assert (found.num_items, found.num_blocks, found.block_ms) == (7, 6, 2 * HOUR_MS)
    total = champion.sum()
    gain = 1.0 - challenger.sum() / total
    # The newest twelve hours make six blocks of two; the oldest hour joins the first.
    blocks = [[0, 1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    cells = [
        [
            sum((1.0 - gain) * champion[row, hour] - challenger[row, hour] for hour in block)
            for block in blocks
        ]
        for row in range(7)
    ]
    by_time = 6 / 5 * sum(sum(cells[row][k] for row in range(7)) ** 2 for k in range(6))
    by_item = 7 / 6 * sum(sum(cells[row]) ** 2 for row in range(7))
    by_cell = 54 / 53 * sum(cells[row][k] ** 2 for row in range(7) for k in range(6))
    assert by_time + by_item - by_cell > max(by_time, by_item), "or the test says little"
    weights = champion.sum(1)
    effective = weights.sum() ** 2 / (weights**2).sum()
    assert effective > 6.0, "so that blocks are fewer"
    # Student's t for five degrees of freedom at 90 %, one-sided.
    low = gain - 1.4759 * math.sqrt(by_time + by_item - by_cell) / total
    assert found.gain == pytest.approx(gain)
    assert found.low == pytest.approx(low, rel=1e-4)


@pytest.mark.parametrize(("items", "buckets"), [(1, 12), (6, 1)])
def test_one_item_or_one_block_is_no_evidence(items: int, buckets: int) -> None:
    champion = np.ones((items, buckets))
    found = relative_gain(champion, champion / 2, resolution_ms=HOUR_MS, confidence=0.95)
    assert (found.gain, found.low) == (0.0, -math.inf)


@pytest.mark.parametrize(
    ("buckets", "resolution_ms", "block_ms", "blocks"),
    [
        (144, HOUR_MS, 24 * HOUR_MS, 6),
        (143, HOUR_MS, 12 * HOUR_MS, 11),
        (71, HOUR_MS, 8 * HOUR_MS, 8),
        (47, HOUR_MS, 6 * HOUR_MS, 7),
        (35, HOUR_MS, 4 * HOUR_MS, 8),
        (23, HOUR_MS, 3 * HOUR_MS, 7),
        (17, HOUR_MS, 2 * HOUR_MS, 8),
        (11, HOUR_MS, HOUR_MS, 11),
        (6, HOUR_MS, HOUR_MS, 6),
        (5, HOUR_MS, HOUR_MS, 5),
        (6, DAY_MS, DAY_MS, 6),
        (13, DAY_MS, DAY_MS, 13),
        (13, 2 * DAY_MS, 4 * DAY_MS, 6),
        (24, HOUR_MS // 4, HOUR_MS, 6),
        (13, HOUR_MS // 4, HOUR_MS // 2, 6),
    ],
)
def test_blocks_are_the_longest_of_which_there_are_six(
    buckets: int, resolution_ms: int, block_ms: int, blocks: int
) -> None:
    ones = np.ones((5, buckets))
    found = relative_gain(ones, ones, resolution_ms=resolution_ms, confidence=0.95)
    assert (found.block_ms, found.num_blocks) == (block_ms, blocks)


def test_too_few_buckets_are_not_enough() -> None:
    champion = np.random.default_rng(4).gamma(2.0, 1.0, (ITEMS, 4))
    assert "blocks" in failed(trial(champion, champion * 0.5))


def test_the_report_is_plain_json_with_every_condition() -> None:
    judged = verdict(trial(np.zeros((ITEMS, BUCKETS)), np.zeros((ITEMS, BUCKETS))))
    flat = judged.report()
    assert flat["verdict"] == "reject"
    assert flat["gain_low"] == "-inf"
    assert len(judged.conditions) >= 8 + SEGMENTS
    assert all(f"{condition.name}.ok" in flat for condition in judged.conditions)


def test_the_report_has_each_conditions_value_and_threshold_in_six_digits() -> None:
    case = replace(better(), champion_ms=3.0, challenger_ms=4.0, affected=frozenset({"s0"}))
    flat = verdict(case).report()
    assert (flat["verdict"], flat["latency_ratio"], flat["latency_ratio.threshold"]) == (
        "promote",
        1.33333,
        2.0,
    )
    assert (flat["latency_ratio.ok"], flat["gain_low.threshold"]) == (True, 0.01)
    assert (flat["gain"], flat["blocks"], flat["block_ms"]) == (0.3, 6.0, 3.0 * HOUR_MS)
    unsure = replace(case, challenger_IT=case.champion_IT * np.linspace(0.4, 1, ITEMS)[:, None])
    told = verdict(replace(unsure, affected=frozenset())).report()
    assert float(told["gain"]) > float(told["gain_low"])


# How often, over a thousand draws -----------------------------------------------------------------


def losses(rng: np.random.Generator, shared: np.ndarray, error: float) -> np.ndarray:
    """Losses of one model: what both share, an error per item and one that lasts for hours."""
    item = np.exp(error * rng.normal(size=(ITEMS, 1)))
    hours = np.zeros(BUCKETS)
    for t in range(BUCKETS):
        hours[t] = 0.7 * hours[t - 1] * (t > 0) + rng.normal()
    return shared * item * np.exp(error * 0.5 * hours)


def rate(gain: float, draws: int = 1_000, affected: tuple[str, ...] = ()) -> float:
    """Share of draws promoted when the challenger's losses are smaller by `gain` on average."""
    promoted = 0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        # What both share: heavy-tailed sales of items and the noise of each hour.
        shared = rng.lognormal(0, 1.2, (ITEMS, 1)) * rng.gamma(2.0, 0.5, (ITEMS, BUCKETS))
        pair = losses(rng, shared, 0.05), (1 - gain) * losses(rng, shared, 0.05)
        promoted += verdict(trial(*pair, affected=affected)).promote
    return promoted / draws


def test_an_equal_model_is_promoted_rarely() -> None:
    assert rate(0.0) <= 0.06, "measured: 4.8 % of 1,500 draws"


def test_looking_at_several_segments_does_not_promote_an_equal_model_more_often() -> None:
    assert rate(0.0, affected=("s0", "s1", "s4")) <= 0.06, "measured: 2.9 % of 1,500 draws"


def test_a_clearly_better_model_is_usually_promoted() -> None:
    assert rate(0.12, draws=200) >= 0.9, "measured: 99 % of 1,500 draws"
