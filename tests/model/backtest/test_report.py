"""The files of a comparison: anyone can compute its scores again from them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from freshet.model.backtest.compare import BacktestSettings, Results, backtest
from freshet.model.backtest.report import ranked, rows, table, write_forecasts, write_json
from freshet.model.backtest.score import METRICS
from freshet.model.tables.panel import Rolling
from freshet.model.tables.table import Columns, TableSettings, read_panel
from tests.model.backtest.contestants import make
from tests.model.tables.windows import long_table

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
