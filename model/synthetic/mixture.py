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
FIRST_DAY = 3650  # days after 1970
START_DAYS = 40 * 365
MAX_UNITS = 1e7

# Makes series [B, S] from random draws, a number of steps and a resolution.
MakeSeries = Callable[[Seeded, int, int], Tensor]

# Mostly hours and days, which most shops forecast; a few of each other, so that none is unknown.
RESOLUTIONS_MS = {
    MINUTE_MS: 0.02,
    5 * MINUTE_MS: 0.03,
    15 * MINUTE_MS: 0.06,
    60 * MINUTE_MS: 0.34,
    DAY_MS: 0.34,
    WEEK_MS: 0.12,
    MONTH_MS: 0.09,
}
# A third of the rows are no shops. Rare demand is the largest part, being most of any long tail.
GENERIC: tuple[tuple[MakeSeries, float], ...] = (
    (generic.trend_season, 0.09),
    (generic.gaussian_process, 0.05),
    (generic.intermittent, 0.13),
    (generic.walks, 0.03),
    (generic.spikes_and_steps, 0.03),
)
# How often which context and which horizon: a shop has years of hours and days, but few weeks and
# fewer months.
CONTEXT_SHARES = {
    512: 0.5,
    256: 0.25,
    128: 0.13,
    64: 0.08,
    32: 0.04,
}
HORIZON_SHARES = {64: 0.7, 32: 0.2, 16: 0.1}
LONG_CONTEXT_SHARES = {
    256: 0.2,
    128: 0.35,
    64: 0.3,
    32: 0.15,
}
LONG_HORIZON_SHARES = {64: 0.1, 32: 0.4, 16: 0.5}


def sample(
    generator: torch.Generator,
    rows: int,
    *,
    context_length: int,
    prediction_length: int,
) -> tuple[Batch, Tensor]:
    """One batch of the mixture and its actuals [B, H], NaN where nothing may be learned.

    The resolution and the lengths of context and horizon are drawn per batch, everything else per
    row.

    Args:
        context_length: the longest context that is drawn.
        prediction_length: the longest horizon that is drawn.
    """
    # Drawn on the CPU, or a GPU would have to finish a batch before the next one's shape is known.
    on_cpu = torch.Generator().manual_seed(generator.initial_seed())
    picker = Seeded(on_cpu, 1)
    resolution_ms = _pick(picker, RESOLUTIONS_MS)
    few = resolution_ms >= WEEK_MS
    context = _pick(picker, LONG_CONTEXT_SHARES if few else CONTEXT_SHARES)
    context = min(context_length, context)
    horizon = _pick(picker, LONG_HORIZON_SHARES if few else HORIZON_SHARES)
    horizon = min(prediction_length, horizon)
    draw = Seeded(generator, rows)
    start_ms_B = random_starts(draw, resolution_ms)
    series = mixed_series(generator, start_ms_B, context + horizon, resolution_ms)
    return to_batch(draw, series, start_ms_B, resolution_ms, context)


def _pick(draw: Seeded, shares: dict[int, float]) -> int:
    # By position: a month in milliseconds has more digits than a float32.
    by_position = list(enumerate(shares.values()))
    position = int(draw.choice(by_position).item())
    return list(shares)[position]


def random_starts(draw: Seeded, resolution_ms: int) -> Tensor:
    """Bucket-aligned starts within forty years of 1980: int64 [B].

    Any date, so that no year is learnt by heart.
    """
    day_B = draw.integers(FIRST_DAY, FIRST_DAY + START_DAYS)
    buckets_of_day = max(DAY_MS // resolution_ms, 1)
    bucket_B = draw.integers(0, buckets_of_day)
    of_day_ms_B = bucket_B * (resolution_ms % DAY_MS)
    return day_B * DAY_MS + of_day_ms_B


def mixed_series(
    generator: torch.Generator,
    start_ms_B: Tensor,
    steps: int,
    resolution_ms: int,
) -> Series:
    """Rows of every kind in the mixture's shares, one kind after the other; the rest are shops."""
    rows = len(start_ms_B)
    done = 0
    parts = []
    for make, share in GENERIC:
        count = round(rows * share)
        if count == 0:
            continue
        draw = Seeded(generator, count)
        target_BS = make(draw, steps, resolution_ms)
        parts.append(_bare(target_BS))
        done += count
    shops = Seeded(generator, rows - done)
    shop_series = retail(shops, start_ms_B[done:], steps, resolution_ms)
    parts.append(shop_series)
    fields = zip(*parts, strict=True)
    return Series(*(torch.cat(field) for field in fields))


def _bare(target_BS: Tensor) -> Series:
    """A series of which nothing else is known, neither covariates nor a price."""
    rows, steps = target_BS.shape
    past_BSP, known_BSK = empty_slots(rows, steps, target_BS.device)
    unknown_B = torch.full((rows,), math.nan, device=target_BS.device)
    return Series(target_BS, past_BSP, known_BSK, unknown_B, unknown_B)


def to_batch(
    draw: Seeded,
    series: Series,
    start_ms_B: Tensor,
    resolution_ms: int,
    context: int,
) -> tuple[Batch, Tensor]:
    """Cut at the cutoff and take away what a real shop would not have."""
    target_BS = series.target_BS.clamp(max=MAX_UNITS)
    seen_BT = forget(draw, target_BS[:, :context])
    # Nearly half of all shops have no clicks to show, a quarter no plans.
    past_BTP = series.past_BSP[:, :context]
    past_BTP = drop_slots(draw, past_BTP, all_gone=0.45, one_gone=0.2)
    # Nobody clicked on an item before there was one.
    launched_BT1 = launched(seen_BT)[..., None]
    past_BTP = torch.where(launched_BT1, past_BTP, math.nan)
    known_BSK = drop_slots(draw, series.known_BSK, all_gone=0.25, one_gone=0.12)
    static_BF = statics(draw, series)
    batch = Batch(seen_BT, past_BTP, known_BSK, static_BF, start_ms_B, resolution_ms)
    return batch, target_BS[:, context:]


def launched(seen_BT: Tensor) -> Tensor:
    """True from the first observation on: [B, T]."""
    observed_BT = torch.isfinite(seen_BT).float()
    return observed_BT.cummax(1).values > 0


def forget(draw: Seeded, target_BT: Tensor) -> Tensor:
    """Shorten histories (down to nothing), cut out blocks, lose single steps: [B, T]."""
    steps = target_BT.shape[1]
    index_S = draw.index(steps)
    # Three rows of ten are young, whatever their age: one step is as likely as a hundred. A tenth
    # of those has no history at all, as an item has on its first day.
    young_steps_B = draw.log_uniform(1.0, float(steps)).floor()
    young_steps_B = young_steps_B * draw.chance(0.9)
    young_B = draw.chance(0.3) > 0
    kept_B = torch.where(young_B, young_steps_B, float(steps))
    gone_B1 = (steps - kept_B)[:, None]
    gone_BT = index_S < gone_B1
    # Blocks go missing where an export broke or a table was migrated.
    longest_block = max(steps / 6, 3.0)
    block_BNT = draw.intervals(steps, 2, 2.0, longest_block)
    block_BNT = block_BNT * draw.chance(0.5, 2, 1)
    block_BNT = block_BNT * draw.chance(0.15, 1, 1)
    gone_BT |= block_BNT.amax(1) > 0
    # Up to three steps of ten are lost one by one, in a tenth of the rows.
    luck_BT = draw.unit(steps)
    loss_B1 = draw.uniform(0.0, 0.3, 1)
    loss_B1 = loss_B1 * draw.chance(0.1, 1)
    gone_BT |= luck_BT < loss_B1
    return torch.where(gone_BT, math.nan, target_BT)


def drop_slots(draw: Seeded, slots_BXK: Tensor, *, all_gone: float, one_gone: float) -> Tensor:
    """Make all slots of some rows, and some slots of others, missing: [B, X, K].

    A network so trained works without them, and masking a slot shows what it was worth.
    """
    all_B11 = draw.chance(all_gone, 1, 1)
    one_B1K = draw.chance(one_gone, 1, slots_BXK.shape[2])
    gone_B1K = all_B11.maximum(one_B1K)
    return torch.where(gone_B1K > 0, math.nan, slots_BXK)


def statics(draw: Seeded, series: Series) -> Tensor:
    """Static features [B, F]: price, age, and text that says nothing, ignored until fine-tuned."""
    # Hashed words are few of many columns, and their sum has length one.
    text_BX = draw.normal(1.0, NUM_TEXT)
    text_BX = text_BX * draw.chance(0.2, NUM_TEXT)
    text_BX = text_BX * draw.chance(0.5, 1)
    length_B1 = text_BX.norm(dim=1, keepdim=True)
    text_BX = text_BX / length_B1.clamp(min=1.0)
    # Of the numbers, the first two mean something; any may be missing.
    log_age_B = torch.log1p(series.age_days_B)
    own_B2 = torch.stack([series.log_price_B, log_age_B], 1)
    others_BX = draw.normal(1.0, NUM_NUMBERS - 2)
    numbers_BX = torch.cat([own_B2, others_BX], 1)
    missing_BX = draw.chance(0.4, NUM_NUMBERS) > 0
    numbers_BX = torch.where(missing_BX, math.nan, numbers_BX)
    return torch.cat([text_BX, numbers_BX], 1)
