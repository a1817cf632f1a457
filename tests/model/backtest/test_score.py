"""Scores of a forecast against loops over its series, and strata told by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from freshet.model.backtest.score import METRICS, mean_over_windows, measure, score, stratify
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats
from tests.model.tables.windows import window_of

NAN = math.nan
# The outermost levels are not those of the 80 % interval, and their mean is not the median.
LEVELS = (0.05, 0.1, 0.5, 0.9, 0.98)
TARGET = np.array(
    [
        [0.0, 0.0, *[3.0, 5.0] * 9],  # a tenth of its days without a sale
        [0.0] * 10 + [1.0] * 10,  # half of them
        [0.0] * 18 + [30.0] * 2,  # nine tenths
        [NAN] * 14 + [7.0, 8.0, 9.0, 9.0, 10.0, 11.0],
        [NAN] * 20,
        [NAN] * 15 + [5.0] * 5,
    ]
)
# Mean absolute gaps to two days before; the last two have none.
SEASONAL_ERROR = [8 / 18, 2 / 18, 60 / 18, 6 / 4, NAN, 0.0]
ACTUAL = np.array(
    [
        [4.0, 0.0, 9.0],
        [1.0, NAN, 2.0],
        [0.0, 3.0, 60.0],
        [9.0, 9.0, 9.0],
        [2.0, 2.0, NAN],
        [5.0] * 3,
    ]
)
QUANTILES = np.array([[[0, 1, 4, 7, 20]] * 3] * 6) + 0.5 * np.arange(18).reshape(6, 3, 1)
GROUPS = {
    "zero_share": {
        "under 10 %": [3, 4, 5],
        "10 to 50 %": [0],
        "50 to 90 %": [1],
        "over 90 %": [2],
    },
    # Means of a day: 3.6, 0.5, 3, 9, none and 5.
    "volume": {"low third": [1, 4], "middle third": [0, 2], "high third": [3, 5]},
    # Six days are two horizons of three, which are longer than two seasons of two.
    "history": {"cold start": [4, 5], "established": [0, 1, 2, 3]},
}


def shops() -> Window:
    return window_of(TARGET, horizon=3, season_length=2)


def by_hand(rows: list[int]) -> dict[str, float]:
    """All metrics of some series, one step at a time."""
    lost = missed = total = over = inside = 0.0
    scaled_lost, scaled_missed, steps = [], [], 0
    for row in rows:
        for actual, quantiles in zip(ACTUAL[row].tolist(), QUANTILES[row].tolist(), strict=True):
            if math.isnan(actual):
                continue
            pairs = zip(LEVELS, quantiles, strict=True)
            loss = sum(2 * max(q * (actual - v), (q - 1) * (actual - v)) for q, v in pairs) / 5
            _, low, median, high, _ = quantiles
            steps += 1
            lost += loss
            missed += abs(actual - median)
            over += median - actual
            total += actual
            inside += low <= actual <= high
            if SEASONAL_ERROR[row] > 0:
                scaled_lost.append(loss / SEASONAL_ERROR[row])
                scaled_missed.append(abs(actual - median) / SEASONAL_ERROR[row])
    mean = {
        name: sum(values) / len(values) if values else NAN
        for name, values in (("sql", scaled_lost), ("mase", scaled_missed))
    }
    over_total = {"wql": lost / total, "wape": missed / total, "bias": over / total}
    return {**mean, **over_total, "coverage_80": inside / steps}


def test_all_metrics_of_all_series_and_of_each_stratum_are_those_of_a_loop() -> None:
    found = score(shops(), ACTUAL, QUANTILES, LEVELS)
    assert (found.series, tuple(found.overall)) == (6, METRICS)
    assert found.overall == pytest.approx(by_hand([0, 1, 2, 3, 4, 5]))
    assert found.strata.keys() == GROUPS.keys()
    for kind, groups in GROUPS.items():
        assert found.strata[kind].keys() == groups.keys()
        for name, rows in groups.items():
            expected = {**by_hand(rows), "series": len(rows)}
            assert found.strata[kind][name] == pytest.approx(expected, nan_ok=True), name


def rows_of(groups: dict[str, Floats]) -> dict[str, list[int]]:
    return {name: np.flatnonzero(rows_N).tolist() for name, rows_N in groups.items()}


def test_strata_are_told_by_what_was_known_at_the_cutoff() -> None:
    assert {kind: rows_of(groups) for kind, groups in stratify(shops()).items()} == GROUPS
    # Two seasons of four are longer than two horizons of three: eight days.
    longer = stratify(replace(shops(), season_length=4))
    assert rows_of(longer["history"])["cold start"] == [3, 4, 5]


def test_of_a_single_day_that_sold_nothing_all_days_sold_nothing() -> None:
    only = window_of(np.array([[NAN, NAN, 0.0], [NAN, NAN, 4.0]]), horizon=3)
    shares = rows_of(stratify(only)["zero_share"])
    assert (shares["over 90 %"], shares["under 10 %"]) == ([0], [1])


def test_a_stratum_without_a_series_is_left_out() -> None:
    rows = slice(3, 4)
    found = score(shops().rows(rows), ACTUAL[rows], QUANTILES[rows], LEVELS)
    assert {kind: list(groups) for kind, groups in found.strata.items()} == {
        "zero_share": ["under 10 %"],
        "volume": ["low third"],
        "history": ["established"],
    }
    assert found.series == 1


def test_a_window_without_sales_has_no_score_that_is_over_sales() -> None:
    for actual in (np.zeros((1, 2)), np.full((1, 2), NAN)):
        found = measure(actual, QUANTILES[:1, :2], LEVELS, np.ones(1))
        assert all(math.isnan(found[name]) for name in ("wql", "wape", "bias"))
    one = measure(np.array([[0.0, 0.5]]), QUANTILES[:1, :2], LEVELS, np.ones(1))
    # Medians of 4 and 4.5: eight units missed, all of them too many, of half a unit sold.
    assert (one["wape"], one["bias"]) == (16.0, 16.0)


def test_the_mean_over_windows_is_of_those_where_a_metric_is_defined() -> None:
    rows = [{"sql": 1.0, "wql": NAN}, {"sql": 3.0, "wql": NAN}, {"sql": math.inf, "wql": NAN}]
    found = mean_over_windows(rows)
    assert found["sql"] == 2.0 and math.isnan(found["wql"])
    assert mean_over_windows([]) == {}
