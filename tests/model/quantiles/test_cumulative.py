"""Sums over steps have a simulation's quantiles; what steps have in common is found again."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freshet.model.network import QUANTILE_LEVELS
from freshet.model.quantiles.cumulative import Paths, path_quantiles
from freshet.model.quantiles.dependence import (
    INDEPENDENT,
    Dependence,
    default_dependence,
    estimate_dependence,
)
from freshet.model.quantiles.marginal import distribution, places, quantile_weights
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS

LEVELS = QUANTILE_LEVELS
AT = {level: column for column, level in enumerate(LEVELS)}
MOOD = Dependence(0.2, 0.4, 0.8)


def correlated(dependence: Dependence, rows: int, steps: int, seed: int = 0) -> np.ndarray:
    """Standard normal (or t) numbers by the definition: [rows, steps].

    One factor, one moving mood, own noise.
    """
    rng = np.random.default_rng(seed)
    mood = np.empty((rows, steps))
    mood[:, 0] = rng.normal(size=rows)
    for step in range(1, steps):
        fresh = np.sqrt(1 - dependence.decay**2) * rng.normal(size=rows)
        mood[:, step] = dependence.decay * mood[:, step - 1] + fresh
    own = 1 - dependence.common - dependence.persistent
    parts = (dependence.common, rng.normal(size=(rows, 1))), (dependence.persistent, mood)
    latent = sum(
        np.sqrt(share) * part for share, part in (*parts, (own, rng.normal(size=(rows, steps))))
    )
    if dependence.freedom:
        latent = latent / np.sqrt(rng.chisquare(dependence.freedom, (rows, 1)) / dependence.freedom)
    return latent


def uniform(dependence: Dependence, rows: int, steps: int, seed: int = 0) -> np.ndarray:
    """Places in (0, 1) whose latent numbers are `correlated`."""
    latent = correlated(dependence, rows, steps, seed)
    ranked = latent.argsort(0).argsort(0)
    return (ranked + 0.5) / rows


def normal_steps(mean: float, deviation: float, steps: int) -> torch.Tensor:
    row = [NormalDist(mean, deviation).inv_cdf(level) for level in LEVELS]
    return torch.tensor(row).expand(1, steps, -1).contiguous()


# Sums ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freedom", [0, 3])
@pytest.mark.parametrize(
    "parts", [(0.0, 0.0, 0.0), (0.3, 0.0, 0.5), (0.1, 0.5, 0.8), (0.9, 0.05, 0.5)]
)
def test_sums_have_the_quantiles_of_a_simulation(parts, freedom) -> None:
    dependence = Dependence(*parts, freedom=freedom)
    steps = 12
    rng = np.random.default_rng(3)
    shapes = rng.uniform(0.5, 8.0, steps)
    draws = np.sort(rng.gamma(shapes, 10.0, (40_000, steps)), axis=0)
    quantiles = torch.tensor(np.quantile(draws, LEVELS, axis=0).T[None], dtype=torch.float32)
    found = (
        Paths(dependence, LEVELS, steps, num_paths=4096).cumulative(quantiles, [3, 12])[0].numpy()
    )
    row = (uniform(dependence, 40_000, steps) * 40_000).astype(int)
    sums = np.take_along_axis(draws, row, 0).cumsum(1)
    for k, step in enumerate((3, 12)):
        for level in (0.05, 0.25, 0.5, 0.75, 0.95):
            expected = np.quantile(sums[:, step - 1], level)
            assert found[k, AT[level]] == pytest.approx(expected, rel=0.035), (step, level)


def test_independent_normal_steps_add_their_variances_and_bound_ones_their_quantiles() -> None:
    quantiles = normal_steps(100.0, 10.0, 16)
    apart = Paths(INDEPENDENT, LEVELS, 16).cumulative(quantiles, [16])[0, 0]
    bound = Paths(Dependence(1.0, 0.0, 0.0, freedom=0), LEVELS, 16).cumulative(quantiles, [16])[
        0, 0
    ]
    assert float(apart[AT[0.9]]) == pytest.approx(NormalDist(1600, 40).inv_cdf(0.9), abs=2.0)
    assert float(bound[AT[0.9]]) == pytest.approx(16 * NormalDist(100, 10).inv_cdf(0.9), rel=0.01)
    assert float(apart[AT[0.5]]) == pytest.approx(1600, abs=2.0)


@settings(deadline=None, max_examples=25)  # the machine may be busy
@given(st.integers(0, 10**6), st.integers(1, 20), st.booleans())
def test_sums_rise_with_levels_and_steps_and_start_with_the_first_step(
    seed: int, steps: int, whole: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    quantiles = (
        (torch.rand(5, steps, 21, generator=generator) * 30 - 5).clamp(min=0).sort(-1).values
    )
    sums = Paths(MOOD, LEVELS, 20, num_paths=64).cumulative(
        quantiles, list(range(1, steps + 1)), torch.full((5,), whole)
    )
    first, own = sums[:, 0, 2:-2], quantiles[:, 0, 2:-2]
    assert bool(((first - own).abs() < 3.0).all()) if whole else torch.equal(first, own)
    assert bool((sums.diff(dim=1) >= 0).all()) and bool((sums.diff(dim=2) >= 0).all())


def test_paths_meet_the_distribution_of_every_step() -> None:
    quantiles = (
        torch.rand(3, 8, 21, generator=torch.Generator().manual_seed(1)).sort(-1).values * 50
    )
    values = Paths(MOOD, LEVELS, 8).values(quantiles)
    even = (torch.arange(512, dtype=torch.float64) + 0.5) / 512
    torch.testing.assert_close(
        values.sort(-1).values, (quantiles @ quantile_weights(LEVELS, even)).sort(-1).values
    )


def test_a_sum_along_paths_is_what_the_sums_quantiles_come_from() -> None:
    quantiles = (
        torch.rand(200, 6, 21, generator=torch.Generator().manual_seed(2)).sort(-1).values * 9
    )
    whole = torch.arange(200) % 2 == 0
    paths = Paths(MOOD, LEVELS, 6)
    expected = path_quantiles(paths.values(quantiles, whole).sum(1), LEVELS)
    torch.testing.assert_close(
        paths.cumulative(quantiles, [6], whole)[:, 0], expected, rtol=1e-4, atol=1e-3
    )


def test_quantiles_of_paths_lie_between_the_middles_of_their_shares() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 4.0], [0.0, 0.0, 8.0, 4.0]])
    found = path_quantiles(values, [0.05, 0.25, 0.5, 0.7, 0.99])
    # Four values stand at an eighth, three, five and seven eighths.
    expected = torch.tensor([[1.0, 1.5, 2.5, 3.3, 4.0], [0.0, 0.0, 2.0, 5.2, 8.0]])
    torch.testing.assert_close(found, expected)


def test_what_hardly_sells_can_sell_nothing_and_its_mean_stays() -> None:
    # 0.02 to 0.4 of a unit at every level: as it stands, six steps would always sell something.
    quantiles = torch.linspace(0.02, 0.4, 21).expand(1, 6, -1).contiguous()
    paths = Paths(MOOD, LEVELS, 6, num_paths=2048)
    as_it_stands, whole = (
        paths.cumulative(quantiles, [1, 6], torch.tensor([flag]))[0] for flag in (False, True)
    )
    assert float(as_it_stands[1, AT[0.25]]) > 0.2
    assert whole[:, AT[0.25]].tolist() == [0.0, 0.0]
    assert float(whole[1, AT[0.95]]) >= 3.0
    units = paths.values(quantiles, torch.tensor([True]))
    assert torch.equal(units, units.round())
    assert float(units.mean()) == pytest.approx(float(paths.values(quantiles).mean()), abs=0.01)


def test_counts_of_a_sparse_item_are_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(5)
    steps, rate = 24, 0.15
    quantiles = torch.tensor(np.quantile(rng.poisson(rate, 200_000), LEVELS), dtype=torch.float32)
    sums = Paths(INDEPENDENT, LEVELS, steps).cumulative(
        quantiles.expand(1, steps, -1).contiguous(), [24], torch.tensor([True])
    )[0, 0]
    actual = rng.poisson(rate * steps, 50_000)
    for level in (0.1, 0.5, 0.9):
        at_most, below = (
            (actual <= float(sums[AT[level]])).mean(),
            (actual < float(sums[AT[level]])).mean(),
        )
        assert below - 0.05 <= level <= at_most + 0.05, (level, float(sums[AT[level]]))


def test_rows_do_not_change_each_other_and_the_seed_decides() -> None:
    quantiles = torch.rand(300, 5, 21, generator=torch.Generator().manual_seed(4)).sort(-1).values
    paths = Paths(MOOD, LEVELS, 5)
    whole = paths.cumulative(quantiles, [2, 5])
    torch.testing.assert_close(
        torch.cat([paths.cumulative(row[None], [2, 5]) for row in quantiles]), whole
    )
    assert torch.equal(Paths(MOOD, LEVELS, 5).cumulative(quantiles, [2, 5]), whole)
    # Every third row sells in whole units, in the second and the third bundle of rows as well.
    units_B = torch.arange(300) % 3 == 0
    mixed = paths.cumulative(quantiles, [2, 5], units_B)
    torch.testing.assert_close(mixed[~units_B], whole[~units_B])
    assert (mixed[units_B] != whole[units_B]).flatten(1).any(1).all()
    # The first step's own quantiles, to the bit.
    assert torch.equal(paths.cumulative(quantiles, [1])[:, 0], quantiles[:, 0])
    assert paths.cumulative(quantiles[:0], [2]).shape == (0, 1, 21)


@pytest.mark.parametrize("freedom", [0, 60])
@pytest.mark.parametrize("alike", [0.0, 0.6, 1.0])
def test_twins_are_as_alike_as_asked_step_by_step(alike: float, freedom: int) -> None:
    quantiles = normal_steps(100.0, 10.0, 4)
    own, twin = (
        Paths(
            Dependence(0.2, 0.4, 0.8, freedom=freedom), LEVELS, 4, num_paths=4096, twin=other
        ).values(quantiles)[0]
        for other in (None, [1.0, alike, alike, 1.0])
    )
    found = [
        float(np.corrcoef(first, second)[0, 1]) for first, second in zip(own, twin, strict=True)
    ]
    assert found == pytest.approx([1.0, alike, alike, 1.0], abs=0.04)


@pytest.mark.parametrize("steps", [[], [0], [2, 1], [1, 1], [6], [1, 6], [0, 5]])
def test_steps_that_are_not_there_are_refused(steps) -> None:
    with pytest.raises(InvalidInputError, match="from 1 to 5"):
        Paths(MOOD, LEVELS, 5, num_paths=8).cumulative(torch.ones(1, 5, 21), steps)


def test_other_levels_and_numbers_of_paths_are_refused() -> None:
    paths = Paths(MOOD, LEVELS, 5, num_paths=8)
    for wrong in (torch.ones(1, 6, 21), torch.ones(1, 5, 9), torch.ones(5, 21)):
        with pytest.raises(InvalidInputError, match="at most 5 steps, 21 levels"):
            paths.values(wrong)
    for levels, number in (
        *(((0.5, 0.4), 8), ((0.5,), 8), ((0.0, 0.5), 8)),
        *(((0.5, 1.0), 8), ((0.1, 0.9), 6), ((0.1, 0.9), 1)),
    ):
        with pytest.raises(InvalidInputError, match="power of two"):
            Paths(MOOD, levels, 5, num_paths=number)


def test_two_levels_are_enough() -> None:
    steps = torch.tensor([[[2.0, 2.0], [3.0, 3.0]]])
    found = Paths(MOOD, (0.25, 0.75), 2, num_paths=8).cumulative(steps, [1, 2])
    torch.testing.assert_close(found, torch.tensor([[[2.0, 2.0], [5.0, 5.0]]]))


# Dependence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [(0.3, 0.0, 0.5), (0.0, 0.6, 0.8), (0.15, 0.4, 0.7)])
@pytest.mark.parametrize("rate", [0.4, 30.0])
def test_what_steps_have_in_common_is_found_again_also_behind_zeros(parts, rate) -> None:
    truth = Dependence(*parts)
    rows, steps = 1_500, 16
    counts = np.sort(np.random.default_rng(0).poisson(rate, rows))
    actual = torch.tensor(
        counts[(uniform(truth, rows, steps) * rows).astype(int)], dtype=torch.float32
    )
    quantiles = torch.tensor(np.quantile(counts, LEVELS), dtype=torch.float32).expand(
        rows, steps, -1
    )
    found = estimate_dependence(actual, quantiles, LEVELS, prior_rows=0.0)
    np.testing.assert_allclose(
        found.correlation(steps)[1:], truth.correlation(steps)[1:], atol=0.08
    )


def test_few_forecasts_leave_the_prior_and_many_overrule_it() -> None:
    prior = Dependence(0.1, 0.3, 0.9)
    quantiles = normal_steps(10.0, 2.0, 12)
    missing = torch.full((1, 12), float("nan"))
    assert estimate_dependence(missing, quantiles, LEVELS, prior=prior) == prior
    actual = 10.0 + 2.0 * torch.randn(1_000, 12, generator=torch.Generator().manual_seed(0))
    actual[::3, 5] = float("nan")
    found = estimate_dependence(actual, quantiles.expand(1_000, -1, -1), LEVELS, prior=prior)
    assert found.correlation(12)[1:].max() < 0.07
    assert estimate_dependence(missing[:, :1], quantiles[:, :1], LEVELS) is INDEPENDENT


def test_too_wide_forecasts_do_not_hide_what_steps_have_in_common() -> None:
    actual = torch.tensor(
        10.0 + 2.0 * correlated(Dependence(0.4, 0.0, 0.0, freedom=0), 1_000, 12)
    ).float()
    for deviation in (2.0, 4.0):
        quantiles = normal_steps(10.0, deviation, 12).expand(1_000, -1, -1)
        found = estimate_dependence(actual, quantiles, LEVELS, prior_rows=0.0)
        assert found.correlation(12)[6] == pytest.approx(0.4, abs=0.08)


@pytest.mark.parametrize(
    "parts", [(1.2, 0.0, 0.0), (0.6, 0.6, 0.5), (0.1, 0.1, 1.5), (-0.2, 0.1, 0.1)]
)
def test_an_impossible_dependence_is_refused(parts) -> None:
    with pytest.raises(InvalidInputError, match="expected each from 0 to 1"):
        Dependence(*parts)
    with pytest.raises(InvalidInputError, match="freedom"):
        Dependence(0.1, 0.1, 0.1, freedom=-1)


def test_every_resolution_has_a_default() -> None:
    for resolution_ms in (1, 60_000, HOUR_MS, DAY_MS, 30 * DAY_MS):
        assert 0.2 < default_dependence(resolution_ms).correlation(2)[1] < 0.8


# One step -----------------------------------------------------------------------------------------


def test_the_distribution_undoes_the_quantiles_also_in_the_upper_tail() -> None:
    quantiles = normal_steps(50.0, 5.0, 1)
    asked = torch.tensor([0.02, 0.3, 0.5, 0.77, 0.97, 0.995, 0.9999])
    values = quantiles @ quantile_weights(LEVELS, asked)
    torch.testing.assert_close(distribution(values, quantiles, LEVELS, included=True)[0, 0], asked)


def test_places_of_what_was_drawn_from_the_forecast_are_even_and_gaps_stay_gaps() -> None:
    actual = torch.tensor(np.random.default_rng(1).normal(50.0, 5.0, (4_000, 2))).float()
    actual[0, 0] = float("nan")
    place, variance = places(actual, normal_steps(50.0, 5.0, 2).expand(4_000, -1, -1), LEVELS)
    assert bool(place[0, 0].isnan()) and bool(variance[0, 0].isnan())
    seen = place[1:]
    assert float(seen.mean()) == pytest.approx(0.0, abs=0.01)
    assert 12 * float(seen.square().mean()) == pytest.approx(1.0, abs=0.03)
    assert float(variance[1:].mean()) == pytest.approx(1.0, abs=0.01)
