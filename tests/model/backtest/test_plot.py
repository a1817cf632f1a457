"""Pictures of every kind, of comparisons that are easy to draw and of those that are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from freshet.model.backtest.compare import BacktestSettings, Results, backtest
from freshet.model.backtest.plot import plot, sample
from freshet.model.tables.panel import Rolling
from freshet.model.tables.table import Columns, TableSettings, read_panel
from tests.model.backtest.contestants import make
from tests.model.tables.windows import long_table, window_of


def compared(models: tuple[str, ...], rolling: Rolling) -> Results:
    panel = read_panel(
        long_table(items=3, days=40), TableSettings(Columns("sku", "day", "sold"), "D")
    )
    return backtest(panel, BacktestSettings(rolling, models), make=make)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf", "html"])
def test_every_kind_of_file_is_written(tmp_path: Path, suffix: str) -> None:
    plot(compared(("constant", "seasonal_naive"), Rolling(5, 2)), tmp_path / f"picture.{suffix}")
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "html": b"<!doctype html>"}[suffix]
    assert (tmp_path / f"picture.{suffix}").read_bytes().startswith(start)


def test_the_page_needs_no_other_file_and_escapes_names(tmp_path: Path) -> None:
    panel = read_panel(
        long_table(items=2, days=40).replace({"sku": {"sku1": "<b>&co"}}),
        TableSettings(Columns("sku", "day", "sold"), "D"),
    )
    plot(
        backtest(panel, BacktestSettings(Rolling(5), ("seasonal_naive", "forgets")), make=make),
        tmp_path / "p.html",
    )
    text = (tmp_path / "p.html").read_text()
    assert "<svg" in text and "<script" not in text and "<link" not in text and "<b>" not in text
    assert "&lt;b&gt;&amp;co" in text
    assert "forgets failed in 1 of 1 windows" in text


@pytest.mark.parametrize(
    "models", [("seasonal_naive",), ("constant",), ("raises",), ("constant", "seasonal_naive")]
)
@pytest.mark.parametrize("horizon", [1, 5])
def test_a_lone_model_a_single_step_and_failures_alone_can_be_drawn(
    tmp_path: Path, models: tuple[str, ...], horizon: int
) -> None:
    plot(compared(models, Rolling(horizon)), tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text()
    assert ("No model gave forecasts" in drawn) == (models == ("raises",))
    assert ("Skill: share" in drawn) == (len(models) == 2)


def test_rows_are_chosen_from_each_group_and_never_dead_ones() -> None:
    rng = np.random.default_rng(0)
    target = rng.poisson(np.geomspace(0.2, 50, 12)[:, None], (12, 80)).astype(float)
    target[11, -40:] = 0.0
    chosen = sample(window_of(target, horizon=3), np.ones((12, 3)))
    assert len(chosen) == 6 and 11 not in chosen
    assert (
        "low third by volume" in chosen.values()
        and "50 to 90 % of steps without a sale" in chosen.values()
    )
    unknown = np.full((12, 3), np.nan)
    assert sample(window_of(target, horizon=3), unknown) == {}
