"""Which items of a bucket speak for their segment, and with what weight."""

from __future__ import annotations

from statistics import NormalDist

import msgspec
import numpy as np
import pytest

from freshet.online.drift.pooled import (
    Pooled,
    ScoreBatch,
    batch_of,
    leverage_of,
    pool,
    serving_versions,
)
from freshet.stream.schemas import Score, ScoredStep
from freshet.stream.units import HOUR_MS

BASE_SERVES = dict.fromkeys(("c", "s"), "base")


def score(
    item: str, *, pit: float = 0.5, in_stock: bool = True, version: str = "base", step: int = 1
) -> Score:
    scored = ScoredStep(
        forecast_id=item,
        weights_version=version,
        step=step,
        pinball=1.0,
        seasonal_naive_pinball=None,
        pit=pit,
        residual=0.5,
        covered_80=True,
        median=4.0,
    )
    return Score(
        item_id=item,
        segment="c",
        resolution_ms=HOUR_MS,
        bucket_start_ms=0,
        scored_at_ms=0,
        actual=5.0,
        steps=[scored],
        in_stock=in_stock,
    )


def pooled_of(*scores: Score, left_out: frozenset[str] = frozenset()) -> Pooled:
    return pool(batch_of(scores, BASE_SERVES, left_out=left_out))


def columns(z: list[float], leverage: list[float]) -> ScoreBatch:
    """Items of one segment with a normal score and a leverage each, one step ahead."""
    num = len(z)
    pit_R = np.array([NormalDist().cdf(each) for each in z])
    return ScoreBatch(
        segments=["c"],
        segment_I=np.zeros(num, np.int64),
        actual_I=np.full(num, 3.0),
        left_out_I=np.zeros(num, bool),
        item_R=np.arange(num),
        pit_R=pit_R,
        # An actual of 3 and a median of 2 that lie `leverage / 2` deviations apart.
        median_R=np.full(num, 2.0),
        residual_R=np.array(leverage) / 2.0,
    )


def test_stocked_out_and_promoted_items_and_other_versions_say_nothing() -> None:
    scores = [
        score("a", pit=0.9),
        score("b", in_stock=False),
        score("c"),
        score("d", version="old", step=24),
    ]
    found = pooled_of(*scores, left_out=frozenset({"c"}))
    assert (found.actual_S.tolist(), found.expected_S.tolist()) == ([5.0], [4.0])
    # Two of three are left out: what the third says counts as much noisier, by 1 + 3 * 2 / 3.
    alone = pooled_of(score("a", pit=0.9))
    assert found.level_S[0] == pytest.approx(alone.level_S[0] / 3**0.5)
    assert found.leverage_S[0] == pytest.approx(alone.leverage_S[0] / 3**0.5)


def test_of_items_that_are_all_left_out_nothing_is_heard() -> None:
    found = pooled_of(score("a", in_stock=False, pit=0.99))
    assert (found.heard_S.tolist(), found.level_S.tolist(), found.spread_S.tolist()) == (
        *([False], [0.0], [0.0]),
    )
    assert found.actual_S.tolist() == [0.0]


def test_the_order_in_which_scores_come_changes_nothing() -> None:
    scores = [score(f"i{number}", pit=0.03 + 0.11 * number) for number in range(9)]
    there, back = pooled_of(*scores), pooled_of(*reversed(scores))
    assert [getattr(there, name).tolist() for name in there.__slots__] == [
        getattr(back, name).tolist() for name in back.__slots__
    ]


@pytest.mark.parametrize("residual", [0.0, 1e-7])
def test_an_actual_on_its_median_has_the_leverage_of_a_count(residual: float) -> None:
    # A residual may be published as 1e-6 though actual and median are equal to six digits.
    four, told = np.array([4.0]), np.array([residual])
    assert leverage_of(four, four, told).tolist() == [2.0]


def test_the_serving_version_is_the_most_frequent_one_behind_the_newest_forecasts() -> None:
    old = [score(f"o{number}", version="old", step=2) for number in range(5)]
    new = [score("a", version="v3"), score("b", version="v2"), score("c", version="v2")]
    assert serving_versions(old + new, {}) == {"c": "v2"}
    assert serving_versions([], {"c": "v1"}) == {"c": "v1"}


def test_each_segment_is_served_by_the_version_behind_its_own_newest_forecasts() -> None:
    of_s = [msgspec.structs.replace(score("d", version="v4"), segment="s")]
    older = [msgspec.structs.replace(score("e", version="v1", step=2), segment="t")]
    scores = [score("a", version="v3"), *of_s, *older]
    assert serving_versions(scores, {}) == {"c": "v3", "s": "v4", "t": "v3"}
    # Who is silent is served as before by a version that serves still.
    known = {"t": "v4", "u": "v4", "w": "v2"}
    assert serving_versions(scores, known) == {
        "c": "v3",
        "s": "v4",
        "t": "v4",
        "u": "v4",
        "w": "v3",
    }


def test_of_versions_that_are_as_frequent_one_is_chosen_whatever_comes_first() -> None:
    two = [score("a", version="v3"), score("b", version="v2")]
    assert serving_versions(two, {}) == serving_versions(two[::-1], {}) == {"c": "v2"}


def test_an_item_speaks_for_its_own_segment_by_the_steps_of_the_version_alone() -> None:
    # Steps of normal scores 1 and 2 correlate by 0.8; one of other weights says nothing.
    (one,), (two,) = (score("a", pit=pit).steps for pit in (0.841344746, 0.977249868))
    two = msgspec.structs.replace(two, median=3.0)
    (other,) = score("a", pit=0.001, version="old").steps
    both = msgspec.structs.replace(score("a"), segment="s", steps=[one, two, other])
    batch = batch_of([score("z", pit=0.158655254), both], BASE_SERVES)
    found = pool(batch)
    assert list(batch.segments) == ["c", "s"]
    # One item alone is worth its own normal score, whatever it weighs.
    assert found.level_S == pytest.approx([-1.0, 1.5 / ((1 + 0.8) / 2) ** 0.5])
    # A doubling of the median of 4 moves an actual of 5 and a residual of 0.5 by 2, of 3 by 0.75.
    assert found.leverage_S == pytest.approx([2.0, (2.0 + 0.75) / 2])
    assert found.expected_S.tolist() == [4.0, (4.0 + 3.0) / 2]


@pytest.mark.parametrize(("pit", "z"), [(0.0, -2.5), (1.0, 2.5), (0.999, 2.5), (0.5, 0.0)])
def test_one_odd_item_moves_its_segment_by_two_and_a_half_deviations_at_most(
    pit: float, z: float
) -> None:
    assert pooled_of(score("a", pit=pit)).level_S == pytest.approx([z])


def test_items_are_weighed_by_what_they_can_tell_and_sparse_ones_a_little() -> None:
    found = pool(columns([2.0, -1.0], [2.4, 0.02]))
    norm = (2.4**2 + 0.1**2) ** 0.5
    assert found.level_S == pytest.approx([(2.4 * 2.0 - 0.1) / norm])
    assert found.leverage_S == pytest.approx([(2.4 * 2.4 + 0.1 * 0.02) / norm])


def test_a_rise_is_told_by_savages_scores_of_where_items_fell() -> None:
    first, second = score("a", pit=1 - np.exp(-3.0)), score("b", pit=1 - np.exp(-0.5))
    found = pooled_of(first, second)
    # Exponential quantiles of 3 and of a half, each over its mean of 1; both items weigh alike.
    assert found.rise_S == pytest.approx([(2.0 - 0.5) / 2**0.5])
    assert pooled_of(score("a", pit=1.0)).rise_S.tolist() == [6.0]


def test_what_all_items_do_alike_is_level_and_not_spread() -> None:
    # Each item moved by its leverage: that is a shift, and none strays from it.
    leverage = [1.0, 1.5, 2.0, 0.5, 1.0, 1.5]
    together = pool(columns([1.2 * each for each in leverage], leverage))
    apart = pool(columns([2.0, -2.0, 2.0, -2.0, 2.0, -2.0], leverage))
    assert together.level_S[0] > 3 and abs(together.spread_S[0]) < 0.5
    assert apart.spread_S[0] > 2


def test_spread_is_about_standard_normal_of_items_that_are_as_they_should() -> None:
    rng = np.random.default_rng(0)
    found = [pool(columns(rng.normal(size=12).tolist(), [1.5] * 12)) for _ in range(2_000)]
    spread = np.concatenate([one.spread_S for one in found])
    assert abs(spread.mean()) < 0.1 and abs(spread.std() - 1.0) < 0.1


@pytest.mark.parametrize(
    ("actual", "median", "residual", "leverage"),
    [(12.0, 10.0, 0.4, 2.0), (8.0, 10.0, -0.4, 2.0), (11.0, 10.0, 0.9, 2.5), (9.0, 9.0, 0.0, 2.5)],
)
def test_leverage_is_the_median_in_deviations_and_capped(
    actual: float, median: float, residual: float, leverage: float
) -> None:
    found = leverage_of(np.array([actual]), np.array([median]), np.array([residual]))
    assert found == pytest.approx([leverage])


@pytest.mark.parametrize("median", [0.0, None])
def test_an_item_of_which_nothing_was_forecast_adds_nothing_to_what_was(
    median: float | None,
) -> None:
    bare = score("a")
    bare = msgspec.structs.replace(
        bare, steps=[msgspec.structs.replace(bare.steps[0], median=median)]
    )
    found = pooled_of(bare)
    assert (found.expected_S.tolist(), found.leverage_S.tolist()) == ([0.0], [0.0])
