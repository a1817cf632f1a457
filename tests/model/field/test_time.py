"""Clocks that change, dates written with the day first, steps that nobody named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.panel import Panel
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from tests.model.field.conftest import weekly_peak

COLUMNS = Columns("item_id", "timestamp", "target")


def panel(frame: pd.DataFrame, frequency: str | None = None, **settings: object) -> Panel:
    return read_panel(frame, TableSettings(COLUMNS, frequency, **settings))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Sydney"])
@pytest.mark.parametrize("frequency", ["D", None])
def test_local_days_across_a_change_of_the_clock_are_those_of_a_naive_table(
    forecaster, zone: str, frequency: str | None
) -> None:
    # Both clocks change in March: Berlin's on the 31st, New York's on the 10th.
    naive = weekly_peak("2024-01-01", 95)
    zoned = weekly_peak("2024-01-01", 95, zone)
    found = forecaster.predict(zoned, 7, frequency=frequency)
    days = pd.date_range("2024-04-05", periods=7, freq="D", tz=zone)
    assert found.timestamp.tolist() == days.tolist()
    assert found.timestamp[found["0.5"].idxmax()] == pd.Timestamp("2024-04-06", tz=zone)
    plain = forecaster.predict(naive, 7, frequency=frequency)
    pd.testing.assert_frame_equal(found.drop(columns="timestamp"), plain.drop(columns="timestamp"))


def test_a_forecast_that_reaches_over_the_change_stays_at_midnight(forecaster) -> None:
    found = forecaster.predict(weekly_peak("2024-01-01", 88, "Europe/Berlin"), 7)
    assert found.timestamp.iloc[0] == pd.Timestamp("2024-03-29", tz="Europe/Berlin")
    assert (found.timestamp.dt.hour == 0).all() and found.timestamp.dt.day.nunique() == 7


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_months_of_a_zone_keep_their_names(forecaster, zone: str) -> None:
    month = pd.date_range("2021-01-01", periods=36, freq="MS", tz=zone)
    sold = np.where(month.month == 12, 90.0, 30.0)
    frame = pd.DataFrame({"item_id": "a", "timestamp": month, "target": sold})
    found = forecaster.predict(frame, 12)
    assert [(day.day, day.month) for day in found.timestamp] == [(1, m) for m in range(1, 13)]
    assert found.timestamp[found["0.5"].idxmax()].month == 12


def test_texts_with_an_offset_that_changes_are_the_days_of_that_clock() -> None:
    day = pd.date_range("2024-03-25", periods=14, freq="D", tz="Europe/Berlin")
    frame = pd.DataFrame({"item_id": "a", "timestamp": day.map(str), "target": 1.0})
    found = panel(frame)
    assert (found.frequency, int(found.length_N[0])) == ("D", 14)
    assert np.isfinite(found.target_NL).all()
    assert str(pd.Timestamp(found.time_ms_NL[0, -1], unit="ms")) == "2024-04-07 00:00:00"


def test_hours_of_a_zone_pass_as_they_do_and_are_shown_by_its_clock(forecaster) -> None:
    # The shop sells at nine by its own clock, before and after the change on the 31st.
    hour = pd.date_range("2024-03-10", periods=24 * 28, freq="h", tz="Europe/Berlin")
    frame = pd.DataFrame(
        {"item_id": "a", "timestamp": hour, "target": np.where(hour.hour == 9, 60.0, 5.0)}
    )
    found = forecaster.predict(frame, 24)
    assert found.timestamp[found["0.5"].idxmax()].hour == 9
    assert found.timestamp.diff().dropna().unique().tolist() == [pd.Timedelta("1h")]
    table = panel(frame)
    assert table.clock_ms_NL is not None
    shown = table.clock_ms_NL[0, [0, -1]] - table.time_ms_NL[0, [0, -1]]
    assert shown.tolist() == [3_600_000, 7_200_000]


@pytest.mark.parametrize(
    ("frequency", "found"),
    [
        ("h", "h"),
        ("15min", "15min"),
        ("D", "D"),
        ("B", "B"),
        ("W-MON", "W-MON"),
        ("2W-SUN", "2W-SUN"),
        ("MS", "MS"),
        ("ME", "ME"),
        ("QS", "QS-JAN"),
        ("YS", "YS-JAN"),
    ],
)
def test_the_frequency_is_what_the_rows_tell(frequency: str, found: str) -> None:
    time = pd.date_range("2023-01-01", periods=30, freq=frequency)
    table = panel(pd.DataFrame({"item_id": "a", "timestamp": time, "target": 1.0}))
    ahead = pd.date_range("2023-01-01", periods=31, freq=frequency)[-1]
    assert pd.tseries.frequencies.to_offset(table.frequency).freqstr.startswith(found[:2])
    assert table.target_NL.shape == (1, 30) and np.isfinite(table.target_NL).all()
    step = pd.tseries.frequencies.to_offset(table.frequency)
    assert time[-1] + step == ahead


def test_rows_only_where_something_sold_still_tell_days() -> None:
    day = pd.date_range("2024-01-01", periods=200, freq="D")
    kept = np.random.default_rng(0).random(200) < 0.3
    frame = pd.DataFrame({"item_id": "a", "timestamp": day[kept], "target": 1.0})
    with pytest.warns(TableWarning, match=r"of \d+ steps of 'D' have no target of any series"):
        assert panel(frame).frequency == "D"


@pytest.mark.parametrize(
    ("rows", "named", "said"),
    [("MS", "D", "MS"), ("W-MON", "D", "W-MON"), ("D", "h", "D"), ("QS", "MS", "QS-")],
)
def test_a_frequency_finer_than_the_rows_is_refused(rows: str, named: str, said: str) -> None:
    time = pd.date_range("2023-01-02", periods=24, freq=rows)
    frame = pd.DataFrame({"item_id": "a", "timestamp": time, "target": 1.0})
    with pytest.raises(InvalidInputError, match=f"'{named}', but the rows .* as of '{said}"):
        panel(frame, named)


def test_one_row_a_series_does_not_tell_a_frequency() -> None:
    frame = weekly_peak("2024-01-01", 1)
    with pytest.raises(InvalidInputError, match="do not tell how long a step is"):
        panel(frame)
    assert panel(frame, "D").frequency == "D"


def days_of(texts: list[str], **settings: object) -> list[str]:
    frame = pd.DataFrame({"item_id": "a", "timestamp": texts, "target": 1.0})
    stamps = pd.to_datetime(panel(frame, **settings).time_ms_NL[0], unit="ms")
    return [str(stamp.date()) for stamp in stamps]


def test_the_day_comes_first_where_any_of_the_dates_says_so() -> None:
    days = pd.date_range("2024-03-01", periods=30, freq="D")
    expected = [str(day.date()) for day in days]
    assert days_of([f"{day:%d/%m/%Y}" for day in days]) == expected
    assert days_of([f"{day:%m/%d/%Y}" for day in days]) == expected
    assert days_of([f"{day:%d.%m.%Y}" for day in days]) == expected


def test_months_with_the_day_first_are_no_days() -> None:
    months = pd.date_range("2023-01-01", periods=24, freq="MS")
    assert days_of([f"{month:%d/%m/%Y}" for month in months]) == [str(m.date()) for m in months]


def test_dates_that_may_be_read_in_two_ways_are_asked_about() -> None:
    texts = [f"01/{month:02}/2024" for month in range(1, 7)]
    with pytest.raises(
        InvalidInputError, match=r"'01/02/2024' .* 2 January 2024 or 1 February 2024"
    ):
        days_of(texts)
    assert days_of(texts, dayfirst=True)[1] == "2024-02-01"
    assert days_of(texts, dayfirst=False)[1] == "2024-01-02"


def test_a_tuesday_among_mondays_is_named_and_taken_for_its_week() -> None:
    monday = pd.date_range("2024-01-01", periods=30, freq="W-MON")
    time = monday.to_series().reset_index(drop=True)
    time[12] += pd.Timedelta("1D")
    frame = pd.DataFrame({"item_id": "a", "timestamp": time, "target": np.arange(30.0)})
    for frequency in (None, "W-MON"):
        with pytest.warns(TableWarning, match="1 of 30 .*'a' on Tuesday 2024-03-26"):
            found = panel(frame, frequency)
        assert found.target_NL[0].tolist() == list(range(30))
        assert found.time_ms_NL[0].tolist() == monday.as_unit("ms").asi8.tolist()
        with pytest.raises(InvalidInputError, match="Tuesday"):
            panel(frame, frequency, strict=True)


def test_months_that_are_stamped_in_their_middle_are_said_to_be_named_by_their_first() -> None:
    time = pd.date_range("2023-01-01", periods=24, freq="MS") + pd.Timedelta("14D")
    with pytest.warns(TableWarning, match="named by their own first or last day"):
        found = panel(pd.DataFrame({"item_id": "a", "timestamp": time, "target": 1.0}))
    assert (found.frequency, found.target_NL.shape) == ("MS", (1, 24))


@pytest.mark.parametrize("unit", [10**9, 10**6, 10**3, 1])
def test_whole_numbers_count_any_usual_unit_since_1970_which_their_size_tells(unit: int) -> None:
    nanoseconds = pd.date_range("2024-01-01", periods=20).astype("int64")
    frame = pd.DataFrame({"item_id": "a", "timestamp": nanoseconds // unit, "target": 1.0})
    found = panel(frame)
    assert found.frequency == "D" and found.time_ms_NL[0, 0] == 1_704_067_200_000


def test_whole_numbers_of_two_units_or_of_none_are_refused() -> None:
    frame = pd.DataFrame({"item_id": "a", "timestamp": [1_704_067_200, 1_704_067_200_000]})
    with pytest.raises(InvalidInputError, match=r"the time 1704067200000 .* nor in another unit"):
        panel(frame.assign(target=1.0))
    with pytest.raises(InvalidInputError, match=r"the time 19722 .* is no time in milliseconds"):
        panel(frame.assign(target=1.0, timestamp=[19_722, 19_723]))


def test_days_stamped_at_six_stay_at_six_though_one_of_them_came_late() -> None:
    time = pd.date_range("2024-01-01 06:00", periods=30).to_series().reset_index(drop=True)
    time[12] += pd.Timedelta("50min")
    frame = pd.DataFrame({"item_id": "a", "timestamp": time, "target": 1.0})
    with pytest.warns(TableWarning, match="1 of 30 rows .* 06:50"):
        found = panel(frame, "D")
    assert str(pd.Timestamp(found.time_ms_NL[0, -1], unit="ms")) == "2024-01-30 06:00:00"
