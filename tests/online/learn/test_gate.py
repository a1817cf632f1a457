"""The gate lets a clearly better challenger through, and an equal one only rarely."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.learn.gate import Trial, Verdict, judge, relative_gain
from freshet.stream.units import DAY_MS, HOUR_MS

ITEMS, BUCKETS, SEGMENTS = 60, 18, 6


def losses(rng: np.random.Generator, shared: np.ndarray, error: float) -> np.ndarray:
    """Losses of one model: what both share, an error per item and one that lasts for hours."""
    item = np.exp(error * rng.normal(size=(ITEMS, 1)))
    hours = np.zeros(BUCKETS)
    for t in range(BUCKETS):
        hours[t] = 0.7 * hours[t - 1] * (t > 0) + rng.normal()
    return shared * item * np.exp(error * 0.5 * hours)


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


def test_too_few_buckets_are_not_enough() -> None:
    champion = np.random.default_rng(4).gamma(2.0, 1.0, (ITEMS, 4))
    assert "blocks" in failed(trial(champion, champion * 0.5))


def test_the_report_is_plain_json_with_every_condition() -> None:
    judged = verdict(trial(np.zeros((ITEMS, BUCKETS)), np.zeros((ITEMS, BUCKETS))))
    flat = judged.report()
    assert flat["verdict"] == "reject"
    assert flat["gain_low"] == "-inf"
    assert all(f"{condition.name}.ok" in flat for condition in judged.conditions)
