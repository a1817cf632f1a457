"""Promotions that were set on good days are told by what sold before they began."""

from __future__ import annotations

import numpy as np
import pytest

from freshet.model.explain.beforehand import beforehand
from freshet.model.tables.panel import Window
from freshet.stream.units import DAY_MS

DAYS, ITEMS = 280, 6


def window(*, good_days: float = 0.0, lasting: int = 0, seed: int = 0) -> Window:
    """Series of 40 a day and 80 on promoted days, three in twenty, each at its own days.

    Args:
        good_days: how much more is sold on the two days before each promotion begins.
        lasting: days after a promotion on which next to nothing sells: cupboards are full.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    day_T = np.arange(DAYS)
    target_NT = np.zeros((ITEMS, DAYS))
    promo_NS = np.zeros((ITEMS, DAYS + 7, 1))
    for item in range(ITEMS):
        place_T = (day_T + 3 * item) % 20
        mean_T = np.where(day_T % 7 == 5, 80.0, 40.0) * np.where(place_T < 3, 2.0, 1.0)
        mean_T *= np.where(place_T >= 18, 1.0 + good_days, 1.0)
        mean_T *= np.where((place_T >= 3) & (place_T < 3 + lasting), 0.2, 1.0)
        target_NT[item] = rng.poisson(mean_T)
        promo_NS[item, :DAYS, 0] = place_T < 3
    time_ms = np.broadcast_to(np.arange(DAYS + 7) * DAY_MS, (ITEMS, DAYS + 7))
    names = tuple(f"a{item}" for item in range(ITEMS))
    empty = np.zeros((ITEMS, DAYS, 0))
    return Window(names, "D", DAY_MS, 7, time_ms, target_NT, promo_NS, empty, ("promo",), (), {})


def test_days_before_promotions_that_sell_more_are_told() -> None:
    found = beforehand(window(good_days=0.3))
    # log(1.3) = .262; each series has two such days before each of its fourteen promotions.
    assert found.sure and found.above == pytest.approx(np.log(1.3), abs=0.03)
    assert found.steps == pytest.approx(2 * 14 * ITEMS, abs=2 * ITEMS)
    assert "sales were 3" in found.sentence()


@pytest.mark.parametrize("seed", range(5))
def test_where_they_sell_as_ever_nothing_is_told(seed: int) -> None:
    assert not beforehand(window(seed=seed)).sure


def test_full_cupboards_afterwards_do_not_make_other_days_good() -> None:
    found = beforehand(window(lasting=5))
    assert not found.sure and abs(found.above) < 0.03


def test_a_table_with_few_or_no_promotions_tells_nothing() -> None:
    made = window(good_days=1.0)
    made.known_NSK[:, :-30] = 0.0
    assert not beforehand(made).sure
    made.known_NSK[:] = 0.0
    assert beforehand(made).steps == 0 and not beforehand(made).sure
