"""The files of a comparison: anyone can compute its scores again from them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freshet.model.backtest.compare import LEVELS, BacktestSettings, Results, backtest
from freshet.model.backtest.report import ranked, rows, table, write_forecasts, write_json
from freshet.model.backtest.score import METRICS, mean_over_windows, score, stratify
from freshet.model.tables.panel import Rolling
from freshet.model.tables.table import Columns, TableSettings, read_panel
from tests.model.backtest.contestants import make
from tests.model.tables.windows import long_table, window_of

ROLLING = Rolling(5, 3)
MODELS = ("constant", "raises", "seasonal_naive")


@pytest.fixture(scope="module")
def results() -> Results:
    panel = read_panel(
        long_table(items=3, days=40), TableSettings(Columns("sku", "day", "sold"), "D")
    )
    return backtest(panel, BacktestSettings(ROLLING, MODELS), make=make)


def test_anyone_can_score_the_forecasts_from_the_file_and_the_data(
    results: Results, tmp_path: Path
) -> None:
    write_forecasts(results, tmp_path / "f.parquet")
    found = pd.read_parquet(tmp_path / "f.parquet")
    levels = [f"0.{tenth}" for tenth in range(1, 10)]
    assert list(found.columns) == ["model", "item_id", "timestamp", "cutoff", *levels]
    found = found.astype({"model": str, "item_id": str})
    assert ((found.timestamp - found.cutoff).dt.days.between(1, 5)).all()
    joined = found.merge(
        long_table(items=3, days=40), left_on=["item_id", "timestamp"], right_on=["sku", "day"]
    )
    assert len(joined) == len(found) == 2 * 45 + 30
    naive = joined[joined.model == "seasonal_naive"]
    loss = (
        sum((naive.sold - naive[q]) * (float(q) - (naive.sold < naive[q])) for q in levels) * 2 / 9
    )
    by_window = loss.groupby(naive.cutoff).sum() / naive.sold.groupby(naive.cutoff).sum()
    row = next(row for row in rows(results) if row["model"] == "seasonal_naive")
    assert by_window.mean() == pytest.approx(row["wql"])
    assert by_window.tolist() == pytest.approx([window["wql"] for window in row["windows"]])


def test_the_json_has_a_row_a_model_and_says_who_failed(results: Results, tmp_path: Path) -> None:
    write_json(results, "sales.csv", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    assert (
        found["season_length"],
        found["prediction_length"],
        found["windows"],
        found["window_step"],
    ) == (7, 5, 3, 5)
    constant, raises, naive = found["models"]
    assert {*METRICS, "fit_s", "predict_s", "series"} <= constant.keys()
    assert (naive["series"], naive["forecasts"], naive["error"]) == (3, 9, "")
    assert raises["error"] == "in 1 of 3 windows: RuntimeError: no forecast today"
    assert raises["sql"] is None and raises["strata"] == {}
    assert naive["strata"]["history"]["established"]["series"] == 3


def test_the_table_ranks_by_sql_and_puts_failures_last(results: Results) -> None:
    order = [row["model"] for row in ranked(rows(results))]
    assert order[-1] == "raises" and len(order) == 3
    assert table(rows(results)).row_count == 3


def test_strata_are_told_by_what_was_known_at_the_cutoff() -> None:
    target = np.array([[0.0] * 19 + [5.0], [2.0] * 20, [np.nan] * 15 + [0.0, 1.0, 0.0, 0.0, 1.0]])
    groups = stratify(window_of(target, horizon=3))
    assert groups["zero_share"]["over 90 %"].tolist() == [True, False, False]
    assert groups["zero_share"]["under 10 %"].tolist() == [False, True, False]
    assert groups["zero_share"]["50 to 90 %"].tolist() == [False, False, True]
    assert groups["history"]["cold start"].tolist() == [False, False, True]
    assert [groups["volume"][name].argmax() for name in groups["volume"]] == [0, 2, 1]


def test_a_window_without_sales_has_no_score_that_is_over_sales() -> None:
    window = window_of(np.ones((1, 9)) * np.arange(9.0), horizon=2, season_length=1)
    for actual in (np.zeros((1, 2)), np.full((1, 2), np.nan)):
        scores = score(window, actual, np.ones((1, 2, 9)), LEVELS).overall
        assert (
            math.isnan(scores["wql"]) and math.isnan(scores["wape"]) and math.isnan(scores["bias"])
        )
    assert mean_over_windows([scores, dict.fromkeys(METRICS, 1.0)])["wql"] == 1.0
