"""A comparison on a table with levels: what is forecast there is what `predict` forecasts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freshet.model.backtest.compare import BacktestSettings, backtest, make_by_level, with_weights
from freshet.model.backtest.hierarchy import ByLevel, Coherent, panel_with_groups
from freshet.model.backtest.report import level_table, rows
from freshet.model.predict.frame import Forecaster
from freshet.model.tables.panel import Rolling, Window
from freshet.model.tables.table import Columns, TableSettings
from freshet.model.training.tuned import FreshetModel
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError

DAYS, HORIZON = 50, 4
LEVELS = (0.1, 0.5, 0.9)
SETTINGS = TableSettings(Columns("sku", "day", "sold", ("promo",), static=("price",)))
STORE = {"a": "north", "b": "north", "c": "south"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three items of two stores, of which the last one begins late."""
    rng = np.random.default_rng(6)
    day = pd.date_range("2024-03-01", periods=DAYS)
    parts = []
    for place, (sku, store) in enumerate(STORE.items()):
        first = 30 if sku == "c" else 0
        part = {"sku": sku, "day": day, "sold": rng.poisson(6.0 + place, DAYS), "store": store}
        part |= {"promo": (np.arange(DAYS) % 6 == place).astype(float), "price": 2.0 + place}
        parts.append(pd.DataFrame(part)[first:])
    path = tmp_path / "sold.csv"
    pd.concat(parts).to_csv(path, index=False)
    return path


def test_a_coherent_model_forecasts_what_predict_does(table, tiny_network) -> None:
    panel, hierarchy = panel_with_groups(table, SETTINGS, ["total", "store"])
    forecaster = Forecaster(tiny_network, device="cpu", dtype="float32")
    model = Coherent(lambda: FreshetModel(forecaster, tune=False), hierarchy)
    window = Rolling(HORIZON).window(panel, 0)
    made_NHQ = model.predict(window, LEVELS)
    frame = pd.read_csv(table)
    ahead = frame.day > sorted(frame.day.unique())[-HORIZON - 1]
    found = forecaster.predict(
        frame.assign(sold=frame.sold.where(~ahead)),
        quantile_levels=LEVELS,
        levels=["total", "store"],
        id_column="sku",
        timestamp_column="day",
        target="sold",
        static=["price"],
    )
    names = ["sku", "sku", "sku", "total", "store", "store"]
    assert window.item_ids == ("a", "b", "c", "total", "store north", "store south")
    assert window.level_N == tuple(names)
    for row, (level, item) in enumerate(zip(names, window.item_ids, strict=True)):
        part = found[(found.level == level) & (found.sku == item.removeprefix("store "))]
        np.testing.assert_allclose(made_NHQ[row], part[["0.1", "0.5", "0.9"]], rtol=1e-6)


class Means:
    """Repeats the mean of what it is shown."""

    name, needs_fit = "means", True

    def __init__(self) -> None:
        self.fitted = 0

    def fit(self, window: Window) -> None:
        self.fitted = len(window)

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        # One model a level, fitted on that level alone.
        assert self.fitted == len(window)
        mean_N = np.nanmean(window.target_NT, axis=1)
        return np.tile(mean_N[:, None, None], (1, window.horizon, len(levels)))


def test_a_group_is_what_its_items_sold_before_the_cutoff(table) -> None:
    panel, hierarchy = panel_with_groups(table, SETTINGS, ["store"])
    model = ByLevel(Means, hierarchy)
    frame = pd.read_csv(table, parse_dates=["day"])
    # At the first cutoff the late item, and with it the southern store, is not there.
    for steps, items in ((24, ["a", "b"]), (8, ["a", "b", "c"])):
        window = panel.window(steps, HORIZON)
        model.fit(window)
        made_N = model.predict(window, LEVELS)[:, 0, 0]
        seen = frame[frame.day <= frame.day.max() - pd.Timedelta(days=steps)]
        by_item = seen.groupby("sku").sold.mean()
        by_day = seen.groupby(["store", "day"]).sold.sum().groupby("store").mean()
        groups = by_day[sorted({STORE[item] for item in items})]
        np.testing.assert_allclose(made_N, [*by_item[items], *groups])


def test_a_comparison_scores_each_level(table) -> None:
    panel, hierarchy = panel_with_groups(table, SETTINGS, ["total", "store"])
    settings = BacktestSettings(Rolling(HORIZON), ("seasonal_naive", "coherent:seasonal_naive"))
    make = partial(make_by_level, hierarchy=hierarchy)
    results = backtest(panel, settings, make=make)
    found = {row["model"]: row["strata"]["level"] for row in rows(results)}
    assert list(found) == ["seasonal_naive", "coherent:seasonal_naive"]
    for of_level in found.values():
        assert {name: scores["series"] for name, scores in of_level.items()} == {
            "sku": 3, "total": 1, "store": 2,
        }  # fmt: skip
    shown = level_table(rows(results))
    assert shown is not None and shown.row_count == 6
    assert (
        found["seasonal_naive"]["total"]["wql"] != found["coherent:seasonal_naive"]["total"]["wql"]
    )


def test_a_group_called_as_an_item_is_refused(table) -> None:
    frame = pd.read_csv(table)
    frame.replace({"sku": {"a": "store north"}}).to_csv(table, index=False)
    with pytest.raises(InvalidInputError, match="'store north' would be an item and a group"):
        panel_with_groups(table, SETTINGS, ["store"])


def test_other_weights_are_those_of_the_coherent_model_too() -> None:
    named = with_weights(("coherent:freshet", "freshet+naive"), Path("w"))
    assert named == ("coherent:freshet:w", "freshet:w+naive")
