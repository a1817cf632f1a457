"""Levels: what is served at a level is the network's own quantile at the level behind it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.adjust.levels import BINS, EDGES, OUTERMOST, WIRE_W, g, inverted, served
from freshet.stream.schemas import WIRE_LEVELS

# A network that says twice as many units for twice the level, up to 10.
LEVELS = [0.01, *np.arange(1, 20) / 20, 0.99]
STRAIGHT = 10.0 * np.array(LEVELS)
WIDER = np.array([0.005, 0.02, 0.05, 0.2, 0.5, 0.8, 0.95, 0.98, 0.995])


def test_what_is_served_at_90_percent_is_the_networks_own_at_the_level_behind_it() -> None:
    found = served(STRAIGHT[None], LEVELS, WIDER)[0]
    for level, behind in ((0.1, 0.05), (0.25, 0.2), (0.5, 0.5), (0.9, 0.95)):
        assert found[LEVELS.index(level)] == pytest.approx(10.0 * behind)
    # Between .75 and .9 the levels behind go from .8 to .95, in a straight line.
    assert found[LEVELS.index(0.8)] == pytest.approx(10.0 * 0.85)


def test_shares_too_small_outside_say_that_forecasts_are_too_wide() -> None:
    # Half as many PITs as should lie outside .1 and .9; the rest is even in between.
    share_B = np.diff(EDGES)
    share_B[:3] *= 0.5
    share_B[-3:] *= 0.5
    share_B[3:-3] *= 0.9 / 0.8
    map_W = dict(zip(WIRE_LEVELS, inverted(share_B), strict=True))
    # Below .1 lies .05, and between .1 and .25 .16875: .1 is reached .05/.16875 of the way.
    assert map_W[0.1] == pytest.approx(0.1 + 0.15 * 0.05 / 0.16875, abs=1e-4)
    assert map_W[0.9] == pytest.approx(1 - map_W[0.1], abs=1e-4)
    assert map_W[0.5] == 0.5


def test_even_shares_leave_every_quantile_where_it_was_to_the_last_bit() -> None:
    own = inverted(np.diff(EDGES))
    assert own.tolist() == list(WIRE_LEVELS)
    levels = list(WIRE_LEVELS)
    quantiles = np.sort(np.random.default_rng(1).gamma(1.0, 3.0, (50, 9)), axis=1)
    assert (served(quantiles, levels, own) == quantiles).all()


@given(
    st.lists(st.floats(1e-4, 1.0), min_size=BINS, max_size=BINS),
    st.lists(st.floats(0.0, 1e6), min_size=21, max_size=21),
)
def test_served_quantiles_rise_and_are_never_below_0(
    shares: list[float], quantiles: list[float]
) -> None:
    map_W = inverted(np.array(shares))
    assert (np.diff(map_W) > 0).all() and map_W[0] >= OUTERMOST and map_W[-1] < 1.0
    found = served(np.sort(np.array([quantiles])), LEVELS, map_W)
    assert (np.diff(found) >= 0).all() and (found >= 0).all()


@given(st.lists(st.floats(1e-3, 1.0), min_size=BINS, max_size=BINS))
def test_a_map_makes_the_pits_even_that_it_was_made_of(shares: list[float]) -> None:
    share_B = np.array(shares) / sum(shares)
    below_W = np.cumsum(share_B)[:-1]
    # In this share of cases actuals lie below what is served at each level.
    held_W = np.interp(inverted(share_B), WIRE_W, below_W)
    inside = (below_W[0] <= WIRE_W) & (below_W[-1] >= WIRE_W)
    steepest = (share_B / np.diff(EDGES)).max()
    assert np.abs(held_W - WIRE_W)[inside].max(initial=0.0) < 1e-4 * steepest


def test_levels_go_straight_to_0_and_1_beyond_the_outermost() -> None:
    assert g(np.array([0.005, 0.995]), WIDER).tolist() == pytest.approx([0.0025, 0.9975])
