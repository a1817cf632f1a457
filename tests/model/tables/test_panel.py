"""Cutoffs where fev puts them, and windows that no later value can change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from freshet.model.tables.panel import Panel, Rolling, Window
from freshet.model.tables.table import Columns, TableSettings, read_panel
from freshet.stream.errors import InvalidInputError
from tests.model.tables.windows import long_table

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
