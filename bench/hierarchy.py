"""What levels that add up cost or gain in accuracy, against each level's own forecast.

Several cutoffs of four tables; at each, every level's series are forecast apart ("own"). Then all
is brought to add up: as `predict(levels=)` does it ("coherent"), by items alone with the dependence
of past errors or without any, and by methods of hierarchicalforecast where that is installed, which
get means, spreads and the same past errors. Constants of `model/quantiles/reconcile.py` were chosen
on pasta, dunnhumby and the first third of Rossmann's stores; the second third was not looked at.
Run: python -m bench.hierarchy [--from DIR] [--tables pasta_daily,...]

Dimensions: N items, G groups, X = G + N series, groups first; E past errors, H steps, Q levels.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_array

from bench.report import write_result
from freshet.model.backtest.compare import LEVELS
from freshet.model.forecaster import BatchForecaster
from freshet.model.levels import at_levels
from freshet.model.predict.coherent import CUTOFFS, levels_of
from freshet.model.predict.out import mean_weights
from freshet.model.predict.windows import forecast_window
from freshet.model.quantiles import metrics, reconcile
from freshet.model.tables.hierarchy import groupings_of, members_of, summed
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.arrays import Floats, Ints

LIBRARY = [("mint_shrink", "normality"), ("mint_shrink", "bootstrap"), ("wls_var", "bootstrap")]


class Table(NamedTuple):
    """A table, its levels, and how it is forecast."""

    frame: pd.DataFrame
    columns: Columns
    frequency: str
    levels: tuple[str, ...]
    horizon: int
    cutoffs: int


class Cutoff(NamedTuple):
    """Each series' own forecast, what came, its seasonal error, and past errors' places."""

    own_XHQ: Floats
    came_XH: Floats
    error_X: Floats


# Tables ------------------------------------------------------------------------------------------


def pasta(folder: Path, known: tuple[str, ...] = ()) -> Table:
    frame = pd.read_parquet(folder / "hierarchical_sales/daily.parquet")
    columns = Columns("item_id", "timestamp", "target", known)
    return Table(frame, columns, "D", ("total", "brand"), 28, 10)


def pasta_weekly(folder: Path) -> Table:
    frame = pd.read_parquet(folder / "hierarchical_sales/daily.parquet")
    by_item = frame.assign(timestamp=pd.to_datetime(frame.timestamp)).set_index("timestamp")
    sold = by_item.groupby(["item_id", "brand"]).target
    weeks = sold.resample("W-MON", label="left", closed="left").sum()
    frame = weeks.reset_index()
    columns = Columns("item_id", "timestamp", "target")
    return Table(frame, columns, "W-MON", ("total", "brand"), 8, 10)


def dunnhumby(folder: Path) -> Table:
    """Categories of a year of weeks, of which at least one a week was sold."""
    raw = folder / "dunnhumby_complete_journey_sample"
    sold = pd.read_parquet(raw / "transactions_sample.parquet")
    products = pd.read_parquet(raw / "products.parquet")
    sold = sold.merge(products, on="product_id")
    sold = sold.query("quantity <= 50 and week <= 52 and department != 'FUEL'")
    sold = sold[sold.product_category.notna()]
    sold["item_id"] = sold.department + "|" + sold.product_category
    weeks = sold.pivot_table(index="item_id", columns="week", values="quantity", aggfunc="sum")
    weeks = weeks[weeks.sum(1) >= 52].fillna(0.0)
    frame = weeks.stack().rename("target").reset_index()
    days = pd.to_timedelta((frame.week - 1) * 7, unit="D")
    frame["timestamp"] = pd.Timestamp("2017-01-02") + days
    frame["department"] = frame.item_id.str.split("|").str[0]
    columns = Columns("item_id", "timestamp", "target")
    return Table(frame, columns, "W-MON", ("total", "department"), 4, 6)


def rossmann(folder: Path, third: int) -> Table:
    stores = pd.read_parquet(folder / "rossmann/store.parquet")
    frame = pd.read_parquet(folder / "rossmann/train.parquet")
    frame = frame[frame.Store % 3 == third]
    frame = frame.merge(stores[["Store", "StoreType", "Assortment"]], on="Store")
    frame["Date"] = pd.to_datetime(frame.Date)
    frame["StateHoliday"] = (frame.StateHoliday.astype(str) != "0").astype(float)
    known = ("Open", "Promo", "SchoolHoliday", "StateHoliday")
    levels = ("total", "StoreType", "StoreType/Assortment")
    return Table(frame, Columns("Store", "Date", "Sales", known), "D", levels, 14, 4)


TABLES: dict[str, Callable[[Path], Table]] = {
    "pasta_daily": pasta,
    "pasta_daily_promotions": lambda folder: pasta(folder, ("promotion",)),
    "pasta_weekly": pasta_weekly,
    "dunnhumby_weekly": dunnhumby,
    "rossmann_first_third": lambda folder: rossmann(folder, 0),
    "rossmann_second_third_unseen": lambda folder: rossmann(folder, 1),
}


# Ways to make forecasts add up -------------------------------------------------------------------

Way = Callable[[Floats, tuple[float, ...], csr_array, list[Cutoff]], Floats]


def own(own_XHQ: Floats, levels: tuple[float, ...], _: csr_array, __: list[Cutoff]) -> Floats:
    return at_levels(own_XHQ, np.array(levels), np.array(LEVELS))


def coherent(*, groups: bool = True, dependence: bool = True) -> Way:
    def way(
        own_XHQ: Floats, levels: tuple[float, ...], members_GN: csr_array, past: list[Cutoff]
    ) -> Floats:
        seen = [reconcile.normal_places(one.came_XH, one.own_XHQ, levels) for one in past]
        places_XE = np.concatenate(seen, 1) if dependence else np.zeros((len(own_XHQ), 0))
        kept = reconcile.GROUPS_VARIANCE
        reconcile.GROUPS_VARIANCE = kept if groups else 1e9
        try:
            found = reconcile.reconcile(own_XHQ, levels, members_GN, places_XE)
        finally:
            reconcile.GROUPS_VARIANCE = kept
        return own(found.quantiles_XHQ, levels, members_GN, past)

    return way


def of_library(method: str, intervals: str) -> Way:
    def way(
        own_XHQ: Floats, levels: tuple[float, ...], members_GN: csr_array, past: list[Cutoff]
    ) -> Floats:
        from hierarchicalforecast.methods import MinTrace

        weight_Q = mean_weights(np.array(levels))
        mean_XH = own_XHQ @ weight_Q
        variance_XH = (own_XHQ - mean_XH[..., None]) ** 2 @ weight_Q
        came_XE = np.concatenate([one.came_XH for one in past], 1)
        said_XE = np.concatenate([one.own_XHQ @ weight_Q for one in past], 1)
        whole_E = np.isfinite(came_XE).all(0)
        summing_XN = np.vstack([members_GN.toarray(), np.eye(members_GN.shape[1])])
        model = MinTrace(method=method)
        model.fit(
            S=summing_XN,
            y_hat=mean_XH,
            y_insample=came_XE[:, whole_E],
            y_hat_insample=said_XE[:, whole_E],
            sigmah=np.sqrt(variance_XH),
            intervals_method=intervals,
            num_samples=512,
            seed=0,
        )
        paths_XHM = np.maximum(model.sample(512), 0.0)
        return np.moveaxis(np.quantile(paths_XHM, LEVELS, axis=2), 0, 2)

    return way


def ways() -> dict[str, Way]:
    found: dict[str, Way] = {
        "own": own,
        "coherent": coherent(),
        "items_alone": coherent(groups=False),
        "items_alone_independent": coherent(groups=False, dependence=False),
    }
    if importlib.util.find_spec("hierarchicalforecast"):
        found |= {f"{method}_{kind}": of_library(method, kind) for method, kind in LIBRARY}
    return found


# Measuring ---------------------------------------------------------------------------------------


def cutoffs(table: Table, forecaster: BatchForecaster) -> tuple[list[Cutoff], csr_array, Ints]:
    """Cutoffs a horizon apart, the newest first; which items make groups; each series' level."""
    settings = TableSettings(table.columns, table.frequency, end="common")
    panel = read_panel(table.frame, settings)
    keys = panel.keys or panel.item_ids
    groupings = groupings_of(table.frame, table.columns.item_id, keys, table.levels)
    found = []
    for place in range(1, table.cutoffs + CUTOFFS + 1):
        steps = place * table.horizon
        if not panel.long_enough(steps + 2 * table.horizon).all():
            break
        window = panel.window(steps, table.horizon)
        parts = levels_of(window, groupings)
        levels = forecaster.quantile_levels
        own_XHQ = np.concatenate([forecast_window(forecaster, part, levels) for part in parts])
        came_NH = panel.actual(steps, table.horizon)
        came = _as_past(window, came_NH)
        of_groups = [summed(came, grouping).target_NT for grouping in groupings]
        came_XH = np.concatenate([*of_groups, came_NH])
        errors = [metrics.seasonal_error(part.target_NT, panel.season_length) for part in parts]
        error_X = np.concatenate(errors).astype(float)
        found.append(Cutoff(own_XHQ, came_XH, error_X))
        print(f"cutoff {place}", flush=True)
    sizes = [*(len(each.groups) for each in groupings), len(panel)]
    return found, members_of(groupings), np.repeat(np.arange(len(sizes)), sizes)


def _as_past(window: Any, came_NH: Floats) -> Any:
    """What came as a window's past, so that it adds up as a past does."""
    from dataclasses import replace

    N, H = came_NH.shape
    return replace(
        window,
        time_ms_NS=window.time_ms_NS[:, -H:],
        target_NT=came_NH,
        known_NSK=window.known_NSK[:, :0],
        past_NTP=window.past_NTP[:, :0],
        length_N=np.full(N, H),
        local_ms_NS=None,
    )


def measured(table: Table, forecaster: BatchForecaster) -> dict[str, Any]:
    """Scores by way and level, and over own forecasts' the geometric mean of all levels."""
    all_cutoffs, members_GN, level_X = cutoffs(table, forecaster)
    judged = all_cutoffs[: len(all_cutoffs) - CUTOFFS]
    names = (*table.levels, "items")
    found: dict[str, Any] = {}
    for name, way in ways().items():
        made = [
            way(one.own_XHQ, forecaster.quantile_levels, members_GN, _past(all_cutoffs, place))
            for place, one in enumerate(judged)
        ]
        found[name] = {
            level: scores(judged, made, level_X == place) for place, level in enumerate(names)
        }
    for by_level in found.values():
        for metric in ("wql", "sql"):
            ratios = [by_level[name][metric] / found["own"][name][metric] for name in names]
            by_level[f"{metric}_over_own"] = round(float(np.exp(np.mean(np.log(ratios)))), 4)
    return {"items": members_GN.shape[1], "cutoffs": len(judged), "ways": found}


def _past(all_cutoffs: Sequence[Cutoff], place: int) -> list[Cutoff]:
    """The cutoffs before one, as many as a forecast looks at."""
    return list(all_cutoffs[place + 1 : place + 1 + CUTOFFS])


def scores(judged: list[Cutoff], made: list[Floats], rows_X: Floats) -> dict[str, float]:
    """Of some series, over all cutoffs."""
    came_BH = np.concatenate([one.came_XH[rows_X] for one in judged])
    quantiles_BHQ = np.concatenate([one[rows_X] for one in made])
    error_B = np.concatenate([one.error_X[rows_X] for one in judged])
    levels_Q = np.array(LEVELS)
    found = {
        "wql": metrics.wql(came_BH, quantiles_BHQ, levels_Q),
        "sql": metrics.sql(came_BH, quantiles_BHQ, levels_Q, error_B),
        "coverage_80": metrics.coverage(came_BH, quantiles_BHQ[..., 0], quantiles_BHQ[..., -1]),
    }
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measure, print and write bench/results/hierarchy.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="folder", default=os.environ.get("FRESHET_DATA"), type=Path)
    parser.add_argument("--tables", default=",".join(TABLES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    forecaster = BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    found: dict[str, Any] = {"what": __doc__, "weights_sha256": forecaster.sha256}
    for name in arguments.tables.split(","):
        found[name] = measured(TABLES[name](arguments.folder), forecaster)
        for way, by_level in found[name]["ways"].items():
            print(name, way, by_level, flush=True)
        _write(found)


def _write(found: dict[str, Any]) -> None:
    packages = ["numpy", "torch"]
    if importlib.util.find_spec("hierarchicalforecast"):
        packages.append("hierarchicalforecast")
    print(write_result("hierarchy", found, packages))


if __name__ == "__main__":
    main()
