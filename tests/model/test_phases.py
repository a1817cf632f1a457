"""Calendar phases and detected periods against the calendar and planted seasons."""

from __future__ import annotations

import calendar
import math
from datetime import UTC, date, datetime

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model import phases
from freshet.stream.units import DAY_MS, HOUR_MS


@settings(max_examples=60, deadline=None)
@given(st.dates(date(1960, 1, 1), date(2100, 12, 31)))
def test_the_place_in_the_month_is_the_calendars(day: date) -> None:
    time = torch.tensor([[(day - date(1970, 1, 1)).days * DAY_MS]])
    length = 30 if day.month == 2 else calendar.monthrange(day.year, day.month)[1]
    assert phases.month_turn(time).item() == pytest.approx((day.day - 1) / length)


def test_the_detected_period_is_the_planted_one() -> None:
    steps = torch.arange(300)
    rows = [torch.cos(2 * math.pi * steps / period) for period in (7, 24, 52)]
    z_BT = torch.stack([*rows, torch.randn(300, generator=torch.Generator().manual_seed(1))])
    assert phases.detect_period(z_BT, torch.ones_like(z_BT), none=9_999).tolist() == [
        7,
        24,
        52,
        9_999,
    ]


def test_phases_tell_the_hour_and_the_monday() -> None:
    # 2024-01-01 00:00 UTC was a Monday.
    start_B = torch.tensor([1_704_067_200_000])
    channels = phases.phase_channels(start_B, HOUR_MS, range(24), torch.tensor([10_000]))[0]
    sine_day, sine_week, cosine_day, cosine_week = (channels[:, i] for i in (0, 1, 5, 6))
    assert sine_day[6].item() == pytest.approx(1.0, abs=1e-6)
    assert cosine_day[12].item() == pytest.approx(-1.0, abs=1e-6)
    assert (sine_week[0].item(), cosine_week[0].item()) == pytest.approx((0.0, 1.0), abs=1e-6)
    assert bool((channels[:, 4] == 0).all()), "no detected period: its phase stands still"


@pytest.mark.parametrize(
    ("resolution_ms", "periods"),
    [
        (HOUR_MS, (24, 168)),
        (6 * HOUR_MS, (4, 28)),
        (12 * HOUR_MS, (2, 14)),
        (DAY_MS, (7, 365)),
        (7 * DAY_MS, (52, 52)),
        (30 * DAY_MS, (12, 12)),
        (365 * DAY_MS, (2, 2)),
    ],
)
def test_the_seasons_of_a_step_are_the_two_shortest_that_hold_two(
    resolution_ms: int, periods: tuple[int, int]
) -> None:
    assert phases.calendar_periods(resolution_ms) == periods


def test_each_channel_is_the_angle_of_its_own_cycle() -> None:
    # Friday, 16 February 2024, 18:00: three quarters of a day, 4.75 of seven days, 15.75 of 30.
    moment = datetime(2024, 2, 16, 18, tzinfo=UTC)
    time_ms = int(moment.timestamp()) * 1_000
    before_ms = time_ms - 100 * HOUR_MS
    period_B = torch.tensor([8])
    found = phases.phase_channels(torch.tensor([before_ms]), HOUR_MS, range(100, 103), period_B)
    assert found.shape == (1, 3, phases.NUM_PHASE_CHANNELS)
    year = time_ms % 31_556_952_000 / 31_556_952_000
    turns = [0.75, 4.75 / 7, 15.75 / 30, year, 0.0]
    hours_later = [0.75 + 2 / 24, (4.75 + 2 / 24) / 7, (15.75 + 2 / 24) / 30,
                   year + 2 * HOUR_MS / 31_556_952_000, 2 / 8]  # fmt: skip
    for step, places in ((0, turns), (2, hours_later)):
        angles = [2 * math.pi * place for place in places]
        expected = [*map(math.sin, angles), *map(math.cos, angles)]
        assert found[0, step].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_period_is_none_from_twice_the_steps_on() -> None:
    period_B = torch.tensor([23, 24])
    moving, still = phases.phase_channels(
        torch.zeros(2, dtype=torch.int64), DAY_MS, range(8, 12), period_B
    )
    assert moving[1, 4].item() == pytest.approx(math.sin(2 * math.pi / 23))
    assert still[:, 4].tolist() == [0.0] * 4 and still[:, 9].tolist() == [1.0] * 4


def noisy(period: float, steps: int = 200, *, seed: int = 0, noise: float = 0.3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    wave_T = torch.cos(2 * math.pi * torch.arange(steps) / period)
    return (wave_T + noise * torch.randn(steps, generator=generator))[None]


def test_a_period_must_have_been_seen_twice_and_gaps_do_not_hide_it() -> None:
    z_BT = noisy(40)
    half_BT = torch.ones_like(z_BT)
    assert phases.detect_period(z_BT, half_BT, none=0).item() == pytest.approx(40, abs=1)
    # Of 70 steps, none of 40 was seen twice.
    half_BT[:, :130] = 0.0
    assert phases.detect_period(z_BT * half_BT, half_BT, none=0).item() < 40
    gaps_BT = (torch.rand(1, 200, generator=torch.Generator().manual_seed(3)) > 0.3).float()
    found = phases.detect_period((z_BT + 50.0) * gaps_BT, gaps_BT, none=0)
    assert found.item() == pytest.approx(40, abs=1), "gaps and a level do not matter"


def test_the_shortest_of_nearly_equal_periods_is_meant() -> None:
    # Seven and all its multiples are equally like it.
    z_BT = noisy(7, 294, noise=0.3, seed=1)
    assert phases.detect_period(z_BT, torch.ones_like(z_BT), none=0).item() == 7


def test_a_short_or_constant_or_empty_row_has_no_period() -> None:
    rows = [noisy(3, 10, noise=0.0), torch.full((1, 60), 3.0), torch.zeros(1, 60)]
    for z_BT in rows:
        assert phases.detect_period(z_BT, torch.ones_like(z_BT), none=99).item() == 99
    assert phases.detect_period(rows[2], torch.zeros(1, 60), none=99).item() == 99
