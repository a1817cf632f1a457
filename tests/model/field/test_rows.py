"""Names, gaps, returns, odd rows and stock-outs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from freshet.model.effects.columns import buyable
from freshet.model.tables.ahead import window_ahead
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from tests.model.field.conftest import weekly_peak

COLUMNS = Columns("item_id", "timestamp", "target")


def flat(level: float, days: int = 90, item: object = "a") -> pd.DataFrame:
    day = pd.date_range("2024-01-01", periods=days)
    return pd.DataFrame({"item_id": item, "timestamp": day, "target": level})


def test_the_number_one_and_the_text_one_are_two_items(forecaster) -> None:
    frame = pd.concat([flat(10.0, item=1), flat(80.0, item="1")])
    found = forecaster.predict(frame, 3)
    assert [type(item) for item in found.item_id] == [int] * 3 + [str] * 3
    np.testing.assert_allclose(found["0.5"], [10.0] * 3 + [80.0] * 3, rtol=0.05)


def test_numbers_that_became_broken_ones_are_the_same_items(forecaster) -> None:
    found = forecaster.predict(flat(10.0, item=7.0), 3)
    assert [str(item) for item in found.item_id] == ["7"] * 3
    assert read_panel(flat(10.0, item=7.0), TableSettings(COLUMNS)).item_ids == ("7",)


def sold_only(seed: int = 0) -> pd.DataFrame:
    """Two items that sell 20 on three days in ten, and rows for those days alone."""
    rng = np.random.default_rng(seed)
    parts = []
    for item in ("a", "b", "c"):
        frame = flat(20.0, 200, item)
        parts.append(frame[rng.random(200) < 0.3])
    return pd.concat(parts)


def test_rows_only_where_something_sold_are_asked_about_and_zero_where_that_is_said(
    forecaster,
) -> None:
    frame = sold_only()
    with pytest.warns(TableWarning, match="no target is 0: these steps count as unknown"):
        kept = forecaster.predict(frame, 7)
    zero = forecaster.predict(frame, 7, missing="zero")
    # 20 units on 30 % of the days are 6 a day.
    assert kept["mean"].mean() > 15.0 and zero["mean"].mean() == pytest.approx(6.0, rel=0.35)
    assert zero.timestamp.min() == frame.timestamp.max() + pd.Timedelta("1D")
    assert zero.groupby("item_id").timestamp.min().nunique() == 1


def test_all_series_end_together_where_that_is_said(forecaster) -> None:
    frame = pd.concat([flat(10.0, 90, "a"), flat(20.0, 80, "b")])
    own = forecaster.predict(frame, 2).groupby("item_id").timestamp.min()
    assert [str(day.date()) for day in own] == ["2024-03-31", "2024-03-21"]
    common = forecaster.predict(frame, 2, end="common").groupby("item_id").timestamp.min()
    assert [str(day.date()) for day in common] == ["2024-03-31"] * 2


def test_order_lines_are_added_up_in_python_as_on_the_command_line(forecaster) -> None:
    lines = pd.concat([flat(10.0), flat(30.0)])
    with pytest.raises(InvalidInputError, match="more than one row"):
        forecaster.predict(lines, 3)
    found = forecaster.predict(lines, 3, aggregate="sum", season_length=14)
    np.testing.assert_allclose(found["0.5"], 40.0, rtol=0.05)


def test_rows_of_one_step_are_refused_with_the_columns_that_tell_them_apart(forecaster) -> None:
    shops = pd.concat([flat(10.0).assign(shop="north"), flat(30.0).assign(shop="south")])
    with pytest.raises(
        InvalidInputError, match=r"of 2024-01-01 00:00:00 \(rows differ in 'shop'\)"
    ):
        forecaster.predict(shops, 3)


def test_a_weekday_that_never_has_a_row_is_told(forecaster) -> None:
    frame = flat(10.0, 90)
    open_days = frame[frame.timestamp.dt.dayofweek < 5]
    with pytest.warns(TableWarning, match="no row has a target on Saturday, Sunday: a forecast"):
        forecaster.predict(open_days, 7, frequency="D")
    rested = frame.assign(target=np.where(frame.timestamp.dt.dayofweek < 5, 10.0, 0.0))
    found = forecaster.predict(rested, 7)
    weekend = found.timestamp.dt.dayofweek >= 5
    assert (found.predictions[weekend] < 1.0).all() and (found.predictions[~weekend] > 9.0).all()


def test_an_hour_that_never_has_a_row_is_told_by_the_clock_of_the_shop() -> None:
    hours = pd.date_range("2024-01-01", periods=24 * 20, freq="h", tz="America/New_York")
    frame = pd.DataFrame({"item_id": "a", "timestamp": hours, "target": 5.0})
    frame = frame[~frame.timestamp.dt.hour.isin([3, 4])]
    with pytest.warns(TableWarning, match="no row has a target at 3:00, 4:00"):
        read_panel(frame, TableSettings(COLUMNS, "h"))


@pytest.mark.parametrize("role", ["past", "known"])
@pytest.mark.parametrize(("name", "sold_out"), [("in_stock", 0.0), ("stockout", 1.0)])
def test_a_stock_out_says_nothing_of_demand_whatever_its_column_is(
    forecaster, role: str, name: str, sold_out: float
) -> None:
    frame = flat(20.0, 100)
    empty = np.random.default_rng(0).random(100) < 0.6
    frame["target"] = np.where(empty, 0.0, 20.0)
    frame[name] = np.where(empty, sold_out, 1.0 - sold_out)
    found = forecaster.predict(frame, 7, **{role: [name]})
    np.testing.assert_allclose(found["0.5"], 20.0, rtol=0.1)


@pytest.mark.parametrize("role", ["past", "known"])
@pytest.mark.parametrize(("name", "sold_out"), [("on_hand", 0.0), ("out_of_stock", 1.0)])
def test_zeros_without_stock_are_missing_and_sales_without_it_are_sales(
    role: str, name: str, sold_out: float
) -> None:
    frame = flat(20.0, 6).assign(target=[5.0, 0.0, 0.0, 4.0, 0.0, 3.0])
    frame[name] = np.where([0, 0, 1, 1, 1, 0], sold_out, 1.0 - sold_out)
    columns = replace(COLUMNS, **{role: (name,)})
    window = window_ahead(read_panel(frame, TableSettings(columns, "D")), 1, columns)
    expected = [5.0, 0.0, np.nan, 4.0, np.nan, 3.0]
    np.testing.assert_array_equal(buyable(window).target_NT[0], expected)


def test_two_weeks_of_returns_do_not_refuse_a_table(forecaster) -> None:
    frame = weekly_peak("2023-01-01", 400)
    frame.loc[[50, 51], "target"] = -3.0
    with pytest.warns(TableWarning, match=r"-3\.0 of item 'a'.* 2 such of 400 clipped to 0"):
        found = forecaster.predict(frame, 7)
    assert found["0.5"].max() == pytest.approx(50.0, rel=0.15)
    with pytest.raises(InvalidInputError, match="is negative"):
        forecaster.predict(frame, 7, strict=True)


def test_a_target_that_is_often_negative_is_no_sale(forecaster) -> None:
    frame = flat(10.0)
    frame.loc[::4, "target"] = -1.0
    with pytest.raises(InvalidInputError, match="sales are at least 0"):
        forecaster.predict(frame, 7)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("timestamp", None, "1 of 90 rows have no time in column 'timestamp': left out"),
        ("timestamp", "total", "'total' in column 'timestamp' is no time: left out"),
        ("item_id", None, "1 of 90 rows have no item in column 'item_id': left out"),
        ("target", "n/a", "'n/a' in column 'target' is no number .row 89.: 1 such of 90"),
        ("target", np.inf, "'target' holds an infinite value: 1 such of 90"),
    ],
)
def test_one_odd_row_is_left_out_and_said(column: str, value: object, said: str) -> None:
    frame = flat(10.0).astype({"timestamp": str} if value == "total" else {column: object})
    frame.loc[89, column] = value
    with pytest.warns(TableWarning, match=said):
        panel = read_panel(frame, TableSettings(COLUMNS, "D"))
    assert np.nansum(panel.target_NL) == 890.0
    with pytest.raises(InvalidInputError):
        read_panel(frame, TableSettings(COLUMNS, "D", strict=True))
