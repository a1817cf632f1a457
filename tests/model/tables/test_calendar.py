"""Steps of every kind of frequency against pandas' own calendars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.calendar import Calendar, resolution_ms, season_length
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import HOUR_MS


def stamps(*texts: str) -> np.ndarray:
    return pd.to_datetime(list(texts), format="ISO8601").as_unit("ms").asi8


def placed(frequency: str, *texts: str) -> list[str]:
    """The labels of the steps in which the times of one series lie."""
    time_ms, codes = stamps(*texts), np.zeros(len(texts), np.int64)
    calendar = Calendar.of(frequency, int(time_ms.min()))
    phase = calendar.phases(time_ms, codes, 1)
    steps = calendar.steps(time_ms, phase[codes])
    return [str(stamp) for stamp in pd.to_datetime(calendar.times(steps, phase[codes]), unit="ms")]


@pytest.mark.parametrize(
    "frequency",
    [
        "s",
        "15min",
        "h",
        "6h",
        "D",
        "W-SUN",
        "W-WED",
        "2W-SUN",
        "MS",
        "ME",
        "QS-OCT",
        "QE",
        "YS",
        "YE",
        "B",
        "2MS",
        "SMS",
    ],
)
def test_times_on_a_grid_stay_where_they_are(frequency: str) -> None:
    dates = [str(stamp) for stamp in pd.date_range("2023-12-31", periods=30, freq=frequency)]
    assert placed(frequency, *dates) == dates
    calendar = Calendar.of(frequency, int(stamps(*dates)[0]))
    phase = calendar.phases(stamps(*dates), np.zeros(30, np.int64), 1)
    assert np.diff(calendar.steps(stamps(*dates), phase[[0] * 30])).tolist() == [1] * 29


@pytest.mark.parametrize(
    ("frequency", "times", "labels"),
    [
        ("D", ("2024-01-01 03:12", "2024-01-02 22:50"), ("2024-01-01", "2024-01-02")),
        (
            "D",
            ("2024-01-01 12:00", "2024-01-03 12:00"),
            ("2024-01-01 12:00:00", "2024-01-03 12:00:00"),
        ),
        ("W-SUN", ("2024-01-01 10:00", "2024-01-14 23:59"), ("2024-01-07", "2024-01-14")),
        ("W-SUN", ("2024-01-01", "2024-01-08"), ("2024-01-01", "2024-01-08")),
        ("MS", ("2024-01-31 23:59", "2024-02-01"), ("2024-01-01", "2024-02-01")),
        ("ME", ("2024-01-31 23:59", "2024-02-01"), ("2024-01-31", "2024-02-29")),
        ("QS", ("2024-03-31", "2024-04-02"), ("2024-01-01", "2024-04-01")),
        ("B", ("2024-01-05", "2024-01-06"), ("2024-01-05", "2024-01-05")),
    ],
)
def test_times_between_steps_belong_to_the_step_around_them(
    frequency: str, times: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    assert placed(frequency, *times) == [str(pd.Timestamp(label)) for label in labels]


def test_each_series_keeps_its_own_phase() -> None:
    time_ms = stamps("2024-01-01 06:00", "2024-01-02 06:00", "2024-01-01 03:00", "2024-01-02 04:00")
    codes = np.array([0, 0, 1, 1])
    calendar = Calendar.of("D", int(time_ms.min()))
    assert calendar.phases(time_ms, codes, 2).tolist() == [6 * HOUR_MS, 0]


def test_old_spellings_mean_what_they_meant() -> None:
    assert season_length("H") == 24
    assert resolution_ms("M") == resolution_ms("ME")


@pytest.mark.parametrize("wrong", ["fortnight", "0D", "-1D", "10us", ""])
def test_what_is_no_frequency_is_said(wrong: str) -> None:
    with pytest.raises(InvalidInputError, match="is no frequency"):
        season_length(wrong)
