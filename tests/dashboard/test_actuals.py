"""Snapshots keep unknown apart from nothing sold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from freshet.dashboard.actuals import Actuals, Books, Rate, snapshot
from freshet.stream.read.reader import WindowCells
from freshet.stream.schemas import CHANNELS
from freshet.stream.units import HOUR_MS


def test_integers_become_units_and_currency_and_the_unobserved_becomes_nan() -> None:
    values_ICB = np.zeros((1, len(CHANNELS), 2), np.int64)
    values_ICB[0, CHANNELS.index("units")] = [2_500, 0]
    values_ICB[0, CHANNELS.index("revenue")] = [19_990_000, 0]
    observed_ICB = np.ones_like(values_ICB, bool)
    observed_ICB[0, CHANNELS.index("views")] = False
    found = snapshot(
        WindowCells(values_ICB, observed_ICB, 5 * HOUR_MS), {"A|n": 0}, HOUR_MS, Books()
    )
    assert found.values["units"].tolist() == [[2.5, 0.0]]
    assert found.values["revenue"].tolist() == [[1999.0, 0.0]]
    assert np.isnan(found.values["views"]).all()
    assert (found.start_ms, found.end_ms) == (5 * HOUR_MS, 7 * HOUR_MS)


def test_a_series_starts_with_the_bucket_that_holds_the_time(make: Any) -> None:
    actuals = make.actuals({"A|n": [1, 2, 3, 4]}, end_hour=10)
    start_ms, units = actuals.series("A|n", "units", 8 * HOUR_MS + 59)
    assert (start_ms, units.tolist()) == (8 * HOUR_MS, [3.0, 4.0])
    assert actuals.series("A|n", "units", 0)[0] == 6 * HOUR_MS
    assert actuals.series("A|n", "units", 99 * HOUR_MS)[1].tolist() == []


def test_an_item_without_windows_is_unknown_not_zero(make: Any) -> None:
    actuals = make.actuals({"A|n": [1, 2]})
    assert np.isnan(actuals.series("B|n", "units", 0)[1]).all()


def test_totals_leave_out_what_is_unknown(make: Any) -> None:
    nan = float("nan")
    actuals = make.actuals({"A|n": [1, nan, 3], "B|n": [nan, nan, nan]}, end_hour=3)
    totals = actuals.total("units", HOUR_MS)
    assert totals[0] == 3.0 and np.isnan(totals[1])
    assert Actuals(HOUR_MS).total("units", 0).tolist() == []


def test_a_rate_looks_back_about_its_window_and_never_below_zero() -> None:
    rate = Rate(window_s=5.0)
    for second in range(20):
        found = rate.note(float(second), 10 * second)
    assert found == pytest.approx(10.0)
    assert rate.note(20.0, 0) == 0.0
