"""Synthetic series: valid, repeatable by seed, and like shops where they should be."""

from __future__ import annotations

import pytest
import torch

from freshet.model.synthetic import generic, mixture
from freshet.model.synthetic.retail import retail
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import HOUR_MS


@pytest.mark.parametrize("seed", range(6))
def test_every_batch_is_valid_and_depends_on_the_seed_alone(seed: int) -> None:
    def draw() -> tuple[object, torch.Tensor]:
        return mixture.sample(
            torch.Generator().manual_seed(seed), 32, context_length=128, prediction_length=32
        )

    (batch, actual), (_, again) = draw(), draw()
    batch.validate()
    assert torch.equal(torch.nan_to_num(actual), torch.nan_to_num(again))
    assert actual.nan_to_num().min() >= 0
    assert actual.isnan().float().mean() < 0.3


def test_shops_cover_levels_from_sparse_to_brisk_and_stock_outs_are_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    series = retail(Seeded(generator, 300), torch.zeros(300, dtype=torch.int64), 336, HOUR_MS)
    mean = series.target_BS.nanmean(1)
    assert (mean < 0.3).float().mean() > 0.1
    assert (mean > 30).float().mean() > 0.1
    assert bool((series.target_BS.isnan() == (series.past_BSP[..., 4] == 0)).all())


def test_promotions_that_are_known_raise_the_sales_and_views_lead() -> None:
    generator = torch.Generator().manual_seed(1)
    series = retail(Seeded(generator, 600), torch.zeros(600, dtype=torch.int64), 336, HOUR_MS)
    on = series.known_BSK[..., 1] > 0
    target = series.target_BS.nan_to_num()
    rows = on.any(1) & (~on).any(1) & (target.mean(1) > 1)
    lift = (target * on).sum(1) / on.sum(1) / ((target * ~on).sum(1) / (~on).sum(1))
    assert lift[rows].median() > 1.2


@pytest.mark.parametrize(
    ("make", "share"), mixture.GENERIC, ids=lambda value: getattr(value, "__name__", "")
)
def test_generic_series_are_finite_varied_and_not_negative(make, share) -> None:
    values = make(Seeded(torch.Generator().manual_seed(3), 64), 200, HOUR_MS)
    assert values.shape == (64, 200)
    assert bool(torch.isfinite(values).all())
    assert values.min() >= 0
    assert (values.std(1) > 0).float().mean() > 0.7
    assert 0 < share < 1


def test_gamma_draws_have_the_right_mean_and_variance() -> None:
    for shape in (0.5, 4.0):
        drawn = Seeded(torch.Generator().manual_seed(0), 2000).gamma(torch.full((2000, 100), shape))
        assert drawn.mean().item() == pytest.approx(shape, rel=0.02)
        assert drawn.var().item() == pytest.approx(shape, rel=0.05)


def test_a_season_of_generic_series_repeats() -> None:
    period_B = torch.full((4,), 12.0)
    wave = generic.wave(Seeded(torch.Generator().manual_seed(0), 4), 48, period_B)
    torch.testing.assert_close(wave[:, :12], wave[:, 12:24], rtol=1e-3, atol=1e-3)
