"""A silence is an outage where the series' own sales do not explain it, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.effects.outages import outages
from freshet.model.effects.shared import find_shared
from freshet.model.effects.slots import dress
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import window_of


def days(*parts: tuple[int, float]) -> np.ndarray:
    """So many days of so many units each, Sundays closed."""
    values = np.concatenate([np.full(length, units) for length, units in parts])
    values[np.arange(len(values)) % 7 == 6] = 0.0
    return values


def found(series: np.ndarray, resolution_ms: int = DAY_MS) -> tuple[int, int] | None:
    steps = np.flatnonzero(outages(series[None], resolution_ms)[0])
    if not len(steps):
        return None
    assert (np.diff(steps) == 1).all()
    return int(steps[0]), int(steps[-1]) + 1


def test_a_shop_that_was_rebuilt_for_half_a_year_has_no_demand_of_zero() -> None:
    # Day 279 is a Sunday, closed too; on day 462, a Monday, it is back.
    assert found(days((280, 5.0), (182, 0.0), (70, 5.0))) == (279, 462)


@pytest.mark.parametrize(
    ("why", "series"),
    [
        ("back for a week, which is too short to say", days((280, 5.0), (182, 0.0), (7, 5.0))),
        ("goods of one season", days((60, 5.0), (182, 0.0), (60, 5.0))),
        ("closed each winter", days((200, 5.0), (140, 0.0), (200, 5.0), (140, 0.0), (70, 5.0))),
        ("not back", days((280, 5.0), (182, 0.0))),
        ("not begun", days((182, 0.0), (280, 5.0))),
        ("a fortnight", days((280, 5.0), (14, 0.0), (70, 5.0))),
    ],
)
def test_what_is_no_outage(why: str, series: np.ndarray) -> None:
    assert found(series) is None, why


def test_what_hardly_ever_sells_may_be_silent() -> None:
    rare = np.zeros(80)
    rare[::4] = 1.0
    rare[33:60] = 0.0
    # A week in four for 53 weeks: 13 sales in 53.5, and (1 - .243)^27 is 5e-4, not unlikely enough.
    assert found(rare, WEEK_MS) is None
    often = np.ones(80)
    often[33:60] = 0.0
    assert found(often, WEEK_MS) == (33, 60)


def test_nights_are_no_outage_and_a_week_without_a_sale_is() -> None:
    hours = np.tile(np.r_[np.zeros(8), np.full(12, 3.0), np.zeros(4)], 30)
    assert found(hours, HOUR_MS) is None
    hours[20 * 24 : 27 * 24] = 0.0
    assert found(hours, HOUR_MS) == (19 * 24 + 20, 27 * 24 + 8)


def test_short_and_empty_series_have_none() -> None:
    assert not outages(np.zeros((3, 10)), DAY_MS).any()
    assert not outages(np.full((2, 200), np.nan), DAY_MS).any()
    assert not outages(np.zeros((2, 200)), DAY_MS).any()


def test_each_series_is_alone_and_an_outage_is_dressed_as_missing() -> None:
    away, usual = days((280, 5.0), (182, 0.0), (70, 5.0)), days((532, 5.0))
    both = np.stack([usual, away])
    window = window_of(both, horizon=7)
    target_NT = dress(window).target_NT
    assert np.isnan(target_NT[1, 279:462]).all() and np.isfinite(target_NT[0]).all()
    assert np.isfinite(target_NT[1]).sum() == 532 - 183
    missing = replace(window, target_NT=np.where(outages(both, DAY_MS), np.nan, both))
    assert find_shared(window).closing == find_shared(missing).closing
