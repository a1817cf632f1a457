"""The presets on raw files small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.prepare import MIN_ORDER_LINES, PRESETS, prepare
from freshet.stream.errors import InvalidInputError


def rossmann_files(folder: Path) -> Path:
    """Four shops over 16 days from a Tuesday: 1 and 2 in one state, 3 and 4 in another.

    All are closed on Sundays but shop 1; on 2013-01-10 only shop 1 of its state is open, on a
    holiday of that state. Closed days have no covariates, as in copies that were joined from sales;
    shop 4 lacks the first day.
    """
    days = pd.date_range("2013-01-01", periods=16, freq="D")
    table = pd.DataFrame({"Store": np.repeat([1, 2, 3, 4], 16), "Date": np.tile(days, 4)})
    holiday = (table.Store <= 2) & (table.Date == "2013-01-10")
    closed = ((table.Date.dt.dayofweek == 6) | holiday) & (table.Store != 1)
    # School holidays differ between the states on even days.
    school = np.where(table.Store <= 2, table.Date.dt.day % 2 == 0, table.Date.dt.day > 12).astype(
        float
    )
    table["Sales"] = np.where(closed, 0, 100 + table.Store)
    table["Customers"] = pd.array(np.where(closed, 0, 10), "Int16")
    table["Open"] = pd.array(np.ones(64), "Int16")
    table["Promo"] = pd.array(table.Date.dt.day % 3 == 0, "Int16")
    table["StateHoliday"] = pd.array(np.where(holiday, "a", "0"), "string")
    table["SchoolHoliday"] = pd.array(school, "Int16")
    table.loc[closed, ["Customers", "Open", "Promo", "StateHoliday", "SchoolHoliday"]] = pd.NA
    table["promo_by_date"] = pd.array(table.Date.dt.day % 3 == 0, "Int16")
    shops = pd.DataFrame(
        {
            "Store": [1, 2, 3, 4],
            "StoreType": list("abca"),
            "CompetitionDistance": [1.0, 2.0, None, 4.0],
        }
    )
    (folder / "rossmann").mkdir()
    table.drop(index=48).to_parquet(folder / "rossmann" / "train.parquet")
    shops.to_parquet(folder / "rossmann" / "store.parquet")
    return folder


def test_daily_rossmann_fills_closed_days_from_the_date_and_from_shops_of_the_state(
    tmp_path: Path,
) -> None:
    table = PRESETS["rossmann_1D"](rossmann_files(tmp_path)).set_index(["id", "timestamp"])
    assert len(table) == 64
    first = table.loc[("4", "2013-01-01")]
    assert np.isnan(first.target) and first.StoreType == "a"
    sunday, holiday = table.loc[("2", "2013-01-06")], table.loc[("2", "2013-01-10")]
    assert (sunday.Open, sunday.Promo, sunday.Customers, sunday.DayOfWeek) == (0.0, 1.0, 0.0, 7)
    assert (sunday.SchoolHoliday, holiday.SchoolHoliday) == (1.0, 1.0)
    assert holiday.StateHoliday == "a"
    assert table.loc[("3", "2013-01-10")].StateHoliday == "0"
    assert table.loc[("1", "2013-01-06")].Open == 1.0


def test_weekly_rossmann_sums_whole_weeks_only(tmp_path: Path) -> None:
    table = PRESETS["rossmann_1W"](rossmann_files(tmp_path))
    # Tuesday the 1st to Wednesday the 16th: the only whole week ends on Sunday the 13th.
    assert table.timestamp.astype(str).unique().tolist() == ["2013-01-13"]
    shop = table.set_index("id").loc["2"]
    assert (shop.target, shop.Open, shop.Customers) == (5 * 102, 5.0, 50.0)
    assert (shop.Promo, shop.StateHoliday, shop.SchoolHoliday) == (2.0, 1.0, 3.0)


def test_car_parts_keep_their_missing_months(tmp_path: Path) -> None:
    wide = pd.DataFrame(
        {"month": ["1998-01", "1998-02"], "part_2": [1.0, None], "part_1": [0.0, 3.0]}
    )
    wide.to_csv(tmp_path / "carparts_monthly.csv", index=False)
    table = PRESETS["car_parts"](tmp_path)
    assert table.id.tolist() == ["part_1", "part_1", "part_2", "part_2"]
    assert table.timestamp.astype(str).tolist() == ["1998-01-01", "1998-02-01"] * 2
    np.testing.assert_equal(table.target.to_numpy(), [0.0, 3.0, 1.0, np.nan])


def retail_files(folder: Path) -> Path:
    """An article sold from day 2 on, a line an hour; one too rare; lines that are no demand."""
    hours = pd.date_range("2010-01-05 10:30", periods=MIN_ORDER_LINES, freq="h")
    usual = {
        "invoice": "5001",
        "sku": "12345a",
        "description": " BOX ",
        "quantity": 2,
        "unit_price": 1.5,
    }
    lines = pd.DataFrame({"ts": hours, **usual, "in_overlap": False})
    other = {"ts": pd.Timestamp("2010-01-04 09:10"), **usual, "in_overlap": False}
    odd = [
        {**other, "sku": "99999"},
        {**other, "in_overlap": True},
        {**other, "invoice": "C5001", "quantity": -2},
        {**other, "sku": "POST"},
        {**other, "unit_price": 0.0},
        {
            **other,
            "ts": hours[0],
            "sku": "12345A",
            "description": None,
            "quantity": 4,
            "unit_price": 3.0,
        },
    ]
    pd.concat([lines, pd.DataFrame(odd)]).to_parquet(folder / "online_retail_II.parquet")
    return folder


def test_online_retail_counts_demand_only_from_the_first_sale_on(tmp_path: Path) -> None:
    table = PRESETS["online_retail_daily"](retail_files(tmp_path))
    assert table.id.unique().tolist() == ["12345A"]
    assert table.description.unique().tolist() == ["BOX"]
    assert str(table.timestamp.min().date()) == "2010-01-05"
    # 14 hours of the first day sell 2 each, and 4 more at twice the price.
    assert table.target.iloc[0] == 14 * 2 + 4
    assert table.unit_price.iloc[0] == pytest.approx((28 * 1.5 + 4 * 3.0) / 32, abs=1e-4)
    assert table.target.sum() == 2 * MIN_ORDER_LINES + 4


def test_hourly_online_retail_has_rows_for_trading_hours_only(tmp_path: Path) -> None:
    table = PRESETS["online_retail_hourly"](retail_files(tmp_path))
    assert len(table) == MIN_ORDER_LINES
    assert (table.timestamp.dt.minute == 0).all()
    assert table.target.iloc[0] == 6


def test_tables_are_written_and_what_is_missing_is_named(tmp_path: Path) -> None:
    rossmann_files(tmp_path)
    assert prepare("rossmann_1D", tmp_path, tmp_path / "table.csv") == 64
    assert len(pd.read_csv(tmp_path / "table.csv")) == 64
    with pytest.raises(
        InvalidInputError, match="no data set 'm5'; choose rossmann_1D, rossmann_1W"
    ):
        prepare("m5", tmp_path, tmp_path / "x.parquet")
    with pytest.raises(
        InvalidInputError, match=r"carparts_monthly.parquet or carparts_monthly.csv; say where"
    ):
        prepare("car_parts", tmp_path, tmp_path / "x.parquet")
