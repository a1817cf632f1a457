"""Times as text, read a column at a time, are those that are read one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.codec import time_ms
from freshet.stream.errors import EventError
from freshet.stream.events.rfc3339 import FEW, NOT_PLAIN, plain_times_ms

LAST_YEAR = 2262  # of times in nanoseconds
MOMENTS = st.datetimes(datetime(1960, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))


@st.composite
def texts(draw: st.DrawFn) -> str:
    ahead = timezone(timedelta(minutes=draw(st.integers(-1_439, 1_439))))
    text = (
        draw(MOMENTS)
        .astimezone(ahead)
        .isoformat(timespec=draw(st.sampled_from(["seconds", "microseconds"])))
    )
    if draw(st.booleans()):
        text = text[:-6] + draw(
            st.sampled_from(["Z", "z", "", "+00:00", "-05:30", "+99:00", "+01:75"])
        )
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = (
            text[:at]
            + draw(st.sampled_from(["", "0", "9", "6", "é", ".", " ", "-"]))
            + text[at + 1 :]
        )
    return text


def one_by_one(text: str) -> int | None:
    try:
        return time_ms(text)
    except EventError:
        return None


@given(st.lists(texts() | st.text(max_size=30), max_size=8))
def test_what_is_read_as_plain_is_what_reading_it_alone_gives(column: list[str]) -> None:
    for text, found in zip(column, plain_times_ms(column).tolist(), strict=True):
        assert found == NOT_PLAIN or found == one_by_one(text)


@given(
    st.lists(MOMENTS.filter(lambda at: 1970 <= at.year < LAST_YEAR), min_size=1, max_size=5),
    st.sampled_from(["milliseconds", "microseconds"]),
)
def test_every_well_written_time_is_plain(moments: list[datetime], timespec: str) -> None:
    column = [at.isoformat(timespec=timespec) for at in moments]
    assert plain_times_ms(column).tolist() == [time_ms(text) for text in column]
    zulu = [text.replace("+00:00", "Z") for text in column]
    assert plain_times_ms(zulu).tolist() == [time_ms(text) for text in column]


@pytest.mark.parametrize(
    "text",
    [
        "2023-02-29T00:00:00Z",
        "2024-02-30T00:00:00Z",
        "2024-00-10T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
    ],
)
def test_days_and_seconds_that_do_not_exist_are_left_to_others(text: str) -> None:
    assert plain_times_ms([text]).tolist() == [NOT_PLAIN]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 00:00:00.000Z",
        "2024-01-01T00:00+01:00",
        "2024-01-01T00:00:00+01",
        "2024-01-01T00:00:00.000",
        "1969-12-31T23:59:59.999Z",
        "2262-04-12T00:00:00Z",
    ],
)
def test_what_only_arrow_reads_and_what_it_cannot_hold_is_left_to_others(text: str) -> None:
    assert plain_times_ms([text]).tolist() == [NOT_PLAIN]


@given(st.integers(0, 3 * FEW - 1))
def test_one_bad_text_takes_few_others_along(place: int) -> None:
    column = ["2024-02-29T00:00:00Z"] * (3 * FEW)
    column[place] = "soon"
    found = plain_times_ms(column).tolist()
    assert found[place] == NOT_PLAIN
    assert found.count(1_709_164_800_000) == 2 * FEW
