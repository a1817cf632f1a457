"""Training windows of a table in which every value tells its series and step."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
import torch

from freshet.model.batch import Batch
from freshet.model.effects.slots import Dressed, dress
from freshet.model.features import CLOSED, EFFECT, PROMOTION
from freshet.model.network import FreshetConfig
from freshet.model.training import windows
from freshet.model.training.windows import PastWindows, shared_shocks
from freshet.stream.arrays import Floats
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS
from tests.model.tables.windows import window_of

STEPS, HORIZON, LAST = 120, 14, 106
CONFIG = FreshetConfig(context_length=128)
NAN = np.nan
BEGINS = (0, 73, 72, 10)  # the second has one step too few before the newest horizon


def told(series: int, step: int) -> float:
    return 1_000.0 * (series + 1) + step


@pytest.fixture
def shop() -> Dressed:
    """Four series of 120 days that begin on different ones; a flag that differs by step."""
    target = np.array([[told(row, step) for step in range(STEPS)] for row in range(4)])
    for row, begin in enumerate(BEGINS):
        target[row, :begin] = NAN
    target[3, 50] = NAN
    dressed = dress(window_of(target, horizon=HORIZON))
    dressed.known_NSK[..., PROMOTION] = np.arange(STEPS + HORIZON)
    return replace(dressed, taught_NS=np.full((4, STEPS + HORIZON), 0.25, np.float32))


def ends_of(batch: Batch, actual_BH: torch.Tensor) -> list[tuple[int, int]]:
    """The (series, first step after the cutoff) of each row, from what its last step holds."""
    promo_B = batch.known_BSK[:, batch.context_length, PROMOTION]
    series_B = batch.target_BT.nan_to_num(0.0).amax(1) // 1_000 - 1
    return list(zip(series_B.long().tolist(), promo_B.long().tolist(), strict=True))


def test_a_window_is_what_lay_before_its_cutoff_and_what_came_before_the_newest_horizon(
    shop: Dressed,
) -> None:
    sampler = PastWindows(shop, HORIZON, CONFIG)
    assert sampler.rows.tolist() == [0, 2, 3]
    batch, actual_BH = sampler(torch.Generator().manual_seed(0), 3_000)
    # The longest history that was drawn is 105 days; whole patches of 16 hold it.
    assert (batch.context_length, batch.prediction_length) == (112, 16)
    ends = ends_of(batch, actual_BH)
    target = shop.target_NT
    for place, (row, end) in enumerate(ends):
        expected = np.full(112, NAN)
        expected[112 - end :] = target[row, :end]
        np.testing.assert_equal(batch.target_BT[place].numpy(), expected)
        labels = [target[row, step] if step < LAST else NAN for step in range(end, end + 16)]
        np.testing.assert_equal(actual_BH[place].numpy(), labels)
    # A series has 32 days before its first window, or half of all if that is more.
    of_row = {row: {end for series, end in ends if series == row} for row in (0, 2, 3)}
    assert {row: (min(found), max(found)) for row, found in of_row.items()} == {
        0: (53, 105),
        2: (104, 105),
        3: (53, 105),
    }
    assert len(of_row[0]) == 53
    # What training may know of the effects, and whole weeks of other dates.
    seen_BS = batch.known_BSK[..., PROMOTION].isfinite()
    assert (batch.known_BSK[..., EFFECT][seen_BS] == 0.25).all()
    moved = [
        (start - (end - 112) * DAY_MS) / WEEK_MS
        for start, (_, end) in zip(batch.start_ms_B.tolist(), ends, strict=True)
    ]
    assert all(weeks == round(weeks) for weeks in moved)
    assert (min(moved), max(moved)) == (-150, 150) and len(set(moved)) == 301


def test_a_short_context_is_taken_whole_and_lets_windows_begin_earlier(shop: Dressed) -> None:
    sampler = PastWindows(shop, HORIZON, FreshetConfig(context_length=32))
    batch, actual_BH = sampler(torch.Generator().manual_seed(0), 2_000)
    assert batch.context_length == 32
    ends = ends_of(batch, actual_BH)
    assert min(end for row, end in ends if row == 0) == 32
    assert min(end for row, end in ends if row == 3) == 42
    # Half a context is enough where the history is longer.
    assert PastWindows(shop, HORIZON, FreshetConfig(context_length=96)).lowest.tolist() == [
        *(48, 104, 48)
    ]
    # Of a history of 20 days half must lie before.
    young = dress(window_of(shop.target_NT[:1, :34].astype(float), horizon=HORIZON))
    assert PastWindows(young, HORIZON, CONFIG).lowest.tolist() == [10]


def test_months_keep_their_dates_and_weeks_do_not(shop: Dressed) -> None:
    for days, moves in ((30, False), (7, True)):
        longer = replace(shop, resolution_ms=days * DAY_MS, time_ms_NS=shop.time_ms_NS * days)
        batch, actual_BH = PastWindows(longer, HORIZON, CONFIG)(
            torch.Generator().manual_seed(0), 99
        )
        shown = [(end - 112) * days * DAY_MS for _, end in ends_of(batch, actual_BH)]
        assert (batch.start_ms_B.tolist() != shown) == moves


def test_the_hold_out_is_the_newest_horizon_of_some_series_in_order(
    shop: Dressed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "HOLD_OUT_ROWS", 2)
    sampler = PastWindows(shop, HORIZON, CONFIG)
    drawn = set()
    for seed in range(9):
        batch, actual_BH = sampler.hold_out(seed)
        rows = [row for row, _ in ends_of(batch, actual_BH)]
        drawn.add(tuple(rows))
        assert (batch.context_length, batch.start_ms_B.tolist()) == (128, [-22 * DAY_MS] * 2)
        np.testing.assert_equal(batch.target_BT[:, 22:].numpy(), shop.target_NT[rows, :LAST])
        np.testing.assert_equal(actual_BH[:, :HORIZON].numpy(), shop.target_NT[rows, LAST:])
        assert actual_BH[:, HORIZON:].isnan().all()
        assert (batch.known_BSK[:, 22:-2, EFFECT] == 0.25).all()
    assert drawn == {(0, 2), (0, 3), (2, 3)}


# Shocks that all series share ---------------------------------------------------------------------


def weeks_of_others(sampler: PastWindows) -> set[int]:
    """The weeks from which other shocks are taken, once these are seen to be the same weekdays'."""
    plain = sampler(torch.Generator().manual_seed(3), 500)
    sampler.shocks_T = 0.001 * np.arange(sampler.last)  # every shock tells its step
    batch, actual_BH = sampler(torch.Generator().manual_seed(3), 500)
    assert torch.equal(batch.target_BT.nan_to_num(), plain[0].target_BT.nan_to_num())
    steps_BH = torch.log(actual_BH.double() / plain[1].double()) / 0.001
    weeks = set()
    for row, (_, end) in enumerate(ends_of(batch, actual_BH)):
        first = None
        for step in range(sampler.horizon):
            if plain[1][row, step].isnan():
                continue
            other = float(steps_BH[row, step]) + end + step
            assert other == pytest.approx(round(other), abs=0.05)
            first = round(other) - step if first is None else first
            assert round(other) == min(first + step, sampler.last - 1)
            assert first % 7 == end % 7
        assert first is not None
        weeks.add(first // 7)
    return weeks


def test_each_label_has_its_own_shock_exchanged_for_that_of_the_same_weekdays_in_the_past(
    shop: Dressed,
) -> None:
    sampler = PastWindows(shop, HORIZON, CONFIG)
    assert sampler.shocks_T is None, "four series tell no shock"
    weeks = weeks_of_others(sampler)
    # Whole horizons of 16 days before the newest one: the first of 12 weeks and 6 days.
    assert weeks == set(range(12))
    # Before a horizon of 64 days there is but one week, and its stretch ends with the past.
    short = PastWindows(shop, 56, CONFIG)
    assert (short.horizon, short.last) == (64, 64)
    assert weeks_of_others(short) == {0}


def shocked(series: int = 40) -> Floats:
    """Shops of 100 to 490 a day that all sell a quarter on 100 and e^3 times as much on 150.

    On day 100 a few sell as usual, on day 130 a few sell double.
    """
    target = np.tile(100.0 + 10.0 * np.arange(series)[:, None], (1, 220))
    target[10:, 100] *= 0.25
    target[:10, 130] *= 2.0
    target[:, 150] *= np.exp(3.0)
    return np.rint(target)


def test_a_shock_is_what_most_series_did_alike_on_a_date_and_is_gone_soon() -> None:
    dressed = dress(window_of(shocked(), horizon=HORIZON))
    shocks_T = shared_shocks(dressed, 206)
    assert shocks_T is not None and shocks_T.shape == (206,)
    # The mean of the 57 days around, in which the shocks themselves are two, is taken off.
    around = (np.log(0.25) + 3.0) / 57
    assert shocks_T[100] == pytest.approx(-1.0), "log .25 is beyond the bound of 1"
    assert shocks_T[150] == 1.0
    assert abs(shocks_T[130]) < abs(around) + 0.05
    plain_T = np.delete(shocks_T, [100, 150])
    assert np.abs(plain_T).max() < 0.25, "the same weekdays expect a little of it"
    # Nothing from the end on is looked at.
    late_NT = dressed.target_NT.copy()
    late_NT[:, 206:] = 7.0
    late = shared_shocks(replace(dressed, target_NT=late_NT), 206)
    np.testing.assert_array_equal(late, shocks_T)
    sampler = PastWindows(dressed, HORIZON, CONFIG)
    np.testing.assert_array_equal(sampler.shocks_T, shocks_T)


def test_a_shock_is_in_log_units_less_the_mean_of_four_weeks_on_either_side() -> None:
    target = np.tile(1_000.0 + 10.0 * np.arange(30)[:, None], (1, 200))
    target[:, 90] *= np.exp(0.5)
    dressed = dress(window_of(np.rint(target), horizon=HORIZON))
    shocks_T = shared_shocks(dressed, 180)
    assert shocks_T is not None
    assert shocks_T[90] == pytest.approx(0.5 * 56 / 57, abs=0.03)
    left_BT = windows._left_over(dressed, np.arange(30), 180)
    median_T = [statistics.median(values) for values in left_BT.T.tolist()]
    for day in (0, 20, 28, 90, 118, 119, 160, 179):
        around = median_T[max(0, day - 28) : day + 29]
        expected = median_T[day] - sum(around) / len(around)
        assert shocks_T[day] == pytest.approx(expected, abs=0.002), day


def test_a_shop_that_is_closed_on_a_weekday_has_shocks_on_other_days() -> None:
    target = shocked()
    target[:, np.arange(220) % 7 == 5] = 0.0
    dressed = dress(window_of(target, horizon=HORIZON))
    assert (dressed.known_NSK[..., CLOSED] == (np.arange(234) % 7 == 5)).all()
    shocks_T = shared_shocks(dressed, 206)
    assert shocks_T is not None and shocks_T[[100, 150]].tolist() == [-1.0, 1.0]


def test_series_that_are_missing_on_a_date_have_no_part_in_its_shock() -> None:
    target = np.tile(1_000.0 + 10.0 * np.arange(30)[:, None], (1, 200))
    target[:, 90] *= np.exp(0.5)
    target[:18, 90] = NAN
    shocks_T = shared_shocks(dress(window_of(np.rint(target), horizon=HORIZON)), 180)
    assert shocks_T is not None
    assert shocks_T[90] == pytest.approx(0.5 * 56 / 57, abs=0.03)


def test_few_series_other_dates_and_other_steps_tell_no_shock() -> None:
    dressed = dress(window_of(shocked(30)[:, 90:170], horizon=HORIZON))
    assert shared_shocks(dressed, 58) is not None
    assert shared_shocks(dressed, 57) is None, "eight weeks and a day are the mean of one day"
    few = dress(window_of(shocked(29)[:, 90:170], horizon=HORIZON))
    assert shared_shocks(few, 70) is None
    time_ms_NS = dressed.time_ms_NS.copy()
    time_ms_NS[29] += DAY_MS
    assert shared_shocks(replace(dressed, time_ms_NS=time_ms_NS), 70) is None
    for resolution_ms, some in (
        (HOUR_MS, False),
        (DAY_MS - 1, False),
        (WEEK_MS, True),
        (WEEK_MS + 1, False),
    ):
        other = shared_shocks(replace(dressed, resolution_ms=resolution_ms), 70)
        assert (other is not None) == some
