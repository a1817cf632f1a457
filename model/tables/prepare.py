"""Well-known sales data sets as tidy long tables.

Each preset takes the folder with the raw files, as published or as parquet copies, and returns a
pandas frame. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freshet.stream.errors import InvalidInputError
from freshet.stream.source.replay.presets import RETAIL_PRODUCT

if TYPE_CHECKING:
    import pandas as pd

MIN_ORDER_LINES = 100
# Stores of one state have the same school holidays: pairs that agree on nearly all common days are
# taken as one state.
_SAME_STATE = 0.995


def prepare(preset: str, folder: Path, output: Path) -> int:
    """Write the table of a preset as parquet (or CSV, by the suffix) and return its number of rows.

    Raises:
        InvalidInputError: the preset is unknown, or the folder lacks its files.
    """
    if preset not in PRESETS:
        raise InvalidInputError(
            f"there is no data set {preset!r}", hint=f"choose {', '.join(PRESETS)}"
        )
    table = PRESETS[preset](folder)
    if output.suffix.lower() == ".csv":
        table.to_csv(output, index=False)
    else:
        table.to_parquet(output, index=False)
    return len(table)


def rossmann_daily(folder: Path) -> pd.DataFrame:
    """Sales of 1,115 shops a day, 2013-01-01 to 2015-07-31; 180 shops lack the second half of 2014.

    Where a copy has no values on days without sales, the shop counts as closed with 0 customers,
    promotions are those of the date, and holidays those of the open shops of its state (see
    `_filled_holidays`). The one day that the original lacks for shop 988 is a missing value.
    """
    import pandas as pd

    days = _rossmann_days(folder)
    missing = pd.MultiIndex.from_product(
        [days.id.unique(), [days.timestamp.min()]], names=["id", "timestamp"]
    )
    days = pd.concat(
        [
            days,
            missing.difference(pd.MultiIndex.from_frame(days[["id", "timestamp"]])).to_frame(False),
        ]
    )
    days["DayOfWeek"] = days.timestamp.dt.dayofweek + 1
    days = days.sort_values(["id", "timestamp"], ignore_index=True)
    return days.merge(_rossmann_shops(folder), on="id", how="left").assign(
        id=lambda table: table.id.astype(str)
    )


def rossmann_weekly(folder: Path) -> pd.DataFrame:
    """Sales of 1,115 shops a week, weeks named by their Sunday, 2013-01-13 to 2015-07-26.

    Sums of the days, a missing day counting as 0; Open, Promo, StateHoliday and SchoolHoliday are
    numbers of days.
    """
    import pandas as pd

    days = _rossmann_days(folder)
    days["StateHoliday"] = (days.StateHoliday.fillna("0") != "0").astype(float)
    days["timestamp"] = days.timestamp + pd.to_timedelta(6 - days.timestamp.dt.dayofweek, unit="D")
    weeks = pd.date_range(days.timestamp.min(), days.timestamp.max(), freq="7D")[1:-1]
    every = pd.MultiIndex.from_product([days.id.unique(), weeks], names=["id", "timestamp"])
    table = days.groupby(["id", "timestamp"]).sum().reindex(every, fill_value=0.0).reset_index()
    return table.merge(_rossmann_shops(folder), on="id", how="left").assign(
        id=lambda frame: frame.id.astype(str)
    )


def car_parts(folder: Path) -> pd.DataFrame:
    """Monthly demand of 2,674 car parts over 51 months.

    Most are rarely sold; some months are missing values.
    """
    import pandas as pd

    wide = _read(folder, "carparts", "carparts_monthly")
    long = wide.melt(id_vars="month", var_name="id", value_name="target")
    long["timestamp"] = pd.to_datetime(long.month, format="%Y-%m")
    return long[["id", "timestamp", "target"]].sort_values(["id", "timestamp"], ignore_index=True)


def online_retail_daily(folder: Path) -> pd.DataFrame:
    """Units of a gift wholesaler's articles a day, 2009-12-01 to 2011-12-09.

    A day without a sale is 0.
    """
    import pandas as pd

    lines = _retail_lines(folder)
    lines["timestamp"] = lines.ts.dt.normalize()
    return _retail_table(
        lines, pd.date_range(lines.timestamp.min(), lines.timestamp.max(), freq="D")
    )


def online_retail_hourly(folder: Path) -> pd.DataFrame:
    """The same a trading hour.

    Rows only for hours in which the shop sold anything, so that nights stay missing.
    """
    lines = _retail_lines(folder)
    lines["timestamp"] = lines.ts.dt.floor("h")
    return _retail_table(lines, lines.timestamp.drop_duplicates().sort_values())


PRESETS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "rossmann_1D": rossmann_daily,
    "rossmann_1W": rossmann_weekly,
    "car_parts": car_parts,
    "online_retail_daily": online_retail_daily,
    "online_retail_hourly": online_retail_hourly,
}


def _read(folder: Path, group: str, name: str) -> pd.DataFrame:
    """A raw file of the folder, or of the sub-folder that has the data set's name."""
    import pandas as pd

    for place in (folder / group, folder):
        if (place / f"{name}.parquet").exists():
            return pd.read_parquet(place / f"{name}.parquet")
        if (place / f"{name}.csv").exists():
            return pd.read_csv(place / f"{name}.csv", low_memory=False)
    raise InvalidInputError(
        f"neither {folder / group} nor {folder} has {name}.parquet or {name}.csv",
        hint="say where your copy is with --from DIR or FRESHET_DATA",
    )


# Rossmann -----------------------------------------------------------------------------------------


def _rossmann_days(folder: Path) -> pd.DataFrame:
    """id, timestamp, target and the day's covariates, gaps of the covariates filled."""
    import pandas as pd

    raw = _read(folder, "rossmann", "train")
    days = pd.DataFrame(
        {"id": raw.Store, "timestamp": pd.to_datetime(raw.Date), "target": raw.Sales.astype(float)}
    )
    days["Open"] = raw.Open.astype("Float64").fillna(0).astype(float)
    promo = raw.Promo.astype("Float64")
    days["Promo"] = (promo.fillna(raw.promo_by_date) if "promo_by_date" in raw else promo).astype(
        float
    )
    days["StateHoliday"] = raw.StateHoliday.astype("string")
    days["SchoolHoliday"] = raw.SchoolHoliday.astype("Float64").astype(float)
    days["Customers"] = raw.Customers.astype("Float64").fillna(0).astype(float)
    return _filled_holidays(days)


def _rossmann_shops(folder: Path) -> pd.DataFrame:
    return _read(folder, "rossmann", "store").rename(columns={"Store": "id"})


def _filled_holidays(days: pd.DataFrame) -> pd.DataFrame:
    """Missing holidays by the vote of open shops on that date: of the same state, else of all.

    The data do not name the states, so shops count as one state when their school holidays agree.
    What is left, dates on which no shop was open, stays missing.
    """
    school = days.pivot(index="id", columns="timestamp", values="SchoolHoliday")
    sign_SD = np.nan_to_num(school.to_numpy() * 2 - 1)
    common_SS = np.abs(sign_SD) @ np.abs(sign_SD).T
    state_SS = ((sign_SD @ sign_SD.T) / np.maximum(common_SS, 1) > 2 * _SAME_STATE - 1).astype(
        float
    )
    rows = school.index.get_indexer(days.id), school.columns.get_indexer(days.timestamp)
    letters = sorted(days.StateHoliday.dropna().unique())
    ballots = {"SchoolHoliday": [0.0, 1.0], "StateHoliday": letters}
    for name, values in ballots.items():
        cast = days.pivot(index="id", columns="timestamp", values=name)
        votes_VSD = np.array(
            [(cast == value).to_numpy(bool, na_value=False) for value in values], float
        )
        near_VSD, all_V1D = state_SS @ votes_VSD, votes_VSD.sum(1, keepdims=True)
        votes_VSD = np.where(near_VSD.sum(0) > 0, near_VSD, all_V1D)
        winner = np.array(values, object)[votes_VSD.argmax(0)][rows]
        winner[(votes_VSD.sum(0) == 0)[rows]] = None
        filled = days[name].astype(object).where(days[name].notna(), winner)
        days[name] = filled.astype(float if name == "SchoolHoliday" else object)
    return days


# Online Retail ------------------------------------------------------------------------------------


def _retail_lines(folder: Path) -> pd.DataFrame:
    """Order lines that are demand.

    Goods only, sold at a price, each line once, of articles with enough of them.

    Left out: the second copy of the days that both sheets hold; cancellations, returns and stock
    corrections; postage, fees, vouchers and manual lines; articles with fewer than 100 order lines.
    TextColumn that differ in case only are one.
    """
    raw = _read(folder, "online_retail", "online_retail_II")
    goods = raw.sku.astype(str).str.match(RETAIL_PRODUCT)
    demand = (
        (raw.quantity > 0) & (raw.unit_price > 0) & ~raw.invoice.astype(str).str.startswith("C")
    )
    lines = raw[goods & demand & ~raw.in_overlap].copy()
    lines["id"] = lines.sku.astype(str).str.upper()
    return lines[lines.groupby("id").id.transform("size") >= MIN_ORDER_LINES]


def _retail_table(lines: pd.DataFrame, steps: pd.Index | pd.Series) -> pd.DataFrame:
    """Units, last seen price and commonest description of each article and step.

    From an article's first sale on.

    The price of a step is that of its units on average; it is carried on until the next sale.
    """
    import pandas as pd

    lines = lines.assign(revenue=lines.quantity * lines.unit_price)
    sums = lines.groupby(["id", "timestamp"])[["quantity", "revenue"]].sum()
    units = sums.quantity.unstack("timestamp").reindex(columns=steps)
    price = (sums.revenue / sums.quantity).unstack("timestamp").reindex(columns=steps).ffill(axis=1)
    texts = lines.description.astype(object).str.strip()
    titles = texts.groupby(lines.id).agg(
        lambda texts: texts.mode().iat[0] if texts.notna().any() else None
    )
    begun = price.notna().to_numpy().ravel()
    rows = np.flatnonzero(begun)
    codes = rows // len(steps)
    return pd.DataFrame(
        {
            "id": pd.Categorical.from_codes(codes, units.index.astype(str)),
            "timestamp": np.asarray(steps)[rows % len(steps)],
            "target": np.nan_to_num(units.to_numpy(float).ravel()[rows]),
            "unit_price": price.to_numpy(float).ravel()[rows].round(4),
            "description": pd.Categorical(titles.to_numpy(object)).take(codes),
        }
    )
