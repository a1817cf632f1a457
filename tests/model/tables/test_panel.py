"""Cutoffs where fev puts them, and windows that no later value can change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from freshet.model.tables.panel import Panel, Rolling, Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.model.tables.told import TableWarning
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS
from tests.model.tables.windows import long_table, window_of

COLUMNS = Columns(
    "sku", "day", "sold", known=("promo", "colour"), past=("visits",), static=("price", "name")
)
SETTINGS = TableSettings(COLUMNS, "D")


@pytest.fixture
def panel() -> Panel:
    return read_panel(long_table(), SETTINGS)


def test_the_first_cutoff_lies_all_horizons_and_steps_before_the_end() -> None:
    rolling = Rolling(horizon=5, num_windows=3, window_step=2)
    assert [rolling.steps_back(index) for index in range(3)] == [9, 7, 5]
    with pytest.raises(IndexError):
        rolling.steps_back(3)


def test_a_window_and_its_actuals_join_up(panel: Panel) -> None:
    rolling = Rolling(horizon=5, num_windows=3, window_step=2)
    window, actual = rolling.window(panel, 1), rolling.actual(panel, 1)
    assert (window.context_length, window.horizon) == (53, 5)
    np.testing.assert_array_equal(np.hstack([window.target_NT, actual]), panel.target_NL[:, :58])
    np.testing.assert_array_equal(window.time_ms_NS, panel.time_ms_NL[:, :58])
    assert window.known_names == ("promo", "colour=green", "colour=red")


def poisoned(panel: Panel, steps: int) -> Panel:
    """The panel with garbage in everything at and after the cutoff but the known covariates."""
    target, past = panel.target_NL.copy(), panel.past_NLP.copy()
    target[:, -steps:], past[:, -steps:] = 1e9, -1e9
    return replace(panel, target_NL=target, past_NLP=past)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_garbage_after_the_cutoff_changes_nothing_in_a_window(panel: Panel, index: int) -> None:
    rolling = Rolling(horizon=5, num_windows=3)
    clean = rolling.window(panel, index)
    dirty = rolling.window(poisoned(panel, rolling.steps_back(index)), index)
    for name in Window.__dataclass_fields__:
        np.testing.assert_equal(getattr(clean, name), getattr(dirty, name))
    assert (rolling.actual(poisoned(panel, rolling.steps_back(index)), index) == 1e9).all()


def test_garbage_in_the_rows_of_the_table_after_the_cutoff_changes_nothing_either() -> None:
    table = long_table()
    late = (table.day >= table.day.max() - np.timedelta64(4, "D")).to_numpy()
    bad = table.assign(
        sold=np.where(late, 7e8, table.sold), visits=np.where(late, 7e8, table.visits)
    )
    bad.loc[late, ["price", "name"]] = 99.0, "garbage"
    clean = read_panel(table, SETTINGS).window(5, 5)
    with pytest.warns(TableWarning, match="'price', 'name' changes within 4 of 4 series"):
        dirty = read_panel(bad, SETTINGS).window(5, 5)
    for name in Window.__dataclass_fields__:
        np.testing.assert_equal(getattr(clean, name), getattr(dirty, name))


def test_a_window_holds_no_reference_to_what_came_later(panel: Panel) -> None:
    window = panel.window(5, 5)
    for values in (window.target_NT, window.past_NTP, window.known_NSK, window.time_ms_NS):
        assert not any(
            np.shares_memory(values, later) for later in (panel.target_NL, panel.past_NLP)
        )
        assert values.base is None or values.base.size == values.size


def test_series_too_short_for_a_window_are_left_out_of_it_alone() -> None:
    table = long_table()
    young = table[(table.sku != "sku1") | (table.day >= "2024-02-18")]
    panel = read_panel(young, SETTINGS)
    rolling = Rolling(horizon=5, num_windows=3)
    assert [len(rolling.window(panel, index)) for index in range(3)] == [3, 4, 4]
    assert rolling.actual(panel, 0).shape == (3, 5)
    assert np.isnan(rolling.window(panel, 2).target_NT[1, :48]).all()
    with pytest.raises(InvalidInputError, match="the longest has 60"):
        panel.window(60, 5)


def numbered() -> Panel:
    """Two series of 6 and 8 days in which each value tells its series, day and column.

    The shorter one ends two days before the other.
    """
    days = pd.date_range("2024-01-01", periods=8)
    number = np.arange(8.0)
    longer = pd.DataFrame({"sku": "b", "day": days, "sold": number, "price": 1.0})
    shorter = pd.DataFrame({"sku": "a", "day": days[:6], "sold": 100 + number[:6], "price": 2.0})
    table = pd.concat([longer, shorter])
    table["promo"] = 1_000 + table.sold
    table["visits"] = 2_000 + table.sold
    columns = Columns("sku", "day", "sold", ("promo",), ("visits",), ("price",))
    return read_panel(table, TableSettings(columns, "D", season_length=3, country="DE"))


def test_a_window_ends_its_past_at_the_cutoff_and_what_is_known_a_horizon_later() -> None:
    panel = numbered()
    window, actual_NH = panel.window(3, 2), panel.actual(3, 2)
    gap = [np.nan, np.nan]
    np.testing.assert_equal(window.target_NT, [[*gap, 100, 101, 102], [0, 1, 2, 3, 4]])
    np.testing.assert_equal(window.past_NTP[1, :, 0], [2_000, 2_001, 2_002, 2_003, 2_004])
    np.testing.assert_equal(window.known_NSK[0, :, 0], [*gap, *range(1_100, 1_105)])
    np.testing.assert_equal(window.known_NSK[1, :, 0], [1_000 + day for day in range(7)])
    assert actual_NH.tolist() == [[103, 104], [5, 6]]
    assert window.length_N is not None and window.length_N.tolist() == [3, 5]
    assert (window.context_length, window.horizon) == (5, 2)
    # The last step of the horizon of the shorter one: 5 January, of the longer one: 7 January.
    ends = pd.to_datetime(window.time_ms_NS[:, -1], unit="ms")
    assert [end.day for end in ends] == [5, 7]
    assert (window.item_ids, window.known_names, window.past_names) == (
        ("a", "b"),
        ("promo",),
        ("visits",),
    )
    assert (window.frequency, window.resolution_ms, window.season_length, window.country) == (
        "D",
        DAY_MS,
        3,
        "DE",
    )


def test_a_series_needs_one_step_before_the_cutoff_and_a_window_is_as_long_as_its_longest() -> None:
    panel = numbered()
    assert panel.long_enough(5).tolist() == [True, True]
    assert panel.long_enough(6).tolist() == [False, True]
    np.testing.assert_equal(panel.window(5, 1).target_NT, [[np.nan, np.nan, 100], [0, 1, 2]])
    window = panel.window(6, 6)
    assert (window.item_ids, window.target_NT.tolist()) == (("b",), [[0.0, 1.0]])
    np.testing.assert_equal(window.known_NSK[0, :, 0], range(1_000, 1_008))
    assert window.past_NTP.tolist() == [[[2_000.0], [2_001.0]]]
    assert np.diff(window.time_ms_NS[0, [0, -1]]).tolist() == [7 * DAY_MS]
    assert pd.to_datetime(window.time_ms_NS[0, -1], unit="ms").day == 8
    assert window.static["price"].tolist() == [1.0]
    assert window.length_N is not None and window.length_N.tolist() == [2]
    assert panel.actual(6, 6).tolist() == [[2, 3, 4, 5, 6, 7]]
    for steps, horizon in ((2, 3), (2, 0)):
        with pytest.raises(InvalidInputError, match=f"a horizon of {horizon} steps does not fit"):
            panel.window(steps, horizon)


def test_rows_of_a_window_are_whole_rows_in_the_order_asked_for() -> None:
    window = numbered().window(3, 2)
    for index in (np.array([1, 0]), slice(None, None, -1)):
        turned = window.rows(index)
        assert turned.item_ids == ("b", "a")
        assert turned.target_NT[:, -1].tolist() == [4.0, 102.0]
        assert turned.known_NSK[:, -1, 0].tolist() == [1_006.0, 1_104.0]
        assert turned.past_NTP[:, -1, 0].tolist() == [2_004.0, 2_102.0]
        assert turned.static["price"].tolist() == [1.0, 2.0]
        assert turned.length_N is not None and turned.length_N.tolist() == [5, 3]
        assert (np.diff(turned.time_ms_NS[:, -1]) == -2 * DAY_MS).all()
    assert window.rows(slice(1, 2)).item_ids == ("b",)


def test_the_newest_steps_are_cut_off_or_padded_in_front() -> None:
    gap, hour_ms = np.nan, DAY_MS // 24
    plain = window_of(np.array([[1.0, 2.0, 3.0], [gap, 5.0, 6.0]]), horizon=1)
    window = replace(
        plain,
        known_NSK=np.arange(8.0).reshape(2, 4, 1),
        past_NTP=np.arange(6.0).reshape(2, 3, 1),
        length_N=np.array([3, 2]),
        local_ms_NS=plain.time_ms_NS + hour_ms,
    )
    short, long = window.newest(2), window.newest(5)
    assert short.target_NT.tolist() == [[2.0, 3.0], [5.0, 6.0]]
    assert short.known_NSK[..., 0].tolist() == [[1.0, 2.0, 3.0], [5.0, 6.0, 7.0]]
    assert short.past_NTP[..., 0].tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert short.length_N is not None and short.length_N.tolist() == [2, 2]
    np.testing.assert_equal(long.target_NT, [[gap, gap, 1, 2, 3], [gap, gap, gap, 5, 6]])
    np.testing.assert_equal(long.known_NSK[0, :, 0], [gap, gap, 0, 1, 2, 3])
    np.testing.assert_equal(long.past_NTP[1, :, 0], [gap, gap, 3, 4, 5])
    assert long.length_N is not None and long.length_N.tolist() == [3, 2]
    for found, first_day in ((short, 1), (long, -2)):
        days = [day * DAY_MS for day in range(first_day, 4)]
        assert found.time_ms_NS.tolist() == [days] * 2
        assert found.local_ms_NS is not None
        assert found.local_ms_NS.tolist() == [[day_ms + hour_ms for day_ms in days]] * 2
    same = plain.newest(3)
    assert same.length_N is None and same.local_ms_NS is None
    np.testing.assert_equal(same.target_NT, plain.target_NT)


def test_windows_roll_a_horizon_apart_unless_told_and_none_lies_outside() -> None:
    rolling = Rolling(2, 2)
    assert [Rolling(4, 3).steps_back(index) for index in range(3)] == [12, 8, 4]
    assert rolling.actual(numbered(), 0).tolist() == [[102, 103], [4, 5]]
    assert rolling.actual(numbered(), 1).tolist() == [[104, 105], [6, 7]]
    assert rolling.window(numbered(), 1).target_NT[:, -1].tolist() == [103, 5]
    for index in (-1, 1):
        with pytest.raises(IndexError):
            Rolling(4).steps_back(index)
