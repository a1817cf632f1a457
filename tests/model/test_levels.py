"""Any level from the network's own: none crosses another, tails go on, the mean stays finite."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.forecaster import with_siblings
from freshet.model.levels import at_levels
from freshet.model.quantiles.marginal import distribution

OWN = np.array(QUANTILE_LEVELS)
GAPS = st.lists(st.floats(0.0, 1e6, allow_subnormal=False), min_size=21, max_size=21)
MANY = np.unique(
    np.concatenate([np.geomspace(1e-9, 0.5, 60), 1 - np.geomspace(1e-9, 0.5, 60), OWN])
)


@given(GAPS)
def test_no_level_crosses_another_and_the_networks_own_are_kept(gaps: list[float]) -> None:
    own = np.cumsum(gaps)[None, None]
    found = at_levels(own, OWN, MANY)[0, 0]
    assert (np.diff(found) >= 0.0).all() and (found >= 0.0).all() and np.isfinite(found).all()
    np.testing.assert_allclose(found[np.isin(MANY, OWN)], own[0, 0], rtol=1e-14)


@given(GAPS)
def test_a_level_alone_is_what_it_is_among_others(gaps: list[float]) -> None:
    own = np.cumsum(gaps)[None, None]
    together = at_levels(own, OWN, MANY)[0, 0]
    alone = np.array([at_levels(own, OWN, MANY[[place]])[0, 0, 0] for place in range(len(MANY))])
    np.testing.assert_allclose(alone, together, rtol=1e-9, atol=1e-9)


def test_levels_between_and_beyond_the_networks_own_by_hand() -> None:
    quantiles = np.array([[[10.0, 12.0, 20.0, 30.0]]])
    own = np.array([0.01, 0.1, 0.9, 0.99])
    # The chance falls tenfold between two levels: as far again for the next tenfold.
    asked = np.array([0.001, 0.01, 0.055, 0.5, 0.9, 0.99, 0.999, 0.9999])
    expected = [8.0, 10.0, 11.0, 16.0, 20.0, 30.0, 40.0, 50.0]
    assert at_levels(quantiles, own, asked)[0, 0].tolist() == pytest.approx(expected)


def test_an_exponential_distribution_keeps_its_own_tail() -> None:
    exponential = -np.log1p(-OWN)[None, None]
    asked = np.array([0.995, 0.999, 0.9999])
    assert at_levels(exponential, OWN, asked)[0, 0] == pytest.approx(-np.log1p(-asked))


def test_the_mean_of_the_whole_function_is_finite() -> None:
    exponential = -np.log1p(-OWN)[None, None]
    # Midpoints of a million slices; the mean of the exponential distribution is 1.
    middle = (np.arange(1_000_000) + 0.5) / 1_000_000
    assert at_levels(exponential, OWN, middle).mean() == pytest.approx(1.0, rel=0.02)


def test_nothing_sells_less_than_none_and_nothing_more_where_nothing_sells() -> None:
    low = np.array([[np.linspace(0.0, 40.0, 21), np.zeros(21), np.full(21, 5.0)]])
    found = at_levels(low, OWN, np.array([0.0001, 0.001, 0.999]))[0]
    assert found[0, 0] == 0.0 and found[1].tolist() == [0.0] * 3
    assert found[2] == pytest.approx([5.0] * 3)


def test_tails_are_those_of_the_distribution_that_scores_are_told_by() -> None:
    own = np.sort(np.random.default_rng(0).gamma(3.0, 5.0, 21))[None, None] + 50.0
    asked = np.array([0.001, 0.004, 0.3, 0.996, 0.9999])
    quantiles = at_levels(own, OWN, asked)
    chance = distribution(
        torch.from_numpy(quantiles), torch.from_numpy(own), QUANTILE_LEVELS, included=True
    )
    assert chance[0, 0].tolist() == pytest.approx(asked.tolist(), abs=1e-6)


@pytest.mark.parametrize("own_share", [0.0, 0.5])
def test_siblings_are_told_at_the_levels_of_any_network(own_share: float, drawn) -> None:
    batch = drawn[0].rows(slice(0, 1))
    levels = (0.001, 0.5, 0.999)
    H = batch.prediction_length
    exponential = torch.from_numpy(-np.log1p(-OWN)).float().expand(1, H, 21)
    told = replace(batch, own_B=torch.tensor([own_share]), pooled_BHQ=exponential)
    own = torch.zeros(1, H, 3)
    found = with_siblings(own, told, levels)[0, 0]
    tail = -np.log1p(-np.array(levels))
    # The lower tail of an exponential distribution is no exponential one: at .001 it is below 0.
    expected = (1.0 - own_share) * np.array([0.0, tail[1], tail[2]])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=0.01)
