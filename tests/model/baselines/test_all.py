"""What every baseline owes: finite, sorted quantiles >= 0, and nothing from after the cutoff."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from freshet.model.baselines import NAMES, make
from freshet.model.baselines.lstm import Lstm
from freshet.model.tables.panel import Window
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import earlier

LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)


def window(
    target_NT: np.ndarray, *, horizon: int = 14, step_ms: int = DAY_MS, known: bool = True
) -> Window:
    """A window with a flag of opening, a number with gaps, static columns, and visits."""
    series, context = target_NT.shape
    random = np.random.default_rng(3)
    shape = (series, context + horizon)
    known_NSK = np.stack(
        [np.arange(shape[1]) % 7 != 6 + np.zeros(shape), random.normal(size=shape)], -1
    )
    known_NSK[:, 3, 1] = np.nan
    static: dict[str, Any] = {
        "kind": np.array(
            [None if row % 3 == 2 else "ab"[row % 2] for row in range(series)], object
        ),
        "size": np.where(np.arange(series) == 1, np.nan, np.arange(series) * 1.0),
    }
    return Window(
        tuple(f"item{row}" for row in range(series)),
        {HOUR_MS: "h", DAY_MS: "D", WEEK_MS: "W-SUN"}.get(step_ms, "MS"),
        step_ms,
        7 if step_ms == DAY_MS else 12 if step_ms > WEEK_MS else 1,
        np.broadcast_to(
            1_600_000_000_000 // DAY_MS * DAY_MS + np.arange(shape[1]) * step_ms, shape
        ),
        target_NT,
        known_NSK if known else known_NSK[..., :0],
        random.poisson(5, (series, context, 1)).astype(float),
        ("open", "price") if known else (),
        ("visits",),
        static,
    )


def sales(series: int = 12, days: int = 150, seed: int = 0) -> np.ndarray:
    """Sales with a weekly shape and a day off, of level 20 to 200; some values are missing."""
    random = np.random.default_rng(seed)
    level_N1 = np.exp(random.uniform(3, 5, (series, 1)))
    shape_T = np.array([1.0, 0.8, 0.9, 1.1, 1.4, 1.8, 0.0])[np.arange(days) % 7]
    target_NT: np.ndarray = random.poisson(level_N1 * shape_T).astype(float)
    target_NT[0, 20:30] = np.nan
    target_NT[1, :60] = np.nan
    return target_NT


def predicted(
    name: str, of: Window, learnt_from: Window | None = None, steps: int = 10
) -> np.ndarray:
    # The LSTM's full training takes many seconds, and what is owed to odd series does not depend on
    # it.
    model = Lstm(steps) if name == "lstm" else make(name)
    if model.needs_fit:
        model.fit(learnt_from or of)
    return model.predict(of, LEVELS)


def check(name: str, found_NHQ: np.ndarray, of: Window) -> None:
    assert found_NHQ.shape == (len(of), of.horizon, len(LEVELS))
    assert np.isfinite(found_NHQ).all()
    assert (np.diff(found_NHQ, axis=-1) >= 0).all()
    # The naive yardsticks are those of published tables, plain normal distributions.
    assert (found_NHQ >= 0).all() or name in {"naive", "seasonal_naive"}


ODD = {
    "short": np.array([[3.0, 4.0, 0.0]]),
    "one point": np.array([[3.0]]),
    "zero": np.zeros((3, 90)),
    "constant": np.full((3, 90), 7.0),
    "empty": np.full((2, 90), np.nan),
    "one sale": np.eye(4, 90),
    "mixed": np.array(
        [[np.nan] * 60, [0.0] * 60, [5.0] * 60, [np.nan] * 59 + [2.0], list(range(60))]
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_odd_series_get_finite_sorted_quantiles(name: str) -> None:
    for target_NT in ODD.values():
        of = window(target_NT)
        check(name, predicted(name, of), of)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step_ms", [HOUR_MS, WEEK_MS, 30 * DAY_MS])
def test_hours_weeks_and_months_work_too(name: str, step_ms: int) -> None:
    of = window(sales(6, 80), step_ms=step_ms, known=step_ms != WEEK_MS, horizon=6)
    check(name, predicted(name, of), of)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shop_that_repeats_itself_is_forecast_well_and_twice_the_same(name: str) -> None:
    whole = window(sales(days=164))
    of, actual_NH = earlier(whole, 14)
    found_NHQ = predicted(name, of, steps=120)
    error = np.nanmean(np.abs(actual_NH - found_NHQ[..., 2])) / np.nanmean(actual_NH)
    # Those without a season can at best know the mean.
    limit = 0.8 if name in {"naive", "moving_average", "croston_sba", "tsb"} else 0.35
    assert error < limit * (3 if name == "naive" else 1)
    np.testing.assert_array_equal(predicted(name, of), predicted(name, of))


@pytest.mark.parametrize("name", ["linear", "lightgbm", "lstm"])
def test_learners_know_closed_days_new_series_and_later_windows(name: str) -> None:
    whole = window(sales(12, 178))
    before, _ = earlier(whole, 28, horizon=14)
    found_NHQ = predicted(name, whole, learnt_from=before.rows(np.arange(8)))
    check(name, found_NHQ, whole)
    closed_H = whole.known_NSK[0, whole.context_length :, 0] == 0
    assert (found_NHQ[:, closed_H] == 0).all()
    assert (found_NHQ[4, ~closed_H, 2] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_cell_of_a_covariate_changes_no_other_series(name: str) -> None:
    """Padding and gaps in one series must not leak NaN into its neighbours."""
    of = window(sales(6, 90))
    holes = replace(of, known_NSK=of.known_NSK.copy())
    holes.known_NSK[2, :, 1] = np.nan
    check(name, predicted(name, holes), holes)


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InvalidInputError, match=r"no model 'prophet'; choose from seasonal_naive, .*chronos:FOLDER"
    ):
        make("prophet")
