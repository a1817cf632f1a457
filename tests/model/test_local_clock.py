"""Steps go where the shop's clock has their time, through nights of 23, 24 and 25 hours."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.forecaster import BatchForecaster
from freshet.model.local_clock import even
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS

BERLIN = "Europe/Berlin"
NAN = math.nan


def clock(zone: str, first: datetime, steps: int, resolution_ms: int) -> list[int]:
    """What the zone's clock shows at each of some steps that are even in UTC, by `zoneinfo`."""
    shown = []
    for step in range(steps):
        moment = first + timedelta(milliseconds=step * resolution_ms)
        local = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=UTC)
        shown.append(int(local.timestamp()) * 1_000)
    return shown


def batch_of(
    target: list[float], shown_ms: list[int], start: datetime, resolution_ms: int = HOUR_MS
) -> Batch:
    """One row whose known slots count the steps; units as they are given."""
    T, S = len(target), len(shown_ms)
    known_1SK = torch.arange(float(S))[None, :, None].expand(1, S, len(KNOWN_SLOTS))
    past_1TP = torch.arange(float(T))[None, :, None].expand(1, T, len(PAST_SLOTS))
    return Batch(
        target_BT=torch.tensor([target]),
        past_BTP=past_1TP.clone(),
        known_BSK=known_1SK.clone(),
        static_BF=torch.zeros(1, 3),
        start_ms_B=torch.tensor([int(start.timestamp()) * 1_000]),
        resolution_ms=resolution_ms,
        local_ms_BS=torch.tensor([shown_ms]),
    )


def listed(values: Tensor) -> list[float | None]:
    """Numbers of one row, None where missing."""
    return [None if math.isnan(value) else value for value in values[0].tolist()]


def test_without_a_clock_nothing_changes_and_an_even_clock_moves_the_start_alone() -> None:
    first = datetime(2026, 6, 1, 22, tzinfo=UTC)
    batch = batch_of([1.0, 2.0, 3.0, 4.0], clock(BERLIN, first, 6, HOUR_MS), first)
    plain = replace(batch, local_ms_BS=None)
    assert even(plain).batch is plain and even(plain).place_BH is None
    found, place_BH = even(batch)
    assert place_BH is None and found.local_ms_BS is None
    assert found.start_ms_B.item() - batch.start_ms_B.item() == 2 * HOUR_MS
    assert found.target_BT is batch.target_BT and found.known_BSK is batch.known_BSK


def test_the_hour_that_a_spring_night_lacks_is_a_missing_step_of_the_past() -> None:
    # 29 March 2026: 0, 1, 3, 4, 5 o'clock.
    first = datetime(2026, 3, 28, 23, tzinfo=UTC)
    batch = batch_of([10.0, 11.0, 13.0, 14.0], clock(BERLIN, first, 5, HOUR_MS), first)
    found, place_BH = even(batch)
    assert listed(found.target_BT) == [11.0, None, 13.0, 14.0]
    assert listed(found.past_BTP[..., 0]) == [1.0, None, 2.0, 3.0]
    assert listed(found.known_BSK[..., 0]) == [1.0, 1.0, 2.0, 3.0, 4.0]
    assert found.start_ms_B.item() == datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp() * 1_000
    assert place_BH is not None and place_BH.tolist() == [[0]]


def test_the_hour_that_a_spring_night_lacks_is_passed_over_ahead() -> None:
    first = datetime(2026, 3, 28, 23, tzinfo=UTC)
    batch = batch_of([10.0], clock(BERLIN, first, 4, HOUR_MS), first)
    found, place_BH = even(batch)
    # 1 o'clock, (2), 3, 4: four even steps for three hours.
    assert place_BH is not None and place_BH.tolist() == [[0, 2, 3]]
    assert found.prediction_length == 4 and found.target_BT.tolist() == [[10.0]]
    assert listed(found.known_BSK[..., 0]) == [0.0, 1.0, 1.0, 2.0, 3.0]


def test_right_after_the_night_the_missing_hour_is_the_newest_step() -> None:
    first = datetime(2026, 3, 28, 23, tzinfo=UTC)
    batch = batch_of([10.0, 11.0], clock(BERLIN, first, 4, HOUR_MS), first)
    found, place_BH = even(batch)
    assert listed(found.target_BT) == [11.0, None]
    assert found.prediction_length == 2 and place_BH is not None and place_BH.tolist() == [[0, 1]]


def test_of_an_hour_that_comes_twice_the_later_one_is_kept() -> None:
    # 25 October 2026: 0, 1, 2, 2, 3 o'clock.
    first = datetime(2026, 10, 24, 22, tzinfo=UTC)
    batch = batch_of([10.0, 11.0, 12.0, 22.0, 13.0], clock(BERLIN, first, 6, HOUR_MS), first)
    found, place_BH = even(batch)
    assert listed(found.target_BT) == [None, 10.0, 11.0, 22.0, 13.0]
    assert listed(found.known_BSK[..., 0]) == [None, 0.0, 1.0, 3.0, 4.0, 5.0]
    assert found.start_ms_B.item() == datetime(2026, 10, 24, 23, tzinfo=UTC).timestamp() * 1_000
    assert place_BH is not None and place_BH.tolist() == [[0]]


def test_an_hour_that_comes_twice_ahead_has_one_forecast() -> None:
    first = datetime(2026, 10, 24, 23, tzinfo=UTC)
    batch = batch_of([11.0], clock(BERLIN, first, 5, HOUR_MS), first)
    found, place_BH = even(batch)
    assert place_BH is not None and place_BH.tolist() == [[0, 0, 1, 2]]
    assert found.prediction_length == 3
    assert listed(found.known_BSK[..., 0]) == [0.0, 2.0, 3.0, 4.0]


def test_between_the_two_equal_hours_the_one_behind_is_left_out() -> None:
    # The clock showed two already and shows it again: nothing of the past may lie ahead.
    first = datetime(2026, 10, 24, 22, tzinfo=UTC)
    batch = batch_of([10.0, 11.0, 12.0], clock(BERLIN, first, 5, HOUR_MS), first)
    found, place_BH = even(batch)
    assert listed(found.target_BT) == [None, 10.0, 11.0]
    assert place_BH is not None and place_BH.tolist() == [[0, 1]]


def test_minutes_have_a_gap_of_sixty_and_buckets_of_two_or_six_hours_none() -> None:
    first = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
    shown = clock(BERLIN, first, 130, MINUTE_MS)
    found, _ = even(batch_of([1.0] * 100, shown, first, MINUTE_MS))
    # 30 minutes until 2 o'clock, 70 from 3 o'clock on: the last hundred hold 70 and the gap's half.
    assert found.target_BT.isnan().tolist() == [[True] * 30 + [False] * 70]
    first = datetime(2026, 3, 28, 12, tzinfo=UTC)
    shown = clock(BERLIN, first, 6, 6 * HOUR_MS)
    found, place_BH = even(batch_of([1.0, 2.0, 3.0], shown, first, 6 * HOUR_MS))
    assert place_BH is None or place_BH.tolist() == [[0, 1, 2]]
    assert listed(found.target_BT) == [1.0, 2.0, 3.0]
    # 23, 1 and then 4 o'clock: five hours and three before the cutoff are two steps and one.
    first = datetime(2026, 3, 28, 22, tzinfo=UTC)
    shown = clock(BERLIN, first, 4, 2 * HOUR_MS)
    found, _ = even(batch_of([1.0, 2.0], shown, first, 2 * HOUR_MS))
    assert listed(found.target_BT) == [1.0, 2.0]


def test_days_of_uneven_hours_are_even_days() -> None:
    zone = ZoneInfo("America/New_York")
    days = [datetime(2026, 3, 6, tzinfo=zone) + timedelta(days=day) for day in range(5)]
    shown = [int(day.replace(tzinfo=UTC).timestamp()) * 1_000 for day in days]
    batch = batch_of([1.0, 2.0, 3.0], shown, days[0], DAY_MS)
    found, place_BH = even(batch)
    assert place_BH is None and found.start_ms_B.item() % DAY_MS == 0
    assert found.start_ms_B.item() == datetime(2026, 3, 6, tzinfo=UTC).timestamp() * 1_000


def test_each_row_has_its_own_night() -> None:
    march, june = datetime(2026, 3, 28, 23, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    spring = batch_of([10.0, 11.0], clock(BERLIN, march, 5, HOUR_MS), march)
    plain = batch_of([10.0, 11.0], clock(BERLIN, june, 5, HOUR_MS), june)
    rows = [even(spring), even(plain)]
    both = Batch(
        torch.cat([spring.target_BT, plain.target_BT]),
        torch.cat([spring.past_BTP, plain.past_BTP]),
        torch.cat([spring.known_BSK, plain.known_BSK]),
        torch.zeros(2, 3),
        torch.cat([spring.start_ms_B, plain.start_ms_B]),
        HOUR_MS,
        local_ms_BS=torch.cat([spring.local_ms_BS, plain.local_ms_BS]),  # type: ignore[list-item]
    )
    found, place_BH = even(both)
    assert place_BH is not None and place_BH[1].tolist() == [0, 1, 2]
    for row, (alone, _) in enumerate(rows):
        assert found.start_ms_B[row] == alone.start_ms_B[0]
        assert torch.equal(found.target_BT[row].nan_to_num(-1), alone.target_BT[0].nan_to_num(-1))


# Forecasts ----------------------------------------------------------------------------------------


@pytest.fixture
def forecaster(tiny_network) -> BatchForecaster:
    return BatchForecaster(tiny_network, device="cpu", dtype="float32")


def shop_of(first: datetime, steps: int, horizon: int, peak: int) -> Batch:
    """Hours that sell 40 when Berlin's clock shows `peak`, 4 otherwise; features unknown."""
    shown = clock(BERLIN, first, steps + horizon, HOUR_MS)
    target = [40.0 if ms // HOUR_MS % 24 == peak else 4.0 for ms in shown[:steps]]
    batch = batch_of(target, shown, first)
    return replace(
        batch,
        known_BSK=torch.full_like(batch.known_BSK, NAN),
        past_BTP=torch.full_like(batch.past_BTP, NAN),
        static_BF=torch.zeros(1, 262),
    )


@pytest.mark.parametrize(
    ("night", "hours"), [(datetime(2026, 3, 29), 23), (datetime(2026, 10, 25), 25)]
)
def test_a_peak_stays_at_its_hour_of_the_clock_through_the_night(
    forecaster: BatchForecaster, night: datetime, hours: int
) -> None:
    midnight = night.replace(tzinfo=ZoneInfo(BERLIN))
    assert (midnight + timedelta(days=1)).timestamp() - midnight.timestamp() == hours * 3_600
    # Cutoffs at the midnights before and after the night.
    for cutoff, ahead in ((midnight, hours), (midnight + timedelta(days=1), 24)):
        utc = cutoff.astimezone(UTC)
        batch = shop_of(utc - timedelta(hours=120), 120, 28, peak=19)
        median_H = forecaster.forecast(batch)[0, :, 10]
        at = 19 if ahead == 24 else 19 + hours - 24
        assert int(median_H[:ahead].argmax()) == at
        # The same steps by UTC have their peak an hour off.
        if cutoff != midnight:
            plain_H = forecaster.forecast(replace(batch, local_ms_BS=None))[0, :, 10]
            assert int(plain_H[:24].argmax()) != at


def test_a_clock_that_shows_utc_gives_the_same_bits(forecaster: BatchForecaster) -> None:
    first = datetime(2026, 5, 1, tzinfo=UTC)
    batch = shop_of(first, 100, 24, peak=19)
    shown_ms_1S = batch.start_ms_B[:, None] + torch.arange(124) * HOUR_MS
    expected = forecaster.forecast(replace(batch, local_ms_BS=None))
    assert torch.equal(forecaster.forecast(replace(batch, local_ms_BS=shown_ms_1S)), expected)


def test_a_clock_of_other_steps_is_refused() -> None:
    first = datetime(2026, 5, 1, tzinfo=UTC)
    batch = shop_of(first, 10, 4, peak=3)
    assert batch.local_ms_BS is not None
    with pytest.raises(InvalidInputError, match="local_ms_BS"):
        replace(batch, local_ms_BS=batch.local_ms_BS[:, :10]).validate()
    with pytest.raises(AssertionError, match="even steps"):
        batch.arguments()
