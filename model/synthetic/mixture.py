"""Batches of the synthetic mixture, with what real data does to series: short, gappy, half-blind.

Dimensions: B rows, T context steps, H horizon steps, S = T + H.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.model.phases import YEAR_MS
from freshet.model.synthetic import generic
from freshet.model.synthetic.retail import Series, empty_slots, retail
from freshet.model.synthetic.seeded import Seeded
from freshet.model.text import NUM_NUMBERS, NUM_TEXT
from freshet.stream.units import DAY_MS, MINUTE_MS, WEEK_MS

MONTH_MS = YEAR_MS // 12
RESOLUTIONS_MS = {
    MINUTE_MS: 0.02,
    5 * MINUTE_MS: 0.03,
    15 * MINUTE_MS: 0.06,
    60 * MINUTE_MS: 0.34,
    DAY_MS: 0.34,
    WEEK_MS: 0.12,
    MONTH_MS: 0.09,
}
GENERIC: tuple[tuple[Callable[[Seeded, int, int], Tensor], float], ...] = (
    (generic.trend_season, 0.09),
    (generic.gaussian_process, 0.05),
    (generic.intermittent, 0.13),
    (generic.walks, 0.03),
    (generic.spikes_and_steps, 0.03),
)
# How often which context and which horizon: a shop has years of hours and days, but few weeks and
# fewer months.
CONTEXT_SHARES = {512: 0.5, 256: 0.25, 128: 0.13, 64: 0.08, 32: 0.04}
HORIZON_SHARES = {64: 0.7, 32: 0.2, 16: 0.1}
LONG_CONTEXT_SHARES = {256: 0.2, 128: 0.35, 64: 0.3, 32: 0.15}
LONG_HORIZON_SHARES = {64: 0.1, 32: 0.4, 16: 0.5}


def sample(
    generator: torch.Generator, rows: int, *, context_length: int, prediction_length: int
) -> tuple[Batch, Tensor]:
    """One batch of the mixture and its actuals [B, H], NaN where nothing may be learned.

    The resolution and the lengths of context and horizon are drawn per batch, everything else per
    row.

    Args:
        context_length: the longest context that is drawn.
        prediction_length: the longest horizon that is drawn.
    """
    # Drawn on the CPU, or a GPU would have to finish a batch before the next one's shape is known.
    picker = Seeded(torch.Generator().manual_seed(generator.initial_seed()), 1)
    resolution_ms = _pick(picker, RESOLUTIONS_MS)
    few = resolution_ms >= WEEK_MS
    context = min(context_length, _pick(picker, LONG_CONTEXT_SHARES if few else CONTEXT_SHARES))
    horizon = min(prediction_length, _pick(picker, LONG_HORIZON_SHARES if few else HORIZON_SHARES))
    start_ms_B = random_starts(Seeded(generator, rows), resolution_ms)
    series = mixed_series(generator, start_ms_B, context + horizon, resolution_ms)
    return to_batch(Seeded(generator, rows), series, start_ms_B, resolution_ms, context)


def _pick(draw: Seeded, shares: dict[int, float]) -> int:
    # By position: a month in milliseconds has more digits than a float32.
    position = draw.choice([float(index) for index in range(len(shares))], list(shares.values()))
    return list(shares)[int(position.item())]


def random_starts(draw: Seeded, resolution_ms: int) -> Tensor:
    """Bucket-aligned starts within forty years of 1980: int64 [B]."""
    day_B = draw.integers(3650, 3650 + 40 * 365)
    bucket_B = draw.integers(0, max(DAY_MS // resolution_ms, 1))
    return day_B * DAY_MS + bucket_B * (resolution_ms % DAY_MS)


def mixed_series(
    generator: torch.Generator, start_ms_B: Tensor, steps: int, resolution_ms: int
) -> Series:
    """Rows of every kind in the mixture's shares, one kind after the other."""
    rows, parts, done = len(start_ms_B), [], 0
    for make, share in GENERIC:
        count = round(rows * share)
        if count == 0:
            continue
        draw = Seeded(generator, count)
        past, known = empty_slots(count, steps, generator.device)
        unknown_B = torch.full((count,), math.nan, device=generator.device)
        parts.append(Series(make(draw, steps, resolution_ms), past, known, unknown_B, unknown_B))
        done += count
    parts.append(retail(Seeded(generator, rows - done), start_ms_B[done:], steps, resolution_ms))
    return Series(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def to_batch(
    draw: Seeded, series: Series, start_ms_B: Tensor, resolution_ms: int, context: int
) -> tuple[Batch, Tensor]:
    """Cut at the cutoff and take away what a real shop would not have."""
    target_BS = series.target_BS.clamp(max=1e7)
    seen_BT = forget(draw, target_BS[:, :context])
    past_BTP = drop_slots(draw, series.past_BSP[:, :context], all_gone=0.45, one_gone=0.2)
    past_BTP = torch.where(launched(seen_BT)[..., None], past_BTP, math.nan)
    known_BSK = drop_slots(draw, series.known_BSK, all_gone=0.25, one_gone=0.12)
    batch = Batch(seen_BT, past_BTP, known_BSK, statics(draw, series), start_ms_B, resolution_ms)
    return batch, target_BS[:, context:]


def launched(seen_BT: Tensor) -> Tensor:
    """True from the first observation on."""
    return torch.isfinite(seen_BT).float().cummax(1).values > 0


def forget(draw: Seeded, target_BT: Tensor) -> Tensor:
    """Shorten histories (down to nothing), cut out blocks, lose single steps."""
    steps = target_BT.shape[1]
    index_S = torch.arange(steps, device=draw.device)
    kept_B = draw.log_uniform(1.0, float(steps)).floor() * draw.chance(0.9)
    kept_B = torch.where(draw.chance(0.3) > 0, kept_B, float(steps))
    gone_BT = index_S < (steps - kept_B)[:, None]
    blocks_BNT, _ = draw.intervals(steps, 2, 2.0, max(steps / 6, 3.0))
    blocks_BNT = blocks_BNT * draw.chance(0.5, 2, 1) * draw.chance(0.15, 1, 1)
    gone_BT |= blocks_BNT.amax(1) > 0
    luck_BT = draw.uniform(0.0, 1.0, steps)
    gone_BT |= luck_BT < draw.uniform(0.0, 0.3, 1) * draw.chance(0.1, 1)
    return torch.where(gone_BT, math.nan, target_BT)


def drop_slots(draw: Seeded, slots_BXK: Tensor, *, all_gone: float, one_gone: float) -> Tensor:
    """Make all slots of some rows, and some slots of others, missing."""
    gone_B1K = draw.chance(all_gone, 1, 1).maximum(draw.chance(one_gone, 1, slots_BXK.shape[2]))
    return torch.where(gone_B1K > 0, math.nan, slots_BXK)


def statics(draw: Seeded, series: Series) -> Tensor:
    """Static features: price, age, and text that says nothing, to be ignored until fine-tuned."""
    text_BX = draw.normal(1.0, NUM_TEXT) * draw.chance(0.2, NUM_TEXT) * draw.chance(0.5, 1)
    text_BX = text_BX / text_BX.norm(dim=1, keepdim=True).clamp(min=1.0)
    own_B2 = torch.stack([series.log_price_B, torch.log1p(series.age_days_B)], 1)
    numbers_BX = torch.cat([own_B2, draw.normal(1.0, NUM_NUMBERS - 2)], 1)
    numbers_BX = torch.where(draw.chance(0.4, NUM_NUMBERS) > 0, math.nan, numbers_BX)
    return torch.cat([text_BX, numbers_BX], 1)
