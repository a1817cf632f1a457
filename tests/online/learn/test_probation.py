"""A probation's buckets, and the verdict that the new version's own losses give."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.online.learn.evaluation import Comparison
from freshet.online.learn.probation import (
    Probation,
    ProbationVerdict,
    judge_probation,
    probation_of,
)
from freshet.stream.config import LearnSettings
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.grid import Grid
from freshet.stream.units import HOUR_MS
from tests.online.learn.learning import PastInMemory, pool_at

SETTINGS = LearnSettings(probation_margin=0.05)


@pytest.mark.parametrize(("at_ms", "start"), [(10, 1), (HOUR_MS, 1), (HOUR_MS + 1, 2)])
def test_a_probation_begins_with_the_first_whole_bucket_after_the_promotion(
    at_ms: int, start: int
) -> None:
    promotion = ModelEvent(kind="promoted", version="v1", at_ms=at_ms)
    found = probation_of(promotion, num_buckets=24, grid=Grid(HOUR_MS))
    assert found == Probation(start * HOUR_MS, (start + 24) * HOUR_MS)


def verdict_on(
    parent: np.ndarray,
    version: np.ndarray,
    *,
    finite: bool = True,
    settings: LearnSettings = SETTINGS,
) -> ProbationVerdict:
    both = Comparison(
        pool=pool_at(PastInMemory(200), range(100, 101), 120),
        rows_I=np.arange(len(parent)),
        first_IT=parent,
        second_IT=version,
        first_coverage=0.8,
        second_coverage=0.8,
        finite=finite,
    )
    return judge_probation(both, HOUR_MS, settings)


@pytest.mark.parametrize(
    ("share", "finite", "holds"),
    [
        (0.5, True, True),
        (1.0, True, True),
        (1.049, True, True),
        (1.051, True, False),
        (2.0, True, False),
        (0.5, False, False),
    ],
)
def test_a_version_is_taken_back_that_loses_more_than_the_margin_or_is_not_finite(
    share: float, finite: bool, holds: bool
) -> None:
    parent = np.full((7, 12), 3.0)
    found = verdict_on(parent, parent * share, finite=finite)
    assert found.holds is holds
    assert found.gain == pytest.approx(1.0 - share)


def test_a_version_that_loses_the_margin_itself_stays() -> None:
    settings = LearnSettings(probation_margin=0.5)
    parent = np.full((7, 12), 2.0)
    assert verdict_on(parent, parent + 1.0, settings=settings).holds
    assert not verdict_on(parent, parent + 1.001, settings=settings).holds


def test_the_gain_itself_decides_and_not_its_sure_end() -> None:
    """Better by 1 % on average, item by item anything between half and half as much again."""
    parent = np.ones((11, 12))
    found = verdict_on(parent, parent * np.linspace(0.49, 1.49, 11)[:, None])
    assert found.holds
    assert found.report == {
        "gain": 0.01,
        "loss_margin": 0.05,
        "blocks": 6.0,
        "items": 11.0,
    }
