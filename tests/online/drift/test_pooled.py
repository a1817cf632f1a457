"""Which items of a bucket speak for their segment, and with what weight."""

from __future__ import annotations

import pytest

from freshet.online.drift.pooled import items_by_segment, leverage_of, serving_version
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
