"""Calendar phases and detected periods against the calendar and planted seasons."""

from __future__ import annotations

import calendar
import math
from datetime import date

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
