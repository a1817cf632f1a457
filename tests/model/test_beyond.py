"""Beyond the steps that a network was trained for: seasons stay, fans widen as far as they did."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, Batch
from freshet.model.beyond import CALM_GROWTH, Fan, listeners, stand_ins, widened
from freshet.model.features import CLOSED
from freshet.model.forecaster import BatchForecaster
from freshet.model.text import NUM_STATIC
from freshet.stream.units import DAY_MS, HOUR_MS

LEVELS = (0.1, 0.5, 0.9)
LOW, MEDIAN, HIGH = 2, 10, 18  # of the network's own levels


def fan(width_H: Tensor, *, skew: float = 0.5) -> Tensor:
    """One row of quantiles around 7 that lie so far apart."""
    return torch.stack([7 - skew * width_H, 7 + 0 * width_H, 7 + (1 - skew) * width_H], -1)[None]


def widths(quantiles_BHQ: Tensor) -> list[float]:
    return (quantiles_BHQ[0, :, 2] - quantiles_BHQ[0, :, 0]).tolist()


def drawn_on(left_BHQ: Tensor, *, cycle: int = 24, closed_BH: Tensor | None = None) -> Tensor:
    if closed_BH is None:
        closed_BH = torch.zeros(left_BHQ.shape[:2], dtype=torch.bool)
    return widened(left_BHQ, closed_BH, LEVELS, Fan(64, 16, cycle))


def as_trained(width_H: Tensor) -> Tensor:
    """A fan that repeats the widths of the last patch that the network knows."""
    return fan(width_H[stand_ins(len(width_H), 64, 16)])


# The line of variance -----------------------------------------------------------------------------


def test_a_random_walk_goes_on_as_one() -> None:
    steps_H = torch.arange(1.0, 257.0)
    found = widths(drawn_on(as_trained(steps_H.sqrt())))
    # Its variance is one a step, so the last two days of the reach say all of it.
    assert found == pytest.approx(steps_H.sqrt().tolist(), rel=1e-5)


def test_a_flat_fan_stays_flat_and_a_narrowing_one_narrows_no_further() -> None:
    steps_H = torch.arange(1.0, 257.0)
    assert widths(drawn_on(fan(torch.full((256,), 3.0)))) == pytest.approx([3.0] * 256)
    found = widths(drawn_on(as_trained(10.0 - steps_H / 16)))
    assert found[64:] == pytest.approx(found[48:64] * 12)


def test_half_the_growth_of_a_random_walk_goes_on_as_far_as_it_is_no_calm() -> None:
    # Variance 40 at the middle of the last 24 steps, 52.5; a random walk's grows by 40 / 52.5.
    steps_H = torch.arange(1.0, 129.0)
    variance_H = 40 + 0.5 * 40 / 52.5 * (steps_H - 52.5)
    found = widths(drawn_on(as_trained(variance_H.sqrt())))
    share = (0.5 - CALM_GROWTH) / (1 - CALM_GROWTH)

    def line(step: int) -> float:
        return 1 + share * (step / 52.5 - 1)

    for step, told in ((65, 49), (100, 52), (128, 64)):
        expected = float(variance_H[told - 1]) * line(step) / line(told)
        assert found[step - 1] == pytest.approx(math.sqrt(expected), rel=1e-5)


def test_whole_cycles_are_compared_and_closed_steps_say_nothing() -> None:
    hour_H = torch.arange(256) % 24
    daily_H = torch.where(hour_H < 8, 1.0, 5.0)
    assert widths(drawn_on(fan(daily_H))) == pytest.approx(daily_H.tolist())
    closed_BH = (hour_H % 3 == 0)[None]
    wild_H = torch.where(closed_BH[0], torch.arange(256.0), daily_H)
    found = widths(drawn_on(fan(wild_H), closed_BH=closed_BH))
    assert found == pytest.approx(wild_H.tolist())
    # A season that fits twice into the reach counts; of longer ones, half of the reach each.
    longer_H = torch.where(torch.arange(256) % 52 < 26, 1.0, 5.0)
    assert widths(drawn_on(fan(longer_H), cycle=52))[-1] > 0


def test_the_median_stays_and_each_side_widens_alike() -> None:
    skewed = drawn_on(fan(torch.arange(1.0, 129.0).sqrt(), skew=0.2))
    assert skewed[0, :, 1].tolist() == [7.0] * 128
    below_H, above_H = (7 - skewed[0, :, 0]), (skewed[0, :, 2] - 7)
    assert torch.allclose(above_H, 4 * below_H)


def test_rows_widen_each_alone_to_the_bit_and_nothing_makes_a_fan_infinite() -> None:
    generator = torch.Generator().manual_seed(1)
    left_BHQ = torch.randn(5, 200, 3, generator=generator).sort(-1).values
    together = drawn_on(left_BHQ)
    for row in range(5):
        assert torch.equal(drawn_on(left_BHQ[row : row + 1])[0], together[row])
    none = drawn_on(torch.zeros(2, 200, 3), closed_BH=torch.ones(2, 200, dtype=torch.bool))
    assert torch.equal(none, torch.zeros(2, 200, 3))


def test_later_tokens_hear_the_known_ones_and_themselves() -> None:
    heard = listeners(5, 3).tolist()
    for listener in range(5):
        assert heard[listener][:3] == [True] * 3
        assert heard[listener][3:] == [listener == 3, listener == 4]


# The network beyond its reach ---------------------------------------------------------------------


def batch_of(target_BT: Tensor, horizon: int, resolution_ms: int) -> Batch:
    B, T = target_BT.shape
    end_ms = 1_767_225_600_000  # 2026-01-01
    return Batch(
        target_BT.float(),
        torch.full((B, T, 8), math.nan),
        torch.full((B, T + horizon, len(KNOWN_SLOTS)), math.nan),
        torch.full((B, NUM_STATIC), math.nan),
        torch.full((B,), end_ms - T * resolution_ms),
        resolution_ms,
    )


@pytest.fixture(scope="module")
def shipped() -> Iterator[BatchForecaster]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield BatchForecaster.from_pretrained(device="cpu", dtype="float32")
    torch.set_num_threads(threads)


def walks(rows: int, steps: int) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return (300 + 4 * torch.randn(rows, steps, generator=generator).cumsum(1)).clamp(min=0)


@pytest.mark.parametrize("resolution_ms", [HOUR_MS, DAY_MS])
def test_the_fan_of_random_walks_goes_on_widening_like_a_root(
    shipped: BatchForecaster, resolution_ms: int
) -> None:
    quantiles = shipped.forecast(batch_of(walks(48, 512), 256, resolution_ms))
    width_H = (quantiles[..., HIGH] - quantiles[..., LOW]).mean(0)
    blocks = width_H.view(-1, 16).mean(1)
    assert bool((blocks.diff() > -0.02 * blocks[:-1]).all()), "no block of 16 steps is narrower"
    assert width_H[64:72].mean() >= 0.97 * width_H[56:64].mean()
    grown = float(blocks[-1] / blocks[3])
    assert grown == pytest.approx(math.sqrt(248.5 / 56.5), rel=0.15)


def test_the_season_of_a_day_stays_beyond_the_reach_and_calm_series_stay_calm(
    shipped: BatchForecaster,
) -> None:
    hour_S = torch.arange(512 + 240)
    rate_S = 30 * (1 + 0.9 * torch.sin(2 * math.pi * hour_S / 24))
    generator = torch.Generator().manual_seed(2)
    target = torch.poisson(rate_S[:512].expand(16, -1), generator=generator)
    quantiles = shipped.forecast(batch_of(target, 240, HOUR_MS))
    median_H = quantiles[..., MEDIAN].mean(0)
    for start in (64, 192):
        seen = torch.stack([median_H[start : start + 48], rate_S[512 + start : 560 + start]])
        assert torch.corrcoef(seen)[0, 1] > 0.99
        assert median_H[start : start + 48].mean() == pytest.approx(30.0, rel=0.1)
    width_H = (quantiles[..., HIGH] - quantiles[..., LOW]).mean(0)
    assert width_H[216:240].mean() < 1.5 * width_H[40:64].mean()


def test_first_steps_do_not_hang_on_how_many_follow_nor_do_later_ones(
    shipped: BatchForecaster,
) -> None:
    long = batch_of(walks(8, 512), 256, DAY_MS)
    found = shipped.forecast(long)
    for horizon in (64, 100, 130):
        part = shipped.forecast(replace(long, known_BSK=long.known_BSK[:, : 512 + horizon]))
        torch.testing.assert_close(part, found[:, :horizon], rtol=1e-5, atol=1e-3)


def test_what_is_known_far_ahead_counts_and_closed_steps_are_nothing(
    shipped: BatchForecaster,
) -> None:
    batch = batch_of(walks(4, 512), 128, DAY_MS)
    batch.known_BSK[:, :, CLOSED] = 0.0
    batch.known_BSK[:, 512 + 90, CLOSED] = 1.0
    promoted = batch.known_BSK.clone()
    promoted[..., 1] = 0.0
    # Every promotion doubled the sales; one more is announced for step 110.
    target = batch.target_BT.clone()
    for step in range(20, 512, 23):
        promoted[:, step, 1] = 1.0
        target[:, step] *= 2
    promoted[:, 512 + 110, 1] = 1.0
    quantiles = shipped.forecast(replace(batch, known_BSK=promoted, target_BT=target))
    assert not quantiles[:, 90].any()
    usual = quantiles[:, 105:110, MEDIAN].mean(1)
    assert bool((quantiles[:, 110, MEDIAN] > 1.5 * usual).all())


def test_a_batch_beyond_the_reach_is_its_rows_one_by_one(shipped: BatchForecaster) -> None:
    batch = batch_of(walks(6, 300), 120, HOUR_MS)
    together = shipped.forecast(batch)
    for row in (0, 5):
        alone = shipped.forecast(batch.rows(slice(row, row + 1)))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-3)
