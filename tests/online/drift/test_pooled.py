"""Which items of a bucket speak for their segment, and with what weight."""

from __future__ import annotations

import msgspec
import pytest

from freshet.online.drift.pooled import Item, items_by_segment, leverage_of, pool, serving_version
from freshet.stream.schemas import Score, ScoredStep
from freshet.stream.units import HOUR_MS


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


def test_stocked_out_and_promoted_items_and_other_versions_say_nothing() -> None:
    scores = [
        score("a"),
        score("b", in_stock=False),
        score("c"),
        score("d", version="old", step=24),
    ]
    assert serving_version(scores) == "base"
    (items,) = items_by_segment(scores, "base", left_out={"c"}).values()
    assert len(items) == 1


@pytest.mark.parametrize("residual", [0.0, 1e-6])
def test_an_actual_on_its_median_has_the_leverage_of_a_count(residual: float) -> None:
    # A residual may be published as 1e-6 though actual and median are equal to six digits.
    assert leverage_of(actual=4.0, median=4.0, residual=residual) == 2.0


def test_the_serving_version_is_the_most_frequent_one_behind_the_newest_forecasts() -> None:
    old = [score(f"o{number}", version="old", step=2) for number in range(5)]
    new = [score("a", version="v3"), score("b", version="v2"), score("c", version="v2")]
    assert serving_version(old + new) == "v2"
    assert serving_version([]) == ""


def test_an_item_speaks_for_its_own_segment_by_the_steps_of_the_version_alone() -> None:
    # Steps of normal scores 1 and 2 correlate by 0.8; one of other weights says nothing.
    (one,), (two,) = (score("a", pit=pit).steps for pit in (0.841344746, 0.977249868))
    two = msgspec.structs.replace(two, median=3.0)
    (other,) = score("a", pit=0.001, version="old").steps
    both = msgspec.structs.replace(score("a"), segment="s", steps=[one, two, other])
    items = items_by_segment([score("z", pit=0.158655254), both], "base")
    assert set(items) == {"c", "s"}
    assert items["c"][0].z == pytest.approx(-1.0)
    assert items["s"][0].z == pytest.approx(1.5 / ((1 + 0.8) / 2) ** 0.5)
    # A doubling of the median of 4 moves an actual of 5 and a residual of 0.5 by 2, of 3 by 0.75.
    assert (items["s"][0].leverage, items["s"][0].actual) == ((2.0 + 0.75) / 2, 5.0)
    assert items["s"][0].expected == (4.0 + 3.0) / 2


@pytest.mark.parametrize(("pit", "z"), [(0.0, -2.5), (1.0, 2.5), (0.999, 2.5), (0.5, 0.0)])
def test_one_odd_item_moves_its_segment_by_two_and_a_half_deviations_at_most(
    pit: float, z: float
) -> None:
    (items,) = items_by_segment([score("a", pit=pit)], "base").values()
    assert [item.z for item in items] == pytest.approx([z])


def test_items_are_weighed_by_what_they_can_tell_and_sparse_ones_a_little() -> None:
    items = [Item(2.0, 3.0, 7.0, 4.0), Item(-1.0, 0.02, 1.0, 2.0)]
    pooled = pool(9, items)
    norm = (3.0**2 + 0.1**2) ** 0.5
    assert pooled.level == pytest.approx((3.0 * 2.0 - 0.1) / norm)
    assert pooled.spread == pytest.approx((3.0 * (4.0 - 1.0) + 0.1 * 0.0) / norm / 2**0.5)
    assert pooled.leverage == pytest.approx((3.0 * 3.0 + 0.1 * 0.02) / norm)
    assert (pooled.bucket_ms, pooled.actual, pooled.expected) == (9, 8.0, 6.0)


@pytest.mark.parametrize(
    ("actual", "median", "residual", "leverage"),
    [(12.0, 10.0, 0.4, 2.0), (8.0, 10.0, -0.4, 2.0), (11.0, 10.0, 0.9, 2.5), (9.0, 9.0, 0.0, 2.5)],
)
def test_leverage_is_the_median_in_deviations_and_capped(
    actual: float, median: float, residual: float, leverage: float
) -> None:
    assert leverage_of(actual, median, residual) == pytest.approx(leverage)


def test_an_actual_next_to_its_median_has_the_leverage_of_a_count_too() -> None:
    # So near that the published residual has no digit left.
    assert leverage_of(4.0000001, 4.0, 0.0) == leverage_of(4.0000001, 4.0, -9e-7) == 2.0


@pytest.mark.parametrize("median", [0.0, None])
def test_an_item_of_which_nothing_was_forecast_adds_nothing_to_what_was(
    median: float | None,
) -> None:
    bare = score("a")
    bare = msgspec.structs.replace(
        bare, steps=[msgspec.structs.replace(bare.steps[0], median=median)]
    )
    (items,) = items_by_segment([bare], "base").values()
    assert (items[0].expected, items[0].leverage) == (0.0, 0.0)


def test_below_one_unit_a_count_on_its_median_has_that_for_leverage() -> None:
    assert leverage_of(0.25, 0.25, 0.0) == 0.25 and leverage_of(0.0, 0.0, 0.0) == 0.0
