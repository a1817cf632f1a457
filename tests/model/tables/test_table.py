"""Any table people bring: a sane panel, or an error that says what, where and what to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from freshet.model.backtest.compare import LEVELS, BacktestSettings, backtest, make
from freshet.model.tables import cells as cells_module
from freshet.model.tables.ahead import known_ahead, times_ahead, window_ahead
from freshet.model.tables.files import read_table
from freshet.model.tables.panel import Rolling
from freshet.model.tables.table import (
    Columns,
    TableSettings,
    read_panel,
)
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from freshet.stream.files.read import FileStyle
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import long_table

COLUMNS = Columns(
    "sku", "day", "sold", known=("promo", "colour"), past=("visits",), static=("price", "name")
)
DAILY = TableSettings(COLUMNS, "D")
PLAIN = TableSettings(Columns("sku", "day", "sold"), "D")


def changed(**columns: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda table: table.assign(**columns)


def first(column: str, value: object) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """The table with another value in the eighth row of a column."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        table = table.astype({column: object})
        table.loc[7, column] = value
        return table

    return change


def zones(table: pd.DataFrame) -> pd.DataFrame:
    """Midnight in UTC, written with two different offsets."""
    texts = table.day.dt.strftime("%Y-%m-%dT00:00:00+00:00")
    other = (table.day - pd.Timedelta("5h")).dt.strftime("%Y-%m-%dT%H:00:00-05:00")
    return table.assign(day=np.where(np.arange(len(table)) % 2, other, texts))


SANE = {
    "unsorted": lambda table: table.sample(frac=1.0, random_state=3),
    "one zone": lambda table: table.assign(day=table.day.dt.tz_localize("UTC")),
    "several zones": zones,
    "epoch milliseconds": lambda table: table.assign(day=table.day.astype("int64") // 1_000_000),
    "all zeros": changed(sold=0.0),
    "constant": changed(sold=4),
    "huge": changed(sold=1e12),
    "missing covariates": changed(
        promo=np.nan, colour=None, visits=np.nan, price=np.nan, name=None
    ),
    "a gap": lambda table: table[(table.day < "2024-01-20") | (table.day > "2024-01-25")],
    "numbers as text": lambda table: table.assign(
        sold=table.sold.astype(str), sku=table.sku.str[-1].astype(int)
    ),
    "nullable types": lambda table: table.convert_dtypes(),
}
WRONG = {
    "duplicate": (
        lambda table: pd.concat([table, table[3:4]]),
        "'sku0' has more than one row for .*2024-01-04.*--aggr",
    ),
    "negative": (
        first("sold", -1.0),
        "-1.0 of item 'sku0' at 2024-01-08 00:00:00 is negative.*clip",
    ),
    "infinite": (changed(sold=np.inf), "'sold' holds an infinite value"),
    "no target": (changed(sold=np.nan), "no row has a value in the target column 'sold'"),
    "infinite covariate": (changed(promo=np.inf), "'promo' holds an infinite value"),
    "text target": (first("sold", "many"), "'many' in column 'sold' is no number"),
    "no rows": (lambda table: table[:0], "has no rows"),
    "missing column": (
        lambda table: table.drop(columns="promo"),
        "no column 'promo'; it has sku, day, colour, sold",
    ),
    "no time": (first("day", None), "1 of 240 rows have no time in column 'day'"),
    "broken time": (
        lambda table: first("day", "soon")(table.astype({"day": str})),
        "'soon' in column 'day' is no time",
    ),
    "years": (changed(day=2024), r"2024 in column 'day' \(row 0\) is no time in milli"),
    "some with zones": (
        lambda table: first("day", "2024-01-08 00:00+01:00")(table.astype({"day": str})),
        "some times .* have a time zone .*\\+01:00.* and some have none",
    ),
    "no item": (first("sku", None), "1 of 240 rows have no item in column 'sku'"),
    "a covariate of dates": (lambda table: table.assign(promo=table.day), "'promo' holds dates"),
}


@pytest.mark.parametrize("name", SANE)
def test_odd_tables_give_sane_forecasts(name: str) -> None:
    panel = read_panel(SANE[name](long_table()), DAILY)
    results = backtest(
        panel, BacktestSettings(Rolling(14, 2), ("seasonal_naive", "freshet")), make=make
    )
    assert not results.failed
    for row in (row for rows in results.of_model.values() for row in rows):
        found = row.forecast.quantiles_NHQ
        assert found is not None and found.shape == (4, 14, len(LEVELS))
        assert np.isfinite(found).all() and (np.diff(found, axis=-1) >= 0).all()
    network = results.of_model["freshet"][-1].forecast.quantiles_NHQ
    assert network is not None and (network >= 0).all()
    sold = {"all zeros": 0.0, "constant": 4.0, "huge": 1e12}.get(name)
    if sold is not None:
        np.testing.assert_allclose(network[..., 4], sold, rtol=0.05)


def test_a_horizon_longer_than_trained_gives_a_sane_forecast() -> None:
    panel = read_panel(long_table(days=150), DAILY)
    results = backtest(panel, BacktestSettings(Rolling(90, 1), ("freshet",)), make=make)
    (row,) = results.of_model["freshet"]
    assert row.forecast.quantiles_NHQ is not None, row.forecast.trace
    assert row.forecast.quantiles_NHQ.shape == (4, 90, len(LEVELS))
    assert np.isfinite(row.forecast.quantiles_NHQ).all()
    assert row.scores is not None and row.scores.overall["wape"] < 1.0


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_table_is_said(name: str) -> None:
    change, message = WRONG[name]
    with pytest.raises(InvalidInputError, match=message):
        read_panel(change(long_table()), replace(DAILY, strict=True))


@pytest.mark.parametrize(
    "name", ["unsorted", "one zone", "several zones", "epoch milliseconds", "nullable types"]
)
def test_how_a_table_is_written_does_not_change_the_panel(name: str) -> None:
    expected, found = read_panel(long_table(), DAILY), read_panel(SANE[name](long_table()), DAILY)
    for field in set(type(expected).__dataclass_fields__) - {"keys", "zone"}:
        np.testing.assert_equal(getattr(found, field), getattr(expected, field))


def test_one_row_is_a_series_without_history() -> None:
    panel = read_panel(long_table()[:1], DAILY)
    assert panel.length_N.tolist() == [1]
    with pytest.raises(
        InvalidInputError, match=r"no series is longer than the 1 steps.*the longest has 1"
    ):
        panel.window(1, 1)


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "noise.parquet").write_bytes(b"noise")
    for name, message in {
        "empty.csv": "is empty",
        "noise.parquet": "cannot be read",
        "gone.csv": "does not exist",
    }.items():
        with pytest.raises(InvalidInputError, match=message):
            read_table(tmp_path / name, ["sku"])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_give_what_the_frame_gives(tmp_path: Path, suffix: str) -> None:
    table, path = long_table(), tmp_path / f"table.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    expected, found = read_panel(table, DAILY), read_panel(path, DAILY)
    np.testing.assert_array_equal(found.target_NL, expected.target_NL)
    np.testing.assert_array_equal(found.known_NLK, expected.known_NLK)
    with pytest.raises(InvalidInputError, match="has no column 'x'; its columns are sku, day"):
        read_table(path, ["x"])


def test_a_missing_step_is_unknown_or_zero_and_several_rows_are_combined() -> None:
    table = pd.DataFrame(
        {
            "sku": ["a", "a", "a", "a", "b"],
            "day": [
                "2024-01-01 08:00",
                "2024-01-01 20:00",
                "2024-01-04 01:00",
                "2024-01-05",
                "2024-01-02",
            ],
            "sold": [1.0, 3.0, 5.0, np.nan, 2.0],
        }
    )
    kept = read_panel(table, TableSettings(PLAIN.columns, "D", aggregate="sum"))
    np.testing.assert_equal(kept.target_NL[0], [4.0, np.nan, np.nan, 5.0, np.nan])
    np.testing.assert_equal(kept.target_NL[1], [np.nan] * 4 + [2.0])
    zero = read_panel(
        table, TableSettings(PLAIN.columns, "D", missing="zero", aggregate="mean", end="own")
    )
    np.testing.assert_equal(zero.target_NL[0], [2.0, 0.0, 0.0, 5.0, 0.0])
    np.testing.assert_equal(zero.target_NL[1], [np.nan] * 4 + [2.0])


def test_several_rows_of_a_step_add_up_their_sales_and_average_their_covariates() -> None:
    table = pd.DataFrame(
        {
            "sku": ["a", "a", "a", "b", "a"],
            "day": ["2024-01-01", "2024-01-01", "2024-01-01", "2024-01-01", "2024-01-02"],
            "promo": [1.0, 0.0, np.nan, 7.0, np.nan],
            "colour": ["red", "red", "blue", "blue", None],
            "visits": [10.0, 20.0, 60.0, 1.0, np.nan],
            "sold": [1.0, 3.0, 8.0, 5.0, np.nan],
        }
    )
    columns = Columns("sku", "day", "sold", known=("promo", "colour"), past=("visits",))
    for aggregate, sold in (("sum", 12.0), ("mean", 4.0)):
        panel = read_panel(table, TableSettings(columns, "D", aggregate=aggregate))
        np.testing.assert_equal(panel.target_NL, [[sold, np.nan], [np.nan, 5.0]])
        assert panel.known_names == ("promo", "colour=blue", "colour=red")
        # A price of 3 on two receipts is a price of 3: what is missing does not count.
        np.testing.assert_allclose(panel.known_NLK[0], [[0.5, 1 / 3, 2 / 3], [np.nan] * 3])
        np.testing.assert_allclose(panel.known_NLK[1], [[np.nan] * 3, [7.0, 1.0, 0.0]])
        np.testing.assert_allclose(panel.past_NLP[:, :, 0], [[30.0, np.nan], [np.nan, 1.0]])


def test_each_value_of_a_table_lies_at_its_item_day_and_column() -> None:
    rows = [
        # sku, day, promo, visits, sold, price
        ("b", 3, 0.3, 33.0, 3.0, 9.0),
        ("a", 2, 0.2, 22.0, 2.0, 5.0),
        ("b", 1, 0.1, 11.0, 1.0, 8.0),
        ("a", 4, 0.4, 44.0, 4.0, 6.0),
    ]
    table = pd.DataFrame(rows, columns=["sku", "day", "promo", "visits", "sold", "price"])
    table["day"] = pd.to_datetime(table.day.map("2024-01-{:02}".format))
    columns = Columns("sku", "day", "sold", ("promo",), ("visits",), ("price",))
    with pytest.warns(TableWarning, match="'price' changes within 2 of 2 series"):
        panel = read_panel(table, TableSettings(columns, "D"))
    assert (panel.item_ids, panel.length_N.tolist()) == (("a", "b"), [3, 3])
    gap = np.nan
    np.testing.assert_equal(panel.target_NL, [[2.0, gap, 4.0], [1.0, gap, 3.0]])
    np.testing.assert_equal(panel.known_NLK[..., 0], [[0.2, gap, 0.4], [0.1, gap, 0.3]])
    np.testing.assert_equal(panel.past_NLP[..., 0], [[22.0, gap, 44.0], [11.0, gap, 33.0]])
    days = (panel.time_ms_NL - pd.Timestamp("2024-01-01").value // 1_000_000) // DAY_MS
    assert days.tolist() == [[1, 2, 3], [0, 1, 2]]
    assert panel.static["price"].tolist() == [5.0, 8.0], (
        "that of the first day, not of the first row"
    )
    without = Columns("sku", "day", "sold", ("promo",), ("visits",))
    zero = read_panel(table, TableSettings(without, "D", missing="zero", end="own"))
    np.testing.assert_equal(zero.target_NL, [[2.0, 0.0, 4.0], [1.0, 0.0, 3.0]])
    np.testing.assert_equal(zero.known_NLK, panel.known_NLK)


def test_the_first_row_that_a_step_has_twice_is_named() -> None:
    table = long_table(items=2, days=5)
    twice = pd.concat([table, table[7:8], table[2:3]])
    with pytest.raises(InvalidInputError, match=r"'sku1' has more than one row .*2024-01-03"):
        read_panel(twice, DAILY)


def test_series_are_sorted_by_their_names_as_text_however_their_items_are_kept() -> None:
    days = pd.date_range("2024-01-01", periods=3)
    sold = {9: 1.0, 10: 2.0, 100: 3.0}
    rows = [(item, day, units) for item, units in sold.items() for day in days]
    table = pd.DataFrame(rows, columns=["sku", "day", "sold"])
    kinds = pd.CategoricalDtype([100, 9, 10, 7], ordered=True)
    for items in (table.sku, table.sku.astype(str), table.sku.astype(kinds)):
        panel = read_panel(table.assign(sku=items), PLAIN)
        assert panel.item_ids == ("10", "100", "9")
        assert panel.target_NL.tolist() == [[2.0] * 3, [3.0] * 3, [1.0] * 3]


def test_a_target_of_zero_and_a_grid_that_just_fits_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cells_module, "MAX_CELLS", 10)
    table = long_table(items=2, days=5).assign(sold=0.0)
    assert (read_panel(table, DAILY).target_NL == 0.0).all()
    monkeypatch.setattr(cells_module, "MAX_CELLS", 9)
    with pytest.raises(InvalidInputError, match="2 series of up to 5 steps are more than the 9"):
        read_panel(table, DAILY)


def test_known_covariates_ahead_are_those_of_the_horizon_and_no_other_steps() -> None:
    table = long_table(items=2, days=10)
    panel = read_panel(table[~((table.sku == "sku1") & (table.day > "2024-01-07"))], DAILY)
    future = pd.DataFrame(
        {
            "sku": ["sku0", "sku0", "sku0", "sku0", "sku1", "sku1"],
            "day": [f"2024-01-{day}" for day in ("10", "11", "12", "13", "08", "07")],
            "promo": [9.0, 1.0, 2.0, 9.0, 3.0, 9.0],
        }
    )
    with pytest.warns(TableWarning) as told:
        ahead_NHK = known_ahead(panel, future, COLUMNS, 2)
    assert [str(warning.message) for warning in told] == [
        "the table of known covariates has no column 'colour': unknown ahead",
        "of 6 rows of known covariates 3 are not used (3 lie in no step ahead), and 1 steps ahead "
        "have no row: unknown",
    ]
    np.testing.assert_equal(ahead_NHK[..., 0], [[1.0, 2.0], [3.0, np.nan]])
    assert np.isnan(ahead_NHK[..., 1:]).all(), "no colour was given"


def test_text_becomes_one_column_a_category_and_rare_ones_share_none() -> None:
    table = long_table(items=1, days=40)
    table["colour"] = [f"c{day % 15:02}" for day in range(39)] + [None]
    panel = read_panel(table, DAILY)
    names = [name for name in panel.known_names if name.startswith("colour=")]
    assert len(names) == 12
    colours_LK = panel.known_NLK[0][:, [panel.known_names.index(name) for name in names]]
    # 39 days are 2 rounds of 15 and 9 more: c09 to c14 came twice, and the names decide among them.
    assert names == [f"colour=c{number:02}" for number in range(12)]
    assert colours_LK[:39].sum(1).tolist() == [float(day % 15 < 12) for day in range(39)]
    assert np.isnan(colours_LK[39]).all()


def test_texts_of_the_past_become_columns_and_a_season_may_be_told() -> None:
    table = long_table(items=2, days=6)
    columns = Columns("sku", "day", "sold", past=("colour",))
    panel = read_panel(table, TableSettings(columns, "D", season_length=3))
    assert panel.season_length == 3
    assert read_panel(table, TableSettings(columns, "D")).season_length == 7
    assert panel.past_names == ("colour=green", "colour=red") and panel.known_names == ()
    red_R = (table.colour == "red").to_numpy().reshape(2, 6)
    assert (panel.past_NLP[..., 1] == red_R).all() and (panel.past_NLP[..., 0] == ~red_R).all()


def test_each_series_keeps_its_own_hour_also_in_the_days_ahead() -> None:
    def rows(first: str, days: int, item: str) -> pd.DataFrame:
        times = pd.date_range(first, periods=days)
        promo = np.arange(float(days))
        return pd.DataFrame({"sku": item, "day": times, "sold": 1.0, "promo": promo})

    columns = Columns("sku", "day", "sold", known=("promo",))
    table = pd.concat([rows("2024-01-01 06:00", 3, "a"), rows("2024-01-02", 2, "b")])
    panel = read_panel(table, TableSettings(columns, "D"))
    future = pd.concat([rows("2024-01-04 06:00", 2, "a"), rows("2024-01-04", 2, "b")])
    window = window_ahead(panel, 2, columns, future)
    at = pd.to_datetime(window.time_ms_NS.ravel(), unit="ms").strftime("%d %H").to_numpy()
    assert at.reshape(2, 5).tolist() == [
        ["01 06", "02 06", "03 06", "04 06", "05 06"],
        ["01 00", "02 00", "03 00", "04 00", "05 00"],
    ]
    np.testing.assert_equal(window.known_NSK[..., 0], [[0, 1, 2, 0, 1], [np.nan, 0, 1, 0, 1]])
    assert window.length_N is not None and window.length_N.tolist() == [3, 2]


def test_flags_are_numbers_and_statics_are_each_series_first_known_value() -> None:
    table = long_table(items=2, days=5).assign(promo=[True, False, None, True, False] * 2)
    table["name"] = [None, "early", "late", None, None, None, None, None, None, None]
    with pytest.warns(TableWarning, match="'name' changes within 1 of 2 series"):
        panel = read_panel(table, DAILY)
    np.testing.assert_equal(panel.known_NLK[0, :, 0], [1.0, 0.0, np.nan, 1.0, 0.0])
    assert panel.static["name"].tolist() == ["early", None]
    assert panel.static["price"].tolist() == [0.0, 1.0]


def test_series_may_end_on_different_days() -> None:
    table = long_table(items=2, days=10)
    panel = read_panel(table[~((table.sku == "sku1") & (table.day > "2024-01-07"))], DAILY)
    ends = pd.to_datetime(panel.time_ms_NL[:, -1], unit="ms")
    assert [str(end.date()) for end in ends] == ["2024-01-10", "2024-01-07"]
    assert panel.length_N.tolist() == [10, 7]
    assert [str(time.date()) for time in pd.to_datetime(times_ahead(panel, 2)[1], unit="ms")] == [
        "2024-01-08",
        "2024-01-09",
    ]


def test_names_in_a_file_keep_their_leading_zeros(tmp_path: Path) -> None:
    long_table(items=2, days=3).replace({"sku": {"sku0": "007", "sku1": "7"}}).to_csv(
        tmp_path / "t.csv", index=False
    )
    assert read_panel(tmp_path / "t.csv", DAILY).item_ids == ("007", "7")


def test_the_window_ahead_of_a_panel_holds_all_of_it_and_no_covariate_that_nobody_gave() -> None:
    panel = read_panel(long_table(), DAILY)
    window = window_ahead(panel, 3, COLUMNS)
    assert (window.context_length, window.horizon) == (60, 3)
    np.testing.assert_array_equal(np.diff(window.time_ms_NS), DAY_MS)
    np.testing.assert_array_equal(window.known_NSK[:, :60], panel.known_NLK)
    assert np.isnan(window.known_NSK[:, 60:]).all()
    future = pd.DataFrame(
        {"sku": ["sku1", "other"], "day": "2024-03-01", "promo": 1, "colour": "red"}
    )
    with pytest.warns(TableWarning, match="1 name items that the table does not have"):
        given = window_ahead(panel, 3, COLUMNS, future)
    assert given.known_NSK[1, 60].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("frequency", ["D", "W-SUN", "MS", "h"])
def test_known_covariates_of_the_future_find_their_steps(frequency: str) -> None:
    days = pd.date_range("2024-01-01", periods=20, freq=frequency)
    past = pd.DataFrame({"sku": "a", "day": days[:15], "sold": 1.0, "promo": 0.0, "colour": "red"})
    panel = read_panel(
        past, TableSettings(Columns("sku", "day", "sold", known=("promo", "colour")), frequency)
    )
    future = pd.DataFrame(
        {
            "sku": ["a", "a", "a", "z"],
            "day": [*days[15:17], days[19], days[15]],
            "promo": [1, 2, 5, 9],
        }
    )
    coloured = future.assign(colour=["red", "blue", None, "red"])
    with (
        pytest.warns(TableWarning, match="of 4 rows of known covariates 1 are not used"),
        pytest.warns(TableWarning, match="'blue' .* none of the table's values"),
    ):
        ahead = known_ahead(panel, coloured, COLUMNS, 5)
    np.testing.assert_equal(ahead[0, :, 0], [1.0, 2.0, np.nan, np.nan, 5.0])
    # blue was never seen: it is no red; the last one is unknown.
    np.testing.assert_equal(ahead[0, :, 1], [1.0, 0.0, np.nan, np.nan, np.nan])
    assert times_ahead(panel, 5)[0].tolist() == days[15:].as_unit("ms").asi8.tolist()
    with pytest.raises(InvalidInputError, match="no column 'promo', 'colour'"):
        known_ahead(panel, future[["sku", "day"]], COLUMNS, 5)


def test_a_column_has_one_role() -> None:
    with pytest.raises(InvalidInputError, match="'sold' has two roles"):
        Columns("sku", "day", "sold", known=("sold",))


def test_a_grid_too_large_for_memory_is_refused() -> None:
    table = pd.DataFrame({"sku": "a", "day": ["1990-01-01", "2024-01-01"], "sold": [1.0, 1.0]})
    with pytest.raises(InvalidInputError, match="cells that fit; check the frequency"):
        read_panel(table, TableSettings(PLAIN.columns, "s"))


def test_the_country_goes_from_the_table_into_every_window() -> None:
    settings = TableSettings(PLAIN.columns, "D", country="US")
    panel = read_panel(long_table(items=2, days=30), settings)
    assert panel.window(10, 5).country == "US"
    assert panel.window(10, 5).rows(slice(0, 1)).country == "US"
    assert panel.window(10, 5).country == "US"
    assert window_ahead(panel, 5, settings.columns).country == "US"


def test_what_is_wrong_in_a_file_names_file_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "sales.csv"
    good = "007;2024-01-01;1,5\n007;2024-01-02;2\n"
    path.write_text(f"sku;day;sold\n{good}007;2024-01-03;many\n007;2024-01-04;?\n")
    with pytest.raises(InvalidInputError, match=r"sales\.csv: 'many' in column 'sold' .*\(row 4\)"):
        read_panel(path, PLAIN)
    path.write_text("sku;day;sold\n007;02/01/2024;1,5\n007;03/01/2024;2,5\n")
    with pytest.raises(InvalidInputError, match=r"'02/01/2024' in column 'day' may be"):
        read_panel(path, PLAIN)
    style = FileStyle(dayfirst=True, zone="Europe/Berlin")
    panel = read_panel(path, replace(PLAIN, file=style))
    assert panel.item_ids == ("007",) and panel.target_NL.tolist() == [[1.5, 2.5]]
    assert str(panel.zone) == "Europe/Berlin"
