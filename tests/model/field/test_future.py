"""Tables of the steps ahead: used to the last row, or it is said what did not match."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from tests.model.field.conftest import ahead_of, promoted


def medians(forecaster, frame: pd.DataFrame, future: pd.DataFrame | None, **named: object):
    found = forecaster.predict(frame, 7, known=["promo"], future=future, **named)
    return found["0.5"].to_numpy()


def test_days_that_are_promoted_ahead_sell_as_promoted_days_did(forecaster) -> None:
    frame = promoted()
    assert (medians(forecaster, frame, ahead_of(frame)) > 70.0).all()
    assert (medians(forecaster, frame, ahead_of(frame, promo=0.0)) < 20.0).all()


@pytest.mark.parametrize("item", [7.0, "7", "7.0"])
def test_an_item_written_as_another_kind_of_number_is_that_item_or_is_named(
    forecaster, item: object
) -> None:
    frame = promoted(item=7)
    future = ahead_of(frame).assign(item_id=item)
    if item == "7.0":
        with pytest.raises(InvalidInputError, match=r"it has '7\.0'; the table has '7'"):
            medians(forecaster, frame, future)
    else:
        assert (medians(forecaster, frame, future) > 70.0).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.assign(item_id=" a"), "it has ' a'; the table has 'a'"),
        (
            lambda f: f.assign(timestamp=f.timestamp + pd.Timedelta("30D")),
            "go from 2024-05-30 .* to 2024-06-05 .*, the steps ahead from 2024-04-30",
        ),
        (lambda f: f.rename(columns={"promo": "Promo"}), "no column 'promo'; it has .*'?Promo"),
        (
            lambda f: f.assign(timestamp=f.timestamp.dt.tz_localize("Europe/Berlin")),
            "the table have no time zone, .* the time zone Europe/Berlin",
        ),
        (
            lambda f: pd.concat([f, f.assign(promo=0.0)]),
            "two things of 'promo' for item 'a' at 2024-04-30",
        ),
        (lambda f: f[:0], "has no rows"),
    ],
    ids=["space", "month off", "capital", "zone", "twice", "empty"],
)
def test_a_table_that_does_not_match_is_refused_with_what_did_not(forecaster, change, said) -> None:
    frame = promoted()
    with pytest.raises(InvalidInputError, match=said):
        medians(forecaster, frame, change(ahead_of(frame)))


def test_a_naive_table_ahead_of_a_zoned_one_is_refused(forecaster) -> None:
    frame = promoted()
    future = ahead_of(frame)
    frame["timestamp"] = frame.timestamp.dt.tz_localize("America/New_York")
    with pytest.raises(InvalidInputError, match=r"time zone America/New_York, .* no time zone"):
        medians(forecaster, frame, future)
    future["timestamp"] = future.timestamp.dt.tz_localize("America/New_York")
    assert (medians(forecaster, frame, future) > 70.0).all()


def test_the_rows_that_did_not_match_are_counted(forecaster) -> None:
    frame = pd.concat([promoted(item="a"), promoted(item="b")])
    future = ahead_of(frame)
    future.loc[future.item_id == "b", "item_id"] = "B"
    with pytest.warns(TableWarning, match="of 14 rows .* 7 are not used .*7 steps ahead have no"):
        found = medians(forecaster, frame, future)
    assert (found[:7] > 70.0).all() and (found[7:] < 40.0).all()


def test_rows_ahead_inside_the_frame_are_the_future(forecaster) -> None:
    frame = promoted()
    inside = pd.concat([frame, ahead_of(frame).assign(target=np.nan)])
    found = forecaster.predict(inside, 7, known=["promo"])
    assert found.timestamp.iloc[0] == pd.Timestamp("2024-04-30")
    np.testing.assert_array_equal(found["0.5"], medians(forecaster, frame, ahead_of(frame)))


def test_an_item_that_begins_ahead_is_forecast_too(forecaster) -> None:
    frame = promoted()
    new = ahead_of(frame).assign(target=np.nan)
    both = pd.concat([frame, new, new.assign(item_id="new")])
    found = forecaster.predict(both, 7, known=["promo"])
    assert found.groupby("item_id").timestamp.min().tolist() == [pd.Timestamp("2024-04-30")] * 2


def test_an_empty_target_before_a_table_of_the_steps_ahead_is_an_unknown_past(forecaster) -> None:
    frame = promoted()
    frame.loc[frame.index[-1], "target"] = np.nan
    found = forecaster.predict(frame, 7, known=["promo"], future=ahead_of(frame))
    assert found.timestamp.iloc[0] == pd.Timestamp("2024-04-30")


def worded(frame: pd.DataFrame) -> pd.DataFrame:
    """Promotions as texts."""
    return frame.assign(promo=np.where(frame.promo > 0, "yes", "no"))


@pytest.mark.parametrize("written", ["Yes", " yes"])
def test_a_text_that_is_written_otherwise_ahead_is_refused(forecaster, written: str) -> None:
    frame = worded(promoted())
    future = worded(ahead_of(promoted()))
    assert (medians(forecaster, frame, future) > 70.0).all()
    with pytest.raises(InvalidInputError, match=rf"'{written}' in column 'promo' .*'no', 'yes'"):
        medians(forecaster, frame, future.assign(promo=written))


def test_a_text_that_was_never_seen_is_none_of_those_that_were_and_is_told(forecaster) -> None:
    frame = worded(promoted())
    future = worded(ahead_of(promoted(), promo=0.0))
    future.loc[2:, "promo"] = "perhaps"
    with pytest.warns(TableWarning, match=r"'perhaps' .*: 5 of 7 such count as none of them"):
        medians(forecaster, frame, future)


def test_flags_that_were_words_before_are_refused_and_a_new_event_is_told(forecaster) -> None:
    frame = worded(promoted())
    flags = ahead_of(promoted()).assign(promo=True)
    with pytest.raises(InvalidInputError, match=r"'True' in column 'promo' .* write values alike"):
        medians(forecaster, frame, flags)
    rare = frame.assign(promo=frame.promo.where(frame.promo == "yes"))
    with pytest.warns(TableWarning, match="'True' .*: 7 of 7 such count as none of them"):
        medians(forecaster, rare, flags)
