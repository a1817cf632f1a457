"""Slopes of a table by day against a regression written apart, one value at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from freshet.model.effects.slopes import fit_slopes
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import window_of

SERIES, CONTEXT, STEPS = 4, 84, 98


class Shop(NamedTuple):
    window: Window
    closed_NS: Bools
    cells: dict[tuple[int, int], list[tuple[int, int]]]
    """Of each series and weekday, the (series, step) of all that teaches."""


@pytest.fixture
def shop() -> Shop:
    """Prices and degrees with gaps; between them a column that nobody may use; some days closed.

    Series differ in size and price, weekdays in sales: neither has anything to do with slopes.
    """
    rng = np.random.default_rng(5)
    known_NSK = rng.uniform(1.0, 3.0, (SERIES, STEPS, 3)) + np.arange(SERIES)[:, None, None]
    known_NSK[..., 2] *= 10.0
    known_NSK[rng.random(known_NSK.shape) < 0.1] = np.nan
    known_NSK[:, CONTEXT:] *= 3.0  # ranges must not know the days ahead
    log_NS = 3.0 + np.arange(SERIES)[:, None] + 0.5 * (np.arange(STEPS) % 7 == 2)
    log_NS = (
        log_NS
        - 0.4 * np.nan_to_num(known_NSK[..., 0], nan=3.0)
        + 0.02 * rng.normal(size=log_NS.shape)
    )
    target_NT = np.exp(log_NS[:, :CONTEXT])
    target_NT[rng.random(target_NT.shape) < 0.1] = np.nan
    closed_NS = rng.random((SERIES, STEPS)) < 0.05
    window = window_of(target_NT, horizon=STEPS - CONTEXT)
    taught = np.isfinite(target_NT) & ~closed_NS[:, :CONTEXT]
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, step in zip(*np.nonzero(taught), strict=True):
        cells.setdefault((row, step % 7), []).append((row, step))
    return Shop(replace(window, known_NSK=known_NSK), closed_NS, cells)


def centred(values_NT: Floats, cells: dict[tuple[int, int], list[tuple[int, int]]]) -> Floats:
    """Values of all that teaches less the mean of their series and weekday, cell by cell."""
    found = []
    for steps in cells.values():
        own = [values_NT[step] for step in steps]
        found += [value - sum(own) / len(own) for value in own]
    return np.array(found)


def lowest(values_NS: Floats, steps: list[tuple[int, int]]) -> dict[int, float]:
    """The least value of each series over the steps that teach."""
    found: dict[int, float] = {}
    for row, step in steps:
        value = values_NS[row, step]
        if math.isfinite(value):
            found[row] = min(value, found.get(row, value))
    return found


def test_slopes_by_day_are_a_ridge_regression_within_series_and_weekday(shop: Shop) -> None:
    window, closed_NS, cells = shop
    steps = [step for some in cells.values() for step in some]
    features_KNS, columns_KX, trusted_K = [], [], []
    for column in (2, 0):
        values_NS = window.known_NSK[..., column]
        seen = [values_NS[step] for step in steps if math.isfinite(values_NS[step])]
        low, high, mean = min(seen), max(seen), sum(seen) / len(seen)
        filled_NS = np.where(np.isnan(values_NS), mean, values_NS)
        place_NS = (np.minimum(np.maximum(filled_NS, low), high) - low) / (high - low)
        # Beside the dates that taught stand two on which nothing happened.
        dates = {
            step for row, step in steps if values_NS[row, step] > lowest(values_NS, steps)[row]
        }
        trusted_K += [len(dates) / (len(dates) + 2)] * 2
        for feature_NS in (place_NS, np.log(0.1 + place_NS)):
            features_KNS.append(feature_NS)
            columns_KX.append(centred(feature_NS, cells))
    spread_K = [column_X.std() for column_X in columns_KX]
    design_XK = np.stack(columns_KX, -1) / spread_K
    sold_X = centred(np.log1p(window.target_NT), cells)
    per_spread_K = np.linalg.solve(design_XK.T @ design_XK + 10.0 * np.eye(4), design_XK.T @ sold_X)
    effect_NS = sum(
        trust * weight / spread * feature_NS
        for trust, weight, spread, feature_NS in zip(
            trusted_K, per_spread_K, spread_K, features_KNS, strict=True
        )
    )
    # Zero on average over the steps with sales, closed ones too: those are what is told apart.
    for row in range(SERIES):
        seen_T = np.isfinite(window.target_NT[row])
        effect_NS[row] -= effect_NS[row, :CONTEXT][seen_T].mean()
    taught = [effect_NS[row, :CONTEXT][np.isfinite(window.target_NT[row])] for row in range(SERIES)]
    effect_NS = effect_NS.clip(np.concatenate(taught).min(), np.concatenate(taught).max())
    assert 0.3 < np.abs(effect_NS).max() < 2.0
    found = fit_slopes(window, closed_NS, [2, 0])
    assert found.columns == (2, 0)
    np.testing.assert_allclose(found.apply(window), effect_NS, atol=1e-9)


def test_no_effect_goes_beyond_a_factor_of_seven(shop: Shop) -> None:
    window, closed_NS, _ = shop
    price_NT = np.nan_to_num(window.known_NSK[:, :CONTEXT, 0], nan=3.0)
    strong = replace(window, target_NT=np.exp(40.0 - 6.0 * price_NT))
    found_NS = fit_slopes(strong, closed_NS, [0]).apply(strong)
    assert (found_NS.min(), found_NS.max()) == (-2.0, 2.0)


def test_a_thousand_series_that_share_a_date_have_seen_one_date() -> None:
    flag_NS = np.zeros((1_000, 14, 1))
    flag_NS[:, 4] = 1.0
    target_NT = np.where(np.arange(10) == 4, np.exp(3.0), np.exp(2.0)) - 1.0
    window = window_of(np.tile(target_NT, (1_000, 1)), horizon=4)
    window = replace(window, known_NSK=flag_NS, resolution_ms=7 * DAY_MS)
    found = fit_slopes(window, np.zeros((1_000, 14), bool), [0])
    effect_S = found.apply(window)[0]
    # What it did is one log unit; beside the one date stand two on which nothing happened.
    assert effect_S[4] - effect_S[3] == pytest.approx(1 / 3, abs=0.01)


def test_covariates_together_do_no_more_than_they_did_together(shop: Shop) -> None:
    window, closed_NS, _ = shop
    turn_S = np.arange(STEPS) % 4
    both_NS = np.stack([turn_S == 1, turn_S == 2], -1)[None].repeat(SERIES, 0) * 1.0
    both_NS[:, CONTEXT:] = 1.0
    apart = replace(window, known_NSK=both_NS, target_NT=np.exp(3.0 + both_NS.sum(-1))[:, :CONTEXT])
    effect_NS = fit_slopes(apart, closed_NS, [0, 1]).apply(apart)
    assert effect_NS[:, CONTEXT:].max() == effect_NS[:, :CONTEXT].max() > 0.3


def test_steps_of_less_than_an_hour_fill_no_slots_and_teach_no_slope(shop: Shop) -> None:
    window, closed_NS, _ = shop
    # Of a little less than an hour a week holds one step more than 168.
    for resolution_ms, columns in ((HOUR_MS, (0,)), (WEEK_MS // 169, ())):
        shorter = replace(window, resolution_ms=resolution_ms)
        assert fit_slopes(shorter, closed_NS, [0]).columns == columns
    longer = replace(window, resolution_ms=DAY_MS + 1)
    assert fit_slopes(longer, closed_NS, [0]).columns == (0,)


def test_a_column_that_only_tells_series_and_weekdays_apart_has_no_slope(shop: Shop) -> None:
    window, closed_NS, _ = shop
    size_NS = np.arange(SERIES)[:, None] + np.arange(STEPS) % 7
    known = replace(window, known_NSK=size_NS[..., None].astype(float))
    found = fit_slopes(known, closed_NS, [0])
    np.testing.assert_allclose(found.weights_2C, 0.0, atol=1e-9)
