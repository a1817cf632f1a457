"""A comparison: who is fitted when, what a failure does, what a restart or processes change."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from freshet.model.backtest import cache as backtest_cache
from freshet.model.backtest.compare import BacktestSettings, Results, backtest
from freshet.model.backtest.compare import make as model_of
from freshet.model.backtest.workers import FineTune, WindowForecast
from freshet.model.tables.panel import Panel, Rolling
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.errors import InvalidInputError
from tests.model.backtest.contestants import make
from tests.model.tables.windows import long_table

ROLLING = Rolling(5, 3)  # contexts of 25, 30 and 35 steps


@pytest.fixture(scope="module")
def panel() -> Panel:
    return read_panel(
        long_table(items=3, days=40),
        TableSettings(Columns("sku", "day", "sold", known=("promo",)), "D"),
    )


def compared(panel: Panel, *models: str, **others: object) -> Results:
    cache = others.pop("cache_in", None)
    settings = BacktestSettings(ROLLING, models, **others)  # type: ignore[arg-type]
    return backtest(panel, settings, make=make, cache_in=cache)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fine_tune", "noted"),
    [
        ("none", ["fit 25", "predict 25", "predict 30", "predict 35"]),
        ("once", ["fit 25", "predict 25", "predict 30", "predict 35"]),
        ("each", ["fit 25", "predict 25", "fit 30", "predict 30", "fit 35", "predict 35"]),
    ],
)
def test_a_learner_is_fitted_at_the_first_cutoff_or_at_each(
    panel: Panel, tmp_path: Path, fine_tune: FineTune, noted: list[str]
) -> None:
    compared(panel, f"constant:{tmp_path / 'diary'}", fine_tune=fine_tune)
    assert (tmp_path / "diary").read_text().splitlines() == noted


def test_on_a_cluster_forecasts_are_those_of_this_process(panel: Panel, tmp_path: Path) -> None:
    from fugue import NativeExecutionEngine

    models = ("seasonal_naive", f"constant:{tmp_path / 'diary'}", "raises")
    here = compared(panel, *models)
    there = compared(panel, *models, engine=NativeExecutionEngine())
    assert there.failed == here.failed == ["raises"]
    for name in models:
        for own, other in zip(here.of_model[name], there.of_model[name], strict=True):
            assert own.forecast.error == other.forecast.error
            np.testing.assert_equal(other.forecast.quantiles_NHQ, own.forecast.quantiles_NHQ)
    with pytest.raises(InvalidInputError, match="there is no engine 'sparc'"):
        compared(panel, "seasonal_naive", engine="sparc")


def test_a_failure_is_told_and_stops_no_other(panel: Panel) -> None:
    results = compared(panel, "raises", "seasonal_naive", "unbuildable")
    assert results.failed == ["raises", "unbuildable"]
    errors = [row.forecast.error for row in results.of_model["raises"]]
    assert errors == ["", "", "RuntimeError: no forecast today"]
    assert [row.forecast.error for row in results.of_model["unbuildable"]] == [
        "RuntimeError: a library is missing"
    ] * 3
    assert all(row.scores is not None for row in results.of_model["seasonal_naive"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forgets", "forecasts of 1 series are not finite, first 'sku1'"),
        ("short", r"shape \(1, 5, 9\), expected \(3, 5, 9\)"),
    ],
)
def test_forecasts_that_scores_would_pass_over_are_failures(
    panel: Panel, name: str, message: str
) -> None:
    (first, *_) = compared(panel, name).of_model[name]
    assert first.scores is None
    assert re.search(message, first.forecast.error)


def test_an_unknown_model_ends_it_before_anything_is_forecast(panel: Panel) -> None:
    heard: list[WindowForecast] = []
    with pytest.raises(InvalidInputError, match="no model 'typo'"):
        backtest(
            panel,
            BacktestSettings(ROLLING, ("seasonal_naive", "typo")),
            make=make,
            on_done=heard.append,
        )
    assert not heard


def test_names_joined_by_a_plus_are_fitted_and_averaged(panel: Panel) -> None:
    parts = ("naive", "seasonal_naive")
    results = backtest(panel, BacktestSettings(ROLLING, (*parts, "+".join(parts))), make=model_of)
    first, second, mean = (results.of_model[name] for name in results.settings.models)
    for one, other, both in zip(first, second, mean, strict=True):
        assert one.forecast.quantiles_NHQ is not None and other.forecast.quantiles_NHQ is not None
        expected = (one.forecast.quantiles_NHQ + other.forecast.quantiles_NHQ) / 2
        np.testing.assert_allclose(both.forecast.quantiles_NHQ, expected)
    assert (
        model_of("linear+naive", "each").needs_fit
        and not model_of("naive+seasonal_naive", "each").needs_fit
    )
    with pytest.raises(InvalidInputError, match="no model 'typo'"):
        model_of("naive+typo", "none")


def test_processes_give_what_one_process_gives(panel: Panel) -> None:
    alone = compared(panel, "seasonal_naive", "constant", "raises")
    together = compared(panel, "seasonal_naive", "constant", "raises", jobs=2)
    for name, rows in alone.of_model.items():
        for one, other in zip(rows, together.of_model[name], strict=True):
            np.testing.assert_equal(one.forecast.quantiles_NHQ, other.forecast.quantiles_NHQ)
            assert one.forecast.error == other.forecast.error
            assert one.scores == other.scores or one.scores is None


def test_a_process_that_dies_is_a_failure_and_not_the_end(panel: Panel) -> None:
    results = compared(panel, "dies", jobs=2)
    assert [row.forecast.error[:17] for row in results.of_model["dies"]] == [
        "its process died,"
    ] * 3


def test_a_restart_makes_only_what_is_missing(panel: Panel, tmp_path: Path) -> None:
    name = f"constant:{tmp_path / 'diary'}"
    first = compared(panel, name, "seasonal_naive", cache_in=tmp_path / "cache")
    files = sorted((tmp_path / "cache").glob("constant*"))
    assert first.resumed == 0 and len(files) == 3
    files[1].write_bytes(b"half a fi")
    again = compared(panel, name, "seasonal_naive", cache_in=tmp_path / "cache")
    assert again.resumed == 5
    assert len((tmp_path / "diary").read_text().splitlines()) == 4 + 2
    for one, other in zip(first.of_model[name], again.of_model[name], strict=True):
        assert one.scores == other.scores


def test_failures_are_tried_again(panel: Panel, tmp_path: Path) -> None:
    assert compared(panel, "raises", cache_in=tmp_path).failed
    assert compared(panel, "raises", cache_in=tmp_path).resumed == 2


def test_other_data_settings_or_code_take_nothing_from_the_cache(
    panel: Panel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared(panel, "seasonal_naive", cache_in=tmp_path)
    assert compared(panel, "seasonal_naive", cache_in=tmp_path).resumed == 3
    assert compared(panel, "seasonal_naive", cache_in=tmp_path, fine_tune="each").resumed == 0
    other = read_panel(
        long_table(items=3, days=40, seed=1), TableSettings(Columns("sku", "day", "sold"), "D")
    )
    assert compared(other, "seasonal_naive", cache_in=tmp_path).resumed == 0
    monkeypatch.setattr(backtest_cache, "_code_fingerprint", lambda: "another")
    assert compared(panel, "seasonal_naive", cache_in=tmp_path).resumed == 0


def test_models_are_given_nothing_from_after_their_cutoff(panel: Panel) -> None:
    """The same forecasts come when the last windows' actuals are garbage."""
    target = panel.target_NL.copy()
    target[:, -5:] = 1e9
    clean, dirty = (
        compared(panel, "constant"),
        compared(replace(panel, target_NL=target), "constant"),
    )
    for one, other in zip(clean.of_model["constant"], dirty.of_model["constant"], strict=True):
        np.testing.assert_equal(one.forecast.quantiles_NHQ, other.forecast.quantiles_NHQ)
    assert clean.of_model["constant"][2].scores != dirty.of_model["constant"][2].scores
