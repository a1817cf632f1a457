"""The published figures of fev-bench, to six digits, where FRESHET_DATA names the raw files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freshet.model.baselines.yardsticks import SeasonalNaive
from freshet.model.quantiles import metrics
from freshet.model.tables.panel import Rolling
from freshet.model.tables.prepare import PRESETS
from freshet.model.tables.table import Columns, TableSettings, read_panel

LEVELS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
FOLDER = Path(os.environ.get("FRESHET_DATA", "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (FOLDER / "rossmann").is_dir(),
        reason="FRESHET_DATA names no folder with rossmann in it",
    ),
]


def scored(
    table: pd.DataFrame, settings: TableSettings, rolling: Rolling, model: SeasonalNaive
) -> list[float]:
    """SQL, MASE, WAPE and WQL, each the mean over the windows."""
    panel = read_panel(table, settings)
    rows = []
    for index in range(rolling.num_windows):
        window, actual = rolling.window(panel, index), rolling.actual(panel, index)
        quantiles, levels = model.predict(window, LEVELS), np.array(LEVELS)
        error = metrics.seasonal_error(window.target_NT, window.season_length)
        rows.append(
            [
                metrics.sql(actual, quantiles, levels, error),
                metrics.mase(actual, quantiles[..., 4], error),
                metrics.wape(actual, quantiles[..., 4]),
                metrics.wql(actual, quantiles, levels),
            ]
        )
    return list(np.mean(rows, 0))


def settings(frequency: str, **others: object) -> TableSettings:
    return TableSettings(Columns("id", "timestamp", "target"), frequency, **others)  # type: ignore[arg-type]


def test_seasonal_naive_and_naive_on_daily_rossmann() -> None:
    table, rolling = PRESETS["rossmann_1D"](FOLDER), Rolling(48, 10)
    seasonal = scored(table, settings("D"), rolling, SeasonalNaive())
    assert seasonal == pytest.approx(
        [0.9136725128, 0.788554812, 0.269245196, 0.3139894576], rel=1e-6
    )
    naive = scored(table, settings("D"), rolling, SeasonalNaive("naive", 1))
    assert naive == pytest.approx(
        [2.7620723433, 1.6195142379, 0.5480500863, 0.9388561818], rel=1e-6
    )


def test_seasonal_naive_on_weekly_rossmann() -> None:
    table = PRESETS["rossmann_1W"](FOLDER)
    assert table.groupby("id").size().unique().tolist() == [133]
    found = scored(table, settings("W-SUN"), Rolling(13, 8), SeasonalNaive())
    assert found == pytest.approx([0.898795864, 0.7960291358, 0.2192445895, 0.2508975249], rel=1e-6)


def test_seasonal_naive_on_car_parts_without_a_spread() -> None:
    found = scored(
        PRESETS["car_parts"](FOLDER), settings("MS", missing="zero"), Rolling(12), SeasonalNaive()
    )
    # The published figure is that of a point forecast, for which the quantile loss is the absolute
    # error.
    assert found[2] == pytest.approx(1.5999522, rel=1e-6)


def test_seasonal_naive_on_car_parts_with_gaps_that_stay_gaps() -> None:
    found = scored(PRESETS["car_parts"](FOLDER), settings("MS"), Rolling(12), SeasonalNaive())
    assert found[1] == pytest.approx(1.2015, abs=5e-5)


def test_seasonal_naive_on_daily_pasta() -> None:
    table = PRESETS["hierarchical_sales_1D"](FOLDER)
    found = scored(table, settings("D"), Rolling(28, 10), SeasonalNaive())
    assert found[1:3] == pytest.approx([0.9949475154, 1.0205005959], rel=1e-6)
