"""Frames of its worst user: right, or refused or told with what, where and what to do."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from tests.model.field.conftest import ahead_of, promoted, weekly_peak

DAYS = 90
AHEAD = pd.date_range("2024-03-31", periods=7)  # a Sunday to a Saturday


def peak() -> pd.DataFrame:
    return weekly_peak("2024-01-01", DAYS)


def monthly(freq: str, steps: int = 30) -> pd.DataFrame:
    months = pd.date_range("2021-01-01", periods=steps, freq=freq)
    return pd.DataFrame({"timestamp": months, "target": 9.0})


# Times -------------------------------------------------------------------------------------------

DAILY = {
    "a day and a month of two digits": "%d/%m/%y",
    "Americans'": "%m/%d/%y",
    "with dots": "%d.%m.%y",
    "years first": "%y-%m-%d",
    "months by name": "%d-%b-%y",
    "weekdays by name": "%a, %d %b %Y",
}


@pytest.mark.parametrize("written", DAILY.values(), ids=DAILY)
def test_days_in_any_writing_are_those_days(forecaster, written: str) -> None:
    frame = peak().assign(timestamp=lambda rows: rows.timestamp.dt.strftime(written))
    found = forecaster.predict(frame, 7)
    assert found.timestamp.tolist() == AHEAD.tolist()
    # Saturdays are the peaks.
    assert found.predictions.idxmax() == 6


def test_hours_before_and_after_noon_are_twelve_hours_apart() -> None:
    hours = pd.date_range("2024-01-20", periods=20 * 24, freq="h")
    texts = hours.strftime("%m/%d/%Y %I:%M %p")
    frame = pd.DataFrame({"item_id": "a", "timestamp": texts, "target": 1.0})
    panel = read_panel(frame, TableSettings(Columns("item_id", "timestamp", "target")))
    assert panel.frequency == "h"
    assert panel.time_ms_NL[0].tolist() == hours.as_unit("ms").asi8.tolist()


def test_dates_of_two_digits_that_may_be_two_dates_are_refused(forecaster) -> None:
    frame = peak()[:10].assign(timestamp=[f"0{day}/02/24" for day in range(1, 10)] + ["10/02/24"])
    with pytest.raises(InvalidInputError, match=r"may be .* or say dayfirst"):
        forecaster.predict(frame, 2)


PERIODS = {
    "%Y-%m": ("MS", "2023-07-01"),
    "%b-%y": ("MS", "2023-07-01"),
    "%B %Y": ("MS", "2023-07-01"),
    "%Y-Q%q": ("QS", "2028-07-01"),
    "%G-W%V": ("W-MON", "2021-08-02"),
    "%GW%V": ("W-MON", "2021-08-02"),
}


@pytest.mark.parametrize("written", PERIODS)
def test_names_of_months_quarters_and_weeks_are_read(forecaster, written: str) -> None:
    freq, first = PERIODS[written]
    steps = pd.date_range("2021-01-01", periods=30, freq=freq)
    names = steps.to_period("Q") if "%q" in written else steps
    frame = pd.DataFrame({"timestamp": names.strftime(written), "target": 9.0})
    # Thirty weeks after 2020-W53 begins the 30th Monday after that of 2021-01-04.
    assert forecaster.predict(frame, 1).timestamp.tolist() == [pd.Timestamp(first)]


def test_the_53rd_week_is_a_week(forecaster) -> None:
    weeks = pd.date_range("2020-06-01", "2021-03-29", freq="W-MON")
    names = weeks.strftime("%G-W%V")
    assert "2020-W53" in names
    found = forecaster.predict(pd.DataFrame({"timestamp": names, "target": 9.0}), 2)
    assert found.timestamp.tolist() == [pd.Timestamp("2021-04-05"), pd.Timestamp("2021-04-12")]


@pytest.mark.parametrize("freq", ["ME", "BME", "BMS"])
def test_months_named_by_a_day_that_was_worked_on_are_months(forecaster, freq: str) -> None:
    found = forecaster.predict(monthly(freq), 3)
    months = pd.PeriodIndex(found.timestamp, freq="M")
    assert months.tolist() == pd.period_range("2023-07", periods=3, freq="M").tolist()


def test_weeks_that_are_counted_on_any_day_are_told() -> None:
    day = pd.date_range("2023-01-02", periods=60, freq="7D")
    shifted = day + pd.to_timedelta(np.random.default_rng(0).integers(0, 5, 60), unit="D")
    frame = pd.DataFrame({"item_id": "a", "timestamp": shifted, "target": 9.0})
    with pytest.warns(TableWarning, match=r"of \d+ steps of 'B' have no target of any series"):
        read_panel(frame, TableSettings(Columns("item_id", "timestamp", "target")))


def test_day_numbers_of_excel_are_refused_with_what_makes_dates_of_them(forecaster) -> None:
    frame = peak().assign(timestamp=np.arange(45_292, 45_292 + DAYS))
    with pytest.raises(InvalidInputError, match=r"origin='1899-12-30'") as caught:
        forecaster.predict(frame, 7)
    made = pd.to_datetime(frame.timestamp, unit="D", origin="1899-12-30")
    assert "unit='D'" in str(caught.value) and made.iloc[0] == pd.Timestamp("2024-01-01")


def test_a_year_that_no_clock_of_ours_counts_is_refused(forecaster) -> None:
    frame = peak().astype({"timestamp": "datetime64[s]"})
    frame.loc[4, "timestamp"] = np.datetime64("9999-12-31", "s")
    with pytest.raises(InvalidInputError, match=r"9999-12-31 .*\(row 4\) lies outside the years"):
        forecaster.predict(frame, 7)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_any_resolution_are_the_same(forecaster, unit: str) -> None:
    found = forecaster.predict(peak().astype({"timestamp": f"datetime64[{unit}]"}), 7)
    assert found.timestamp.tolist() == AHEAD.tolist() and found.predictions.idxmax() == 6


def test_dates_and_timestamps_in_one_column_are_read(forecaster) -> None:
    mixed = [
        day.date() if index % 2 else dt.datetime.combine(day.date(), dt.time())
        for index, day in enumerate(peak().timestamp)
    ]
    found = forecaster.predict(peak().assign(timestamp=pd.Series(mixed, dtype=object)), 7)
    assert found.timestamp.tolist() == AHEAD.tolist() and found.predictions.idxmax() == 6


def test_a_zone_that_only_some_times_have_is_refused(forecaster) -> None:
    mixed = [
        day.tz_localize("UTC") if index < 40 else day for index, day in enumerate(peak().timestamp)
    ]
    with pytest.raises(InvalidInputError, match=r"have a time zone .* and some have none"):
        forecaster.predict(peak().assign(timestamp=pd.Series(mixed, dtype=object)), 7)


# Sums --------------------------------------------------------------------------------------------


def test_a_month_that_has_only_begun_is_told() -> None:
    frame = weekly_peak("2024-01-01", 100)  # to the 9th of April
    settings = TableSettings(Columns("item_id", "timestamp", "target"), "MS", aggregate="sum")
    with pytest.warns(TableWarning, match="the last step of 'MS' has rows on 9 days, .* on 31"):
        read_panel(frame, settings)
    whole = read_panel(frame[frame.timestamp < "2024-04-01"], settings)
    # 31, 29 and 31 days at 10, and 40 more on each of 4, 4 and 5 Saturdays.
    assert whole.target_NL.tolist() == [[470.0, 450.0, 510.0]]


def test_weeks_of_a_shop_that_is_closed_on_sundays_are_whole(forecaster) -> None:
    frame = weekly_peak("2024-01-01", 91)
    opened = frame[frame.timestamp.dt.dayofweek < 6]
    found = forecaster.predict(opened, 1, frequency="W-SUN", aggregate="sum")
    # Five days of 10, and a Saturday of 50.
    np.testing.assert_allclose(found.predictions, 100.0, rtol=0.1)


# Columns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["predictions", "0.5", "mean", "status"])
@pytest.mark.parametrize("role", ["item_id", "timestamp"])
def test_a_column_called_as_one_of_the_answers_is_refused(forecaster, role, name) -> None:
    frame = peak().rename(columns={role: name})
    argument = {"item_id": "id_column", "timestamp": "timestamp_column"}[role]
    with pytest.raises(InvalidInputError, match=f"the answer has a column '{name}' of its own"):
        forecaster.predict(frame, 7, **{argument: name})


@pytest.mark.parametrize("name", ["predictions", "0.5", "cutoff", "status"])
def test_a_target_called_as_one_of_the_answers_is_refused_where_it_is_told(
    forecaster, name
) -> None:
    frame = peak().rename(columns={"target": name})
    assert len(forecaster.predict(frame, 7, target=name)) == 7
    with pytest.raises(InvalidInputError, match=f"the answer has a column '{name}' of its own"):
        forecaster.cross_validation(frame, 7, target=name)


def test_a_static_column_that_changes_is_told(forecaster) -> None:
    frame = peak().assign(price=np.where(np.arange(DAYS) < 50, 2.0, 3.0))
    with pytest.warns(TableWarning, match="the static 'price' changes within 1 of 1 series"):
        forecaster.predict(frame, 7, static=["price"])


def test_categories_that_nobody_uses_are_no_items(forecaster) -> None:
    kinds = pd.Categorical(["a"] * DAYS, categories=["zz", "a", "b"])
    found = forecaster.predict(peak().assign(item_id=kinds), 7)
    assert found.item_id.tolist() == ["a"] * 7 and found.predictions.idxmax() == 6


def test_steps_that_a_plan_does_not_tell_are_unknown(forecaster) -> None:
    frame = promoted()
    found = forecaster.predict(frame, 7, future_df=ahead_of(frame).drop(index=[2, 3]))
    assert found.status.tolist() == ["ok"] * 2 + ["future_unknown"] * 2 + ["ok"] * 3


REFUSED = {
    "numbers with a comma": (
        lambda: peak().assign(target="1,99"), {}, r"'1,99' .*\(row 0\); write numbers as 1234.5"
    ),
    "currencies": (lambda: peak().assign(target="€ 10"), {}, "'€ 10' in column 'target' is no num"),
    "words": (lambda: peak().assign(target="yes"), {}, "'yes' in column 'target' is no number"),
    "two columns of a name": (
        lambda: pd.concat([peak(), peak()[["target"]]], axis=1), {}, "two columns 'target'; rename"
    ),
    "no target at all": (
        lambda: peak().assign(target=np.nan), {}, "no row has a value in the target column 'target'"
    ),
    "no items": (lambda: peak().assign(item_id=None), {}, "90 of 90 rows have no item in column"),
    "one row": (lambda: peak()[:1], {}, "do not tell how long a step is; say the frequency"),
    "an hour twice": (
        lambda: pd.DataFrame({
            "timestamp": pd.date_range("2024-10-20", periods=336, freq="h", tz="Europe/Berlin")
            .tz_localize(None),
            "target": 1.0,
        }),
        {}, "more than one row for the step of 2024-10-27 02:00",
    ),
    "a season of no step": (peak, {"season_length": 0}, "season_length is 0; expected a whole"),
    "a season of text": (peak, {"season_length": "7"}, "season_length is '7'; expected a whole"),
    "a frequency that is none": (peak, {"frequency": object()}, "is no frequency; give a pandas"),
    "a column called by a number": (
        lambda: peak().assign(**{"x": 1.0}).rename(columns={"x": 5}), {"known": [5]}, "5 is called"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_right_is_refused_in_words(forecaster, kind: str) -> None:
    frame, words, said = REFUSED[kind]
    with pytest.raises(InvalidInputError, match=said):
        forecaster.predict(frame(), 7, **words)


def test_true_is_no_number_of_steps(forecaster) -> None:
    with pytest.raises(InvalidInputError, match="prediction_length is True; expected a whole num"):
        forecaster.predict(peak(), True)


def test_a_length_of_time_is_a_frequency(forecaster) -> None:
    found = forecaster.predict(peak(), 7, frequency=pd.Timedelta(days=1))
    assert found.timestamp.tolist() == AHEAD.tolist()
