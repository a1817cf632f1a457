"""Well-known sales data sets as tidy long tables.

Each preset takes the folder with the raw files, as published or as parquet copies, and returns a
pandas frame. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.source.replay.presets import RETAIL_PRODUCT

if TYPE_CHECKING:
    import pandas as pd

MIN_ORDER_LINES = 100
DAYS_A_WEEK = 7
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
    as_text = output.suffix.lower() == ".csv"
    if as_text:
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
    # The first day of every shop, so that all begin at once: absent ones become missing values.
    first_day = days.timestamp.min()
    first_days = pd.MultiIndex.from_product(
        [days.id.unique(), [first_day]], names=["id", "timestamp"]
    )
    given = pd.MultiIndex.from_frame(days[["id", "timestamp"]])
    missing = first_days.difference(given).to_frame(index=False)
    days = pd.concat([days, missing])
    days["DayOfWeek"] = days.timestamp.dt.dayofweek + 1
    days = days.sort_values(["id", "timestamp"], ignore_index=True)
    return _with_shops(days, folder)


def rossmann_weekly(folder: Path) -> pd.DataFrame:
    """Sales of 1,115 shops a week, weeks named by their Sunday, 2013-01-13 to 2015-07-26.

    Sums of the days, a missing day counting as 0; Open, Promo, StateHoliday and SchoolHoliday are
    numbers of days.
    """
    import pandas as pd

    days = _rossmann_days(folder)
    holiday = days.StateHoliday.fillna("0") != "0"
    days["StateHoliday"] = holiday.astype(float)
    until_sunday = 6 - days.timestamp.dt.dayofweek
    days["timestamp"] = days.timestamp + pd.to_timedelta(until_sunday, unit="D")
    # The data begin and end within a week: those two are not whole.
    weeks = pd.date_range(days.timestamp.min(), days.timestamp.max(), freq="7D")
    whole_weeks = weeks[1:-1]
    every = pd.MultiIndex.from_product([days.id.unique(), whole_weeks], names=["id", "timestamp"])
    sums = days.groupby(["id", "timestamp"]).sum()
    table = sums.reindex(every, fill_value=0.0).reset_index()
    return _with_shops(table, folder)


def car_parts(folder: Path) -> pd.DataFrame:
    """Monthly demand of 2,674 car parts over 51 months.

    Most are rarely sold; some months are missing values.
    """
    import pandas as pd

    wide = _read(folder, "carparts", "carparts_monthly")
    long = wide.melt(id_vars="month", var_name="id", value_name="target")
    long["timestamp"] = pd.to_datetime(long.month, format="%Y-%m")
    table = long[["id", "timestamp", "target"]]
    return table.sort_values(["id", "timestamp"], ignore_index=True)


def online_retail_daily(folder: Path) -> pd.DataFrame:
    """Units of a gift wholesaler's articles a day, 2009-12-01 to 2011-12-09.

    A day without a sale is 0.
    """
    import pandas as pd

    lines = _retail_lines(folder)
    lines["timestamp"] = lines.ts.dt.normalize()
    days = pd.date_range(lines.timestamp.min(), lines.timestamp.max(), freq="D")
    return _retail_table(lines, days)


def online_retail_hourly(folder: Path) -> pd.DataFrame:
    """The same a trading hour.

    Rows only for hours in which the shop sold anything, so that nights stay missing.
    """
    lines = _retail_lines(folder)
    lines["timestamp"] = lines.ts.dt.floor("h")
    hours = lines.timestamp.drop_duplicates()
    return _retail_table(lines, hours.sort_values())


def hierarchical_sales_daily(folder: Path) -> pd.DataFrame:
    """Units of 118 pasta products of four brands a day, 2014 to 2018; shut days are missing."""
    raw = _read(folder, "hierarchical_sales", "daily").rename(columns={"item_id": "id"})
    return raw[["id", "timestamp", "target", "promotion", "brand"]]


def hierarchical_sales_weekly(folder: Path) -> pd.DataFrame:
    """The same a week that ends on a Sunday: units, days of promotion; whole weeks alone."""
    import pandas as pd

    days = hierarchical_sales_daily(folder)
    days["timestamp"] = days.timestamp.dt.to_period("W-SUN").dt.end_time.dt.normalize()
    size = days.groupby(["id", "timestamp"]).size()
    weeks = days.groupby(["id", "timestamp", "brand"], as_index=False).agg(
        target=("target", lambda units: units.sum(min_count=1)), promotion=("promotion", "sum")
    )
    whole = size[size == DAYS_A_WEEK].index
    return weeks[pd.MultiIndex.from_frame(weeks[["id", "timestamp"]]).isin(whole)].reset_index(
        drop=True
    )


PRESETS: dict[str, Callable[[Path], pd.DataFrame]] = {
    "rossmann_1D": rossmann_daily,
    "rossmann_1W": rossmann_weekly,
    "car_parts": car_parts,
    "online_retail_daily": online_retail_daily,
    "online_retail_hourly": online_retail_hourly,
    "hierarchical_sales_1D": hierarchical_sales_daily,
    "hierarchical_sales_1W": hierarchical_sales_weekly,
}


def _read(folder: Path, group: str, name: str) -> pd.DataFrame:
    """A raw file of the folder, or of the sub-folder that has the data set's name."""
    import pandas as pd

    for place in (folder / group, folder):
        parquet = place / f"{name}.parquet"
        if parquet.exists():
            return pd.read_parquet(parquet)
        csv = place / f"{name}.csv"
        if csv.exists():
            return pd.read_csv(csv, low_memory=False)
    raise InvalidInputError(
        f"neither {folder / group} nor {folder} has {name}.parquet or {name}.csv",
        hint="say where your copy is with --from DIR or FRESHET_DATA",
    )


# Rossmann -----------------------------------------------------------------------------------------


def _rossmann_days(folder: Path) -> pd.DataFrame:
    """id, timestamp, target and the day's covariates, gaps of the covariates filled."""
    import pandas as pd

    raw = _read(folder, "rossmann", "train")
    promo = raw.Promo.astype("Float64")
    if "promo_by_date" in raw:
        promo = promo.fillna(raw.promo_by_date)
    days = pd.DataFrame(
        {
            "id": raw.Store,
            "timestamp": pd.to_datetime(raw.Date),
            "target": raw.Sales.astype(float),
            # Where a copy has no values the shop sold nothing: closed, without customers.
            "Open": raw.Open.astype("Float64").fillna(0).astype(float),
            "Promo": promo.astype(float),
            "StateHoliday": raw.StateHoliday.astype("string"),
            "SchoolHoliday": raw.SchoolHoliday.astype("Float64").astype(float),
            "Customers": raw.Customers.astype("Float64").fillna(0).astype(float),
        }
    )
    return _filled_holidays(days)


def _with_shops(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """The table with each shop's own columns beside every row; ids become text."""
    shops = _read(folder, "rossmann", "store").rename(columns={"Store": "id"})
    table = table.merge(shops, on="id", how="left")
    return table.assign(id=table.id.astype(str))


def _filled_holidays(days: pd.DataFrame) -> pd.DataFrame:
    """Missing holidays by the vote of open shops on that date: of the same state, else of all.

    The data do not name the states, so shops count as one state when their school holidays agree.
    What is left, dates on which no shop was open, stays missing.
    """
    school = days.pivot(index="id", columns="timestamp", values="SchoolHoliday")
    shop = school.index.get_indexer(days.id)
    day = school.columns.get_indexer(days.timestamp)
    state_SS = _same_state(school.to_numpy())

    letters = sorted(days.StateHoliday.dropna().unique())
    ballots = {"SchoolHoliday": [0.0, 1.0], "StateHoliday": letters}
    for name, values in ballots.items():
        cast = days.pivot(index="id", columns="timestamp", values=name)
        votes = [(cast == value).to_numpy(bool, na_value=False) for value in values]
        own_VSD = np.array(votes, float)
        near_VSD = state_SS @ own_VSD
        all_V1D = own_VSD.sum(1, keepdims=True)
        any_near_SD = near_VSD.sum(0) > 0
        votes_VSD = np.where(any_near_SD, near_VSD, all_V1D)

        winner_SD = np.array(values, object)[votes_VSD.argmax(0)]
        nobody_SD = votes_VSD.sum(0) == 0
        winner = winner_SD[shop, day]
        winner[nobody_SD[shop, day]] = None
        given = days[name].notna()
        filled = days[name].astype(object).where(given, winner)
        days[name] = filled.astype(float if name == "SchoolHoliday" else object)
    return days


def _same_state(school_SD: Floats) -> Floats:
    """1 for two shops whose school holidays agree, 0 for others: [S, S]."""
    # As +1, -1 and, where unknown, 0 the products of two shops' days sum up to how many agree less
    # how many do not.
    sign_SD = np.nan_to_num(school_SD * 2 - 1)
    known_SD = np.abs(sign_SD)
    common_SS = known_SD @ known_SD.T
    balance_SS = (sign_SD @ sign_SD.T) / np.maximum(common_SS, 1)
    same_SS = balance_SS > 2 * _SAME_STATE - 1
    return np.asarray(same_SS, np.float64)


# Online Retail ------------------------------------------------------------------------------------


def _retail_lines(folder: Path) -> pd.DataFrame:
    """Order lines that are demand.

    Goods only, sold at a price, each line once, of articles with enough of them. Articles that
    differ in case only are one.

    Left out: the second copy of the days that both sheets hold; cancellations, returns and stock
    corrections; postage, fees, vouchers and manual lines; articles with fewer than 100 order lines.
    """
    raw = _read(folder, "online_retail", "online_retail_II")
    goods = raw.sku.astype(str).str.match(RETAIL_PRODUCT)
    sold = (raw.quantity > 0) & (raw.unit_price > 0)
    cancelled = raw.invoice.astype(str).str.startswith("C")
    demand = sold & ~cancelled
    lines = raw[goods & demand & ~raw.in_overlap].copy()
    lines["id"] = lines.sku.astype(str).str.upper()
    num_lines = lines.groupby("id").id.transform("size")
    return lines[num_lines >= MIN_ORDER_LINES]


def _retail_table(lines: pd.DataFrame, steps: pd.Index | pd.Series) -> pd.DataFrame:
    """Units, last seen price and commonest description of each article and step.

    From an article's first sale on.

    The price of a step is that of its units on average; it is carried on until the next sale.
    """
    import pandas as pd

    lines = lines.assign(revenue=lines.quantity * lines.unit_price)
    sums = lines.groupby(["id", "timestamp"])[["quantity", "revenue"]].sum()
    units = sums.quantity.unstack("timestamp").reindex(columns=steps)
    mean_price = sums.revenue / sums.quantity
    price = mean_price.unstack("timestamp").reindex(columns=steps)
    # Unsold goods still cost what they cost.
    price = price.ffill(axis=1)
    texts = lines.description.astype(object).str.strip()
    titles = texts.groupby(lines.id).agg(_commonest)

    # An article has a price from its first sale on, and rows from there.
    begun = price.notna().to_numpy()
    rows = np.flatnonzero(begun)
    article = rows // len(steps)
    step = rows % len(steps)
    target = units.to_numpy(float).ravel()[rows]
    unit_price = price.to_numpy(float).ravel()[rows]
    return pd.DataFrame(
        {
            "id": pd.Categorical.from_codes(article, units.index.astype(str)),
            "timestamp": np.asarray(steps)[step],
            "target": np.nan_to_num(target),
            "unit_price": unit_price.round(4),
            "description": pd.Categorical(titles.to_numpy(object)).take(article),
        }
    )


def _commonest(texts: pd.Series) -> str | None:
    """The text that occurs most often; None where there is none."""
    if not texts.notna().any():
        return None
    return str(texts.mode().iat[0])
