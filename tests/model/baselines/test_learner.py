"""Learners: told nothing from after the origin, and their errors become honest quantiles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from freshet.model.baselines.learner import Errors, FeatureLearner, Lessons, lessons_of
from freshet.model.baselines.linear import train
from freshet.model.baselines.past import Past
from freshet.model.baselines.steps import Codes, ahead
from freshet.model.tables.panel import Window
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import earlier


def shop(*, series: int = 40, days: int = 400, horizon: int = 14, seed: int = 0) -> Window:
    """Sales that follow weekday, promotion and a category that matters on promotion only."""
    random = np.random.default_rng(seed)
    steps = days + horizon
    promotion_S = (random.random(steps) < 0.3).astype(float)
    kind_N = np.arange(series) % 2
    log_NS = (
        random.uniform(3, 5, (series, 1))
        + 0.3 * np.sin(np.arange(steps) * 2 * np.pi / 7)
        + promotion_S * (0.2 + 0.6 * kind_N[:, None])
        + 0.1 * random.normal(size=(series, steps))
    )
    known_NSK = np.tile(promotion_S[None, :, None], (series, 1, 1))
    static = {"kind": np.array(["plain", "dear"], object)[kind_N]}
    ids = tuple(str(row) for row in range(series))
    time_NS = np.tile(np.arange(steps) * DAY_MS, (series, 1))
    target_NT = np.round(np.exp(log_NS[:, :days]))
    return Window(
        ids,
        "D",
        DAY_MS,
        7,
        time_NS,
        target_NT,
        known_NSK,
        np.zeros((series, days, 0)),
        ("promotion",),
        (),
        static,
    )


def test_what_is_told_about_steps_ahead_does_not_change_with_what_happens_after_the_origin() -> (
    None
):
    window = shop()
    changed_NT = window.target_NT.copy()
    changed_NT[:, 300:] = 1_000.0
    past = Past.of(window)
    other = replace(past, log_NT=np.log1p(changed_NT))
    codes = Codes.of(window)
    seen, also_seen = ahead(past, codes, 300), ahead(other, codes, 300)
    np.testing.assert_array_equal(seen.features_NHK, also_seen.features_NHK)
    np.testing.assert_array_equal(seen.base_NH, also_seen.base_NH)
    assert not np.allclose(seen.target_NH, also_seen.target_NH)


def test_known_covariates_of_the_steps_ahead_are_told_and_flags_say_how_long_they_last() -> None:
    window = shop()
    window.known_NSK[:, 300:314, 0] = [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    seen = ahead(Past.of(window), Codes.of(window), 300)
    told = dict(zip(seen.names, seen.features_NHK[0].T, strict=True))
    assert told["known promotion"].tolist() == [0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    assert told["since flag 0"][2:6].tolist() == [0, 1, 2, 0]
    assert told["until flag 0"][2:6].tolist() == [3, 2, 1, 6]
    assert told["weekday"][:3].tolist() == [(300 + day) % 7 for day in range(3)]


def test_texts_keep_their_numbers_and_new_ones_are_unknown() -> None:
    window = shop(series=4)
    codes = Codes.of(window)
    other = replace(window, static={"kind": np.array(["plain", "new", "dear", None], object)})
    assert np.isnan(codes.columns(other)["kind"]).tolist() == [False, True, False, True]
    assert codes.columns(other)["kind"][2] == codes.columns(window)["kind"][1]
    assert np.isnan(codes.columns(replace(window, static={}))["kind"]).all()


def test_short_histories_give_lessons_as_soon_as_one_horizon_fits() -> None:
    window = shop(days=15)
    lessons = lessons_of(Past.of(window), Codes.of(window))
    assert lessons is not None
    assert set(lessons.step_X) == set(range(1, 15))
    assert lessons_of(Past.of(shop(days=14)), Codes.of(window)) is None


def test_days_older_than_sixty_weeks_are_not_learnt_from() -> None:
    window = shop(series=4, days=700)
    lessons = lessons_of(Past.of(window), Codes.of(window))
    assert lessons is not None
    assert 700 - 14 - 420 <= lessons.step_X.min() < 700 - 14 - 390
    assert lessons.step_X.max() == 699


def test_errors_of_noisy_series_and_of_large_sales_are_wider() -> None:
    random = np.random.default_rng(0)
    spread_X = np.repeat([0.1, 0.4], 20_000)
    expected_X = np.tile(np.linspace(0, 6, 20_000), 2)
    error_X = random.normal(size=40_000) * np.sqrt(spread_X / 0.2) * (1 + expected_X) * 0.1
    errors = Errors.of(error_X, expected_X, spread_X, np.tile(np.linspace(0, 1, 20_000), 2) * 0)
    upper = errors.at(np.array([[1.0, 5.0]]), (0.9,))[0, :, 0]
    assert 2.0 < upper[1] / upper[0] < 4.0
    assert np.isclose(
        errors.scale(np.array(0.4), np.array(0.0)) / errors.scale(np.array(0.1), np.array(0.0)), 2.0
    )
    wide = errors.at(np.array([[3.0]]), (0.1, 0.9))[0, 0] * errors.scale(
        np.array(0.4), np.array(0.0)
    )
    held = np.abs(expected_X[20_000:] - 3.0) < 0.3
    inside = (error_X[20_000:][held] > wide[0]) & (error_X[20_000:][held] < wide[1])
    assert 0.74 < inside.mean() < 0.86


def test_errors_that_grow_along_the_horizon_widen_the_fan() -> None:
    random = np.random.default_rng(1)
    share_X = random.random(20_000)
    error_X = random.normal(size=20_000) * (1 + share_X)
    errors = Errors.of(error_X, np.zeros(20_000), np.ones(20_000), share_X)
    assert (
        1.6
        < errors.scale(np.array(1.0), np.array(1.0)) / errors.scale(np.array(1.0), np.array(0.0))
        < 2.6
    )


def test_eighty_of_a_hundred_fall_into_the_eighty_percent_band_and_the_category_is_learnt() -> None:
    whole = shop(days=428, horizon=14)
    covered, errors, naive = [], [], []
    for steps in (14, 28):
        window, actual_NH = earlier(whole, steps, horizon=14)
        model = FeatureLearner("linear", train)
        model.fit(window)
        found_NHQ = model.predict(window, (0.1, 0.5, 0.9))
        covered.append(((actual_NH >= found_NHQ[..., 0]) & (actual_NH <= found_NHQ[..., 2])).mean())
        errors.append(np.abs(np.log(actual_NH / found_NHQ[..., 1])).mean())
        naive.append(np.abs(np.log(actual_NH / window.target_NT[:, -14:])).mean())
    assert 0.72 < np.mean(covered) < 0.9
    # The noise alone is 0.08.
    assert np.mean(errors) < 0.11
    assert np.mean(naive) > 2 * np.mean(errors)


def test_no_day_is_both_learnt_from_and_judged() -> None:
    seen: list[tuple[set[int], int]] = []

    def spy(lessons: Lessons, fold: int) -> object:
        seen.append((set(lessons.step_X.tolist()), fold))
        return lambda features_XK: np.zeros(len(features_XK))

    model = FeatureLearner("spy", spy)  # type: ignore[arg-type]
    window = shop(days=200)
    model.fit(window)
    lessons = lessons_of(Past.of(window), Codes.of(window))
    assert lessons is not None
    every_day = set(lessons.step_X.tolist())
    held_out = [every_day - learnt for learnt, _ in seen]
    assert set.union(*held_out) == every_day
    assert not set.intersection(held_out[0], held_out[1])
