"""The gate lets a clearly better challenger through, and an equal one only rarely."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.judge.gain import relative_gain
from freshet.online.judge.gate import Trial, Verdict, judge
from freshet.online.judge.rows import Before
from freshet.online.judge.sequential import Plan
from freshet.online.judge.standing import Guarded, Standing, guarded
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

ITEMS, BUCKETS, SEGMENTS = 60, 18, 6
ONE_LOOK = Plan(0.05, (1.0,))
# A week of which every day is like every other: nothing is left to chance.
STEADY = 7


def trial(champion: np.ndarray, challenger: np.ndarray, affected: tuple[str, ...] = ()) -> Trial:
    segments = [f"s{row * SEGMENTS // len(champion)}" for row in range(len(champion))]
    same = np.ones((len(champion), STEADY))
    return Trial(
        champion_IT=champion,
        challenger_IT=challenger,
        segments=segments,
        affected=frozenset(affected),
        resolution_ms=HOUR_MS,
        champion_covered_IT=np.full_like(champion, 0.8),
        challenger_covered_IT=np.full_like(champion, 0.79),
        finite=True,
        standing=Standing(),
        before=Before(same, same, np.zeros(STEADY, np.int64)),
    )


def verdict(case: Trial, plan: Plan = ONE_LOOK, look: int = 0) -> Verdict:
    return judge(case, margin=0.01, plan=plan, look=look)


def covered(case: Trial, champion: float, challenger: float) -> Trial:
    """The trial of versions whose intervals hold so much everywhere."""
    return replace(
        case,
        champion_covered_IT=np.full_like(case.champion_IT, champion),
        challenger_covered_IT=np.full_like(case.champion_IT, challenger),
    )


def standing(case: Trial, **over: object) -> Trial:
    """The trial of a challenger of which something else was measured."""
    return replace(case, standing=msgspec.structs.replace(case.standing, **over))


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
    assert judged.reason == "gain_without_best_item 0 against 0"


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
    assert failed(standing(case, finite=False)) == ["finite"]
    assert failed(covered(case, 0.8, 0.6)) == ["coverage_distance"]
    assert failed(standing(case, anchor_loss=0.2)) == ["anchor_loss"]
    assert failed(standing(case, anchor_loss_to_base=0.101)) == ["anchor_loss_to_base"]
    assert failed(standing(case, latency_ratio=2.2)) == ["latency_ratio"]
    assert failed(replace(case, challenger_IT=worse)) == ["segment_loss:s0"]


def test_more_may_be_forgotten_the_more_is_gained() -> None:
    case = better()
    assert failed(standing(case, anchor_loss=0.06)) == []
    little = replace(case, challenger_IT=case.champion_IT * 0.9)
    assert failed(standing(little, anchor_loss=0.06)) == ["anchor_loss"]


def days_of(factor: float, items: int, days: int, noise: float) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(9)
    champion = rng.gamma(20.0, 0.05, (items, days))
    return champion, champion * (factor + noise * rng.normal(size=(1, days)))


def guard(factor: float, items: int = 20, days: int = 12, noise: float = 0.0) -> Guarded:
    """Days on which the challenger loses so many times what the champion does."""
    losses = days_of(factor, items, days, noise)
    return guarded(*losses, resolution_ms=DAY_MS, finite=True)


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
    case = standing(replace(better(), challenger_IT=champion * share), guards=(guard(factor),))
    assert failed(case) == ([] if holds else ["guard_86400000"])


def test_a_loss_at_another_resolution_that_may_be_chance_is_no_loss() -> None:
    noisy = guard(1.10, noise=0.5)
    assert failed(standing(better(), guards=(noisy,))) == []
    sure = guard(1.10, noise=0.01)
    assert failed(standing(better(), guards=(sure,))) == ["guard_86400000"]


@pytest.mark.parametrize(("items", "days", "few"), [(20, 5, True), (4, 12, True), (5, 6, False)])
def test_of_few_windows_the_loss_itself_decides_at_twice_of_that_and_it_is_said(
    items: int, days: int, few: bool
) -> None:
    for factor, holds in ((1.14, few), (1.16, False)):
        judged = verdict(standing(better(), guards=(guard(factor, items, days),)))
        report = judged.report()
        assert judged.promote is holds
        assert report["guard_86400000.few"] is few
        assert report["guard_86400000.ok"] is holds
        assert report["guard_86400000"] == pytest.approx(factor - 1.0, rel=1e-5)
        assert report["guard_86400000.threshold"] == pytest.approx(0.15 if few else 0.075)
        assert (report["guard_86400000.blocks"], report["guard_86400000.items"]) == (days, items)


def test_without_windows_of_another_resolution_nothing_is_known_against_it() -> None:
    nothing, zeros = np.zeros((0, 0)), np.zeros((9, 9))
    empty = guarded(nothing, nothing, resolution_ms=MINUTE_MS, finite=True)
    unsold = guarded(zeros, zeros, resolution_ms=DAY_MS, finite=True)
    judged = verdict(standing(better(), guards=(empty, unsold)))
    assert judged.promote
    assert judged.report()["guard_60000.few"] is judged.report()["guard_86400000.few"] is True
    assert judged.report()["guard_60000.items"] == judged.report()["guard_86400000.items"] == 0.0


def test_what_a_guard_cost_is_told() -> None:
    losses = days_of(1.0, 20, 12, 0.0)
    timed = guarded(*losses, resolution_ms=DAY_MS, finite=True, seconds=1.23456)
    assert verdict(standing(better(), guards=(timed,))).report()["guard_86400000.s"] == 1.235


def test_a_forecast_that_is_not_finite_at_another_resolution_is_none() -> None:
    broken = msgspec.structs.replace(guard(0.5), finite=False)
    assert failed(standing(better(), guards=(broken,))) == ["guard_86400000"]


def test_cells_that_one_version_has_no_loss_for_guard_nothing() -> None:
    champion, challenger = days_of(1.0, 20, 12, 0.0)
    challenger[3] = np.nan
    champion[3] = 1e6
    found = guarded(champion, challenger * 1.2, resolution_ms=DAY_MS, finite=True)
    assert (found.items, found.loss) == (19, pytest.approx(0.2))
    assert failed(standing(better(), guards=(found,))) == ["guard_86400000"]


def test_a_drifted_segment_alone_makes_the_test_and_the_others_guard() -> None:
    case = better()
    helped = case.champion_IT.copy()
    helped[:10] *= 0.7
    assert verdict(replace(case, challenger_IT=helped, affected=frozenset({"s0"}))).promote
    case = replace(case, alone=False, affected=frozenset({"s0"}))
    harmed = case.champion_IT * 1.03
    harmed[:10] = helped[:10]
    assert "overall_gain" not in failed(replace(case, challenger_IT=harmed))
    harmed[10:] = case.champion_IT[10:] * 1.08
    assert "overall_gain" in failed(replace(case, challenger_IT=harmed))


def by_segment(*factors: float, named: tuple[str, ...] = ("s0", "s1")) -> Trial:
    """A trial of what loses so many times what the champion does, in s0, in s1 and so on."""
    case = better()
    factor_I = np.repeat([*factors, *[1.0] * (SEGMENTS - len(factors))], ITEMS // SEGMENTS)
    return replace(
        case, challenger_IT=case.champion_IT * factor_I[:, None], affected=frozenset(named)
    )


@pytest.mark.parametrize(
    ("factors", "named", "segments"),
    [
        ((0.7, 0.7), ("s0", "s1"), ()),  # nobody is harmed: everybody
        ((0.7, 0.7, 1.2), ("s0", "s1"), ("s0", "s1")),
        ((0.7, 1.2), ("s0", "s1"), ("s0",)),
        ((1.2, 0.7), ("s0", "s1"), ("s1",)),
        ((0.7, 1.0, 1.2), ("s0", "s1"), ("s0",)),  # not shown in s1
        ((0.7, 0.7, 1.2), ("s0",), ("s0",)),  # s1 was not tested
    ],
)
def test_where_others_would_be_harmed_it_serves_whom_it_was_shown_to_help(
    factors: tuple[float, ...], named: tuple[str, ...], segments: tuple[str, ...]
) -> None:
    found = verdict(by_segment(*factors, named=named))
    assert (found.decision, found.segments) == ("promote", segments)
    assert found.report().get("for", "") == ", ".join(segments)
    assert not found.reason, "what holds for these is told, not what others would have lost"


def test_who_is_better_without_being_sure_is_served_where_all_that_were_named_are_sure() -> None:
    """Days differ by a tenth in each, in opposite directions: together they do not differ."""
    case = by_segment(0.93, 0.93, 1.2)
    sign_K = np.where(np.arange(STEADY) % 2, 0.1, -0.1)
    lost = np.ones((ITEMS, STEADY))
    lost[:10] += sign_K
    lost[10:20] -= sign_K
    before = Before(np.ones((ITEMS, STEADY)), lost, np.zeros(STEADY, np.int64))
    even = np.ones_like(case.champion_IT)
    case = replace(case, champion_IT=even, challenger_IT=even, before=before)
    for factors, segments in (((0.93, 0.95), ("s0", "s1")), ((0.85, 1.001), ("s0",))):
        challenger = even * np.repeat([*factors, 1.2, 1, 1, 1], 10)[:, None]
        found = verdict(replace(case, challenger_IT=challenger))
        assert (found.decision, found.gain.name) == ("promote", "named")
        assert found.segments == segments


@pytest.mark.parametrize("over", [{"finite": False}, {"anchor_loss": 0.2}, {"latency_ratio": 2.2}])
def test_what_guards_everybody_guards_some(over: dict[str, float]) -> None:
    case = standing(by_segment(0.7, 1.2), **over)
    assert verdict(case).decision == "reject"


def test_intervals_are_judged_of_whom_it_would_serve() -> None:
    case = by_segment(0.7, 1.2)
    narrow = case.challenger_covered_IT.copy()
    narrow[20:] = 0.3
    assert verdict(replace(case, challenger_covered_IT=narrow)).segments == ("s0",)
    narrow[:10] = 0.6
    assert not verdict(replace(case, challenger_covered_IT=narrow)).promote


def test_of_two_that_serve_none_is_joined_by_a_third() -> None:
    found = verdict(replace(by_segment(0.7, 1.2), alone=False))
    assert (found.decision, found.segments) == ("reject", ())


def test_items_whose_segment_is_unknown_are_never_named() -> None:
    case = by_segment(0.7, 0.7, 1.2, named=("-", "s1"))
    unknown = ["-" if name == "s0" else name for name in case.segments]
    assert verdict(replace(case, segments=unknown)).segments == ("s1",)


def test_surely_harming_others_ends_no_trial_of_whom_it_may_help_yet() -> None:
    plan = Plan.of_days(0.05, first_days=1, num_looks=7)
    lost = 1.0 + 0.03 * np.where(np.arange(STEADY) % 2, 1.0, -1.0) * np.ones((ITEMS, 1))
    before = Before(np.ones((ITEMS, STEADY)), lost, np.zeros(STEADY, np.int64))
    case = replace(by_segment(0.96, 0.96, 1.5), before=before)
    harmed = judge(case, margin=0.02, plan=plan)
    (others,) = (x for x in harmed.conditions if x.name == "segment_loss:s2")
    assert (harmed.decision, others.hopeless) == ("not yet", True)
    nobody_named = judge(replace(case, affected=frozenset()), margin=0.02, plan=plan)
    assert nobody_named.decision == "reject"


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
    case = covered(better(), champion, challenger)
    assert failed(case) == ([] if passes else ["coverage_distance"])


def value_of(case: Trial, name: str) -> tuple[float, float]:
    (found,) = (condition for condition in verdict(case).conditions if condition.name == name)
    return found.value, found.threshold


def test_the_conditions_say_what_was_measured_and_against_what() -> None:
    case = standing(covered(better(), 0.7, 0.95), anchor_loss=0.25, latency_ratio=1.5)
    assert value_of(case, "coverage_distance") == pytest.approx((0.15, 0.15))
    # A quarter of the gain of 30 %, which is the same everywhere and so is sure.
    assert value_of(case, "anchor_loss") == pytest.approx((0.25, 0.075))
    assert value_of(case, "anchor_loss_to_base") == (0.0, 0.1)
    assert value_of(case, "latency_ratio") == (1.5, 2.0)
    assert value_of(case, "overall_gain") == pytest.approx((0.3, -0.01))
    assert value_of(case, "gain_low") == pytest.approx((0.3, 0.01))
    assert value_of(case, "gain_without_best_item") == pytest.approx((0.3, 0.0))
    assert value_of(case, "segment_loss:s2") == pytest.approx((-0.3, 0.05))
    # Seven days before the trial are six degrees of freedom.
    assert value_of(case, "freedom") == (6.0, 3.0)
    assert value_of(case, "items") == (60.0, 5.0)


def test_what_is_at_most_twice_as_slow_may_serve() -> None:
    assert failed(standing(better(), latency_ratio=2.0)) == []
    assert failed(standing(better(), latency_ratio=2.02)) == ["latency_ratio"]


def test_no_gain_is_not_above_a_margin_of_nothing() -> None:
    champion = better().champion_IT
    judged = judge(trial(champion, champion), margin=0.0, plan=ONE_LOOK)
    assert [one.name for one in judged.conditions if not one.ok] == ["gain_low"]


def test_a_twentieth_may_be_forgotten_however_little_is_gained() -> None:
    case = better()
    little = replace(case, challenger_IT=case.champion_IT * 0.96)
    assert value_of(little, "anchor_loss")[1] == 0.05
    assert failed(standing(little, anchor_loss=0.05)) == []
    assert failed(standing(little, anchor_loss=0.051)) == ["anchor_loss"]


def test_just_as_much_may_be_forgotten_as_is_allowed() -> None:
    case = better()
    half = replace(case, challenger_IT=case.champion_IT * 0.5)
    assert value_of(half, "anchor_loss")[1] == 0.125, "a quarter of the gain"
    assert failed(standing(half, anchor_loss=0.125)) == []
    assert failed(standing(half, anchor_loss=0.126)) == ["anchor_loss"]


def test_what_may_be_forgotten_hangs_on_the_sure_end_of_the_gain() -> None:
    """Days before the trial differ by 2 %: of a gain of 30 % one is sure of 24 %."""
    case = wobbling(replace(better(), affected=frozenset()), 0.02)
    gain = verdict(case).gain
    assert 0.02 < gain.gain - gain.low < 0.1
    assert failed(standing(case, anchor_loss=0.25 * gain.low - 1e-6)) == []
    assert failed(standing(case, anchor_loss=0.25 * gain.gain)) == ["anchor_loss"]


@pytest.mark.parametrize(("worse", "stops"), [(1.04, False), (1.06, True), (0.5, False)])
def test_a_segment_may_not_get_worse_by_more_than_a_twentieth(worse: float, stops: bool) -> None:
    case = better()
    challenger = case.challenger_IT.copy()
    challenger[20:30] = case.champion_IT[20:30] * worse
    changed = replace(case, challenger_IT=challenger)
    assert value_of(changed, "segment_loss:s2") == pytest.approx((worse - 1.0, 0.05))
    assert failed(changed) == (["segment_loss:s2"] if stops else [])


def test_the_worst_segments_are_told_first_and_no_more_than_twenty() -> None:
    champion = np.ones((60, BUCKETS))
    challenger = champion * np.repeat(np.linspace(0.5, 0.8, 30), 2)[:, None]
    # Both items of s04 lose half as much again; of s07 one loses three times as much.
    challenger[8:10] = 1.5
    challenger[14:16] = [[3.0], [1.0]]
    segments = [f"s{row // 2:02d}" for row in range(60)]
    conditions = verdict(replace(trial(champion, challenger), segments=segments)).conditions
    told = [one.name for one in conditions if one.name.startswith("segment_loss")]
    expected = [7, 4, *range(29, 11, -1)]
    assert told == [f"segment_loss:s{number:02d}" for number in expected]


@pytest.mark.parametrize(("members", "own_test"), [(4, False), (5, True)])
def test_a_drifted_segment_of_fewer_than_five_items_makes_no_test_of_its_own(
    members: int, own_test: bool
) -> None:
    case = better()
    segments = ["few" if row < members else "many" for row in range(ITEMS)]
    changed = replace(case, segments=segments, affected=frozenset({"few"}))
    assert verdict(changed).gain.num_items == (members if own_test else ITEMS)


def wobbling(case: Trial, daily: float) -> Trial:
    """The trial after a week on which days differed by so much, in all segments alike."""
    days = np.ones((len(case.segments), STEADY))
    sign = np.where(np.arange(STEADY) % 2, 1.0, -1.0)
    sign -= sign.mean()
    sign *= daily / sign.std(ddof=1)
    return replace(case, before=Before(days, days * (1.0 - sign), np.zeros(STEADY, np.int64)))


def test_of_several_drifted_segments_the_surest_gain_decides() -> None:
    case = better()
    challenger = case.champion_IT.copy()
    challenger[10:20] *= 0.75
    challenger[40:50] *= 0.8
    changed = replace(case, challenger_IT=challenger, affected=frozenset({"s1", "s3", "s4"}))
    found = verdict(changed)
    assert (found.gain.name, found.gain.gain) == ("s1", pytest.approx(0.25))
    # On the days before, s1 was anything, the others what they always are.
    assert changed.before is not None
    wild = changed.before.challenger_IK.copy()
    wild[10:20] *= 1.0 + 0.5 * np.where(np.arange(STEADY) % 2, 1.0, -1.0)
    found = verdict(replace(changed, before=replace(changed.before, challenger_IK=wild)))
    assert found.gain.name == "s4"


def test_where_all_drifted_segments_gain_a_little_all_together_are_sure() -> None:
    """Days that go up in one and down in another leave the sum as it is."""
    case = better()
    named = frozenset({"s0", "s1"})
    days = np.ones((ITEMS, STEADY))
    sign = np.where(np.arange(STEADY) % 2, 0.1, -0.1)
    wild = days.copy()
    wild[:10] += sign
    wild[10:20] -= sign
    before = Before(days, wild, np.zeros(STEADY, np.int64))
    flat = np.ones((ITEMS, BUCKETS))
    case = replace(trial(flat, flat * 0.9, tuple(named)), before=before)
    found = verdict(case)
    assert (found.gain.name, found.promote) == ("named", True)
    assert not verdict(replace(case, affected=frozenset({"s0"}))).promote


def test_the_error_is_that_of_days_worked_out_by_hand() -> None:
    """Two days before, .02 apart, and two of the trial, .04 apart; one segment, no pooling.

    The squares about the means are .0002 and .0008, the variance .001 / 2, and of the mean of two
    days half of that. Student's t for two degrees of freedom at 95 % is 2.92.
    """
    before = Before(np.ones((6, 2)), np.ones((6, 2)) * [0.9, 0.92], np.zeros(2, np.int64))
    champion = np.ones((6, 48)) / 24.0
    challenger = champion * np.repeat([0.78, 0.82], 24)
    case = replace(trial(champion, challenger), segments=["s"] * 6, before=before)
    found = verdict(case).gain
    assert (found.days, found.freedom) == (2.0, 2.0)
    assert found.gain == pytest.approx(0.2)
    assert found.low == pytest.approx(0.2 - 2.92 * math.sqrt(0.0005 / 2.0), rel=1e-4)


def test_days_before_the_drift_and_since_have_a_mean_of_their_own() -> None:
    days = np.ones((ITEMS, 6))
    challenger = days * [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]
    champion = better().champion_IT
    case = trial(champion, champion * 0.8)
    apart = Before(days, challenger, np.array([0, 0, 0, 1, 1, 1]))
    assert verdict(replace(case, before=apart)).gain.low == pytest.approx(0.2)
    assert verdict(replace(case, before=apart)).gain.freedom == 4.0
    assert verdict(replace(case, before=replace(apart, stretch_K=np.zeros(6)))).gain.low < 0.0


def test_half_a_day_says_half_as_much_as_a_day() -> None:
    champion = np.ones((ITEMS, 24))
    whole = verdict(wobbling(trial(champion, champion * 0.7), 0.05)).gain
    half = verdict(wobbling(trial(champion[:, :12], champion[:, :12] * 0.7), 0.05)).gain
    assert (whole.days, half.days) == (1.0, 0.5)
    assert (half.gain - half.low) / (whole.gain - whole.low) == pytest.approx(math.sqrt(2.0))


def test_a_day_on_which_the_shop_is_closed_says_little() -> None:
    """A hundredth of what is lost on a usual day, and half of that gained."""
    champion = np.full((ITEMS, 24), 0.01 / 24.0)
    closed = wobbling(trial(champion, champion * 0.5), 0.02)
    # The mean of seven usual days and this one is .87625: by that much more is the error.
    open_all_day = wobbling(trial(champion * 100.0, champion * 50.0), 0.02)
    found, usual = verdict(closed).gain, verdict(open_all_day).gain
    assert (found.gain, usual.gain) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (found.gain - found.low) / (usual.gain - usual.low) == pytest.approx(87.625)
    assert not verdict(closed).promote and verdict(open_all_day).promote


def test_of_items_that_were_drawn_their_differences_are_chance_too() -> None:
    """Ten items, of which half gain 20 % and half nothing; all are seen, half, or hardly any."""
    champion = np.ones((10, BUCKETS))
    challenger = champion * np.repeat([0.8, 1.0], 5)[:, None]
    case = replace(trial(champion, challenger), segments=["s"] * 10)
    assert verdict(case).gain.low == pytest.approx(0.1)
    # The sd of items is .1054, that of the mean of ten .0333; t is 1.943 for six days' freedom.
    for unseen in (0.5, 1.0):
        low = 0.1 - 1.943 * math.sqrt(unseen) * 0.03333
        assert verdict(replace(case, unseen=unseen)).gain.low == pytest.approx(low, rel=1e-3)


# Yes, no, or not yet ------------------------------------------------------------------------------

WEEK = Plan.of_days(0.05, first_days=1, num_looks=7)


def seen(gain: float, days: int, daily: float) -> Trial:
    """A gain on so many days and one, where days were known to differ by so much."""
    champion = np.ones((ITEMS, 24 + 24 * days))
    return wobbling(trial(champion, champion * (1.0 - gain)), daily)


def test_what_is_not_sure_yet_waits_and_is_promoted_when_it_is() -> None:
    decisions = [verdict(seen(0.05, look, 0.02), WEEK, look).decision for look in range(7)]
    assert decisions[0] == "not yet" and decisions[-1] == "promote"
    changes = sum(one != other for one, other in itertools.pairwise(decisions))
    assert changes == 1
    assert verdict(seen(0.05, 0, 0.02), WEEK, 0).report()["verdict"] == "not yet"


def test_what_is_beyond_doubt_passes_on_the_first_day() -> None:
    assert verdict(seen(0.4, 0, 0.02), WEEK, 0).decision == "promote"


def test_what_is_hopeless_is_rejected_before_the_week_is_over() -> None:
    assert verdict(seen(0.0, 2, 0.02), WEEK, 2).decision == "reject"
    assert verdict(seen(-0.3, 0, 0.02), WEEK, 0).decision == "reject"


def test_the_last_look_decides() -> None:
    unsure = seen(0.05, 6, 0.10)
    assert verdict(unsure, WEEK, 6).decision == "reject"
    assert "gain_low" in verdict(unsure, WEEK, 6).reason


@pytest.mark.parametrize(
    ("over", "name"),
    [
        ({"latency_ratio": 3.0}, "latency_ratio"),
        ({"anchor_loss_to_base": 0.2}, "anchor_loss_to_base"),
        ({"anchor_loss": 0.3}, "anchor_loss"),
    ],
)
def test_no_day_to_come_changes_what_a_challenger_is(over: dict[str, float], name: str) -> None:
    unsure = seen(0.05, 0, 0.02)
    assert verdict(unsure, WEEK, 0).decision == "not yet"
    changed = verdict(standing(unsure, **over), WEEK, 0)
    assert (changed.decision, name in changed.reason) == ("reject", True)


def test_a_segment_that_may_be_worse_by_chance_waits_and_one_that_surely_is_ends_the_trial() -> (
    None
):
    case = seen(0.4, 0, 0.05)
    for worse, decision in ((1.08, "not yet"), (1.6, "reject")):
        challenger = case.challenger_IT.copy()
        challenger[20:30] = case.champion_IT[20:30] * worse
        assert verdict(replace(case, challenger_IT=challenger), WEEK, 0).decision == decision


def test_without_days_before_nothing_is_known_until_its_own_days_say() -> None:
    champion = np.ones((ITEMS, 24 + 24 * 3))
    case = replace(trial(champion, champion * 0.5), before=None)
    cut = replace(case, champion_IT=champion[:, :24], challenger_IT=champion[:, :24] * 0.5)
    judged = verdict(cut, WEEK, 0)
    assert (judged.decision, judged.gain.low) == ("not yet", -math.inf)
    assert verdict(case, WEEK, 3).decision == "promote"


def test_five_items_are_enough_and_one_less_is_not() -> None:
    champion = np.random.default_rng(3).gamma(20.0, 0.05, (5, 6))
    segments = ["s"] * 5
    enough = replace(trial(champion, champion * 0.5), segments=segments)
    assert failed(enough) == []
    fewer = replace(trial(champion[:4], champion[:4] * 0.5), segments=segments[:4])
    assert failed(fewer) == ["items"]


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


def test_the_report_is_plain_json_with_every_condition() -> None:
    unsold = trial(np.zeros((ITEMS, BUCKETS)), np.zeros((ITEMS, BUCKETS)))
    judged = verdict(replace(unsold, before=None))
    flat = judged.report()
    assert flat["verdict"] == "reject"
    assert flat["gain_low"] == "-inf"
    assert len(judged.conditions) >= 8 + SEGMENTS
    assert all(f"{condition.name}.ok" in flat for condition in judged.conditions)


def test_the_report_has_each_conditions_value_and_threshold_in_six_digits() -> None:
    case = standing(replace(better(), affected=frozenset({"s0"})), latency_ratio=4.0 / 3.0)
    flat = verdict(case).report()
    assert (flat["verdict"], flat["latency_ratio"], flat["latency_ratio.threshold"]) == (
        "promote",
        1.33333,
        2.0,
    )
    assert (flat["latency_ratio.ok"], flat["gain_low.threshold"]) == (True, 0.01)
    assert (flat["gain"], flat["gain_of"], flat["days"]) == (0.3, "s0", 0.75)


# How often, over many draws -----------------------------------------------------------------------


def ended(seed: int, gain: float, daily: float) -> str:
    """The verdict of a week on two named segments, where days differ by so much in each segment."""
    rng = np.random.default_rng(seed)
    champion = rng.lognormal(0.0, 1.0, (ITEMS, 1)) * rng.gamma(2.0, 0.5, (ITEMS, 24 * 14))
    ratio = 1.0 + daily * rng.normal(size=(SEGMENTS, 14))
    ratio[:2] -= gain
    challenger = champion * ratio.repeat(ITEMS // SEGMENTS, 0).repeat(24, 1)
    days = [x[:, : 24 * 7].reshape(ITEMS, 7, 24).sum(2) for x in (champion, challenger)]
    for look in range(7):
        end = 24 * (8 + look)
        case = trial(champion[:, 168:end], challenger[:, 168:end], ("s0", "s1"))
        case = replace(case, before=Before(*days, np.zeros(7, np.int64)))
        decision = verdict(case, WEEK, look).decision
        if decision != "not yet":
            return decision
    raise AssertionError


def test_an_equal_model_is_promoted_rarely_over_all_looks() -> None:
    promoted = sum(ended(seed, 0.0, 0.04) == "promote" for seed in range(200))
    assert promoted <= 10, "5 % are allowed, and 1 % of 600 draws in bench/gate.py were promoted"


def test_a_model_that_is_a_tenth_better_is_promoted_within_the_week() -> None:
    assert sum(ended(seed, 0.10, 0.03) == "promote" for seed in range(40)) >= 38
