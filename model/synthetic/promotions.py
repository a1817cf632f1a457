"""What a simulated shop plans: promotions, flash sales, price steps and events.

Effects are logarithms of a factor. Dimensions: B rows, S steps, N intervals, K known slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.synthetic.seasons import weekday
from freshet.model.synthetic.seeded import Seeded
from freshet.stream.units import HOUR_MS

PRICE, PROMOTION, DISCOUNT, EVENT = (
    KNOWN_SLOTS.index(name) for name in ("price_ratio", "promotion", "discount", "event")
)


def planned_effects(draw: Seeded, known_BSK: Tensor, time_BS: Tensor, resolution_ms: int) -> Tensor:
    """Fill the slots of price, promotion, discount and event; their effect together: [B, S]."""
    steps = known_BSK.shape[1]
    hour = HOUR_MS / resolution_ms  # in steps
    # Sales go with a power of the price: a tenth off sells more by its elasticity times a tenth.
    elasticity_B1 = draw.log_uniform(0.3, 6.0, 1) * draw.chance(0.85, 1)
    depth_BS, flash_BS = promotions(draw, steps, hour)
    promotion_BS = (depth_BS > 0).float()
    # A banner sells beside the lower price, and sells even without one.
    banner_B1 = draw.uniform(0.0, 1.0, 1) * draw.chance(0.7, 1)
    uplift_BS = -elasticity_B1 * torch.log1p(-depth_BS) + banner_B1 * promotion_BS
    uplift_BS = uplift_BS * promotion_shape(draw, promotion_BS, time_BS, hour)
    uplift_BS += draw.uniform(0.0, 1.8, 1) * flash_BS
    uplift_BS -= _hangover(draw, promotion_BS, hour)
    # Price steps that stay, in log units, are no promotion.
    price_BNS, _ = draw.intervals(steps, 3, 1e9, 2e9)
    ratio_BS = (price_BNS * draw.normal(0.15, 3, 1) * draw.chance(0.4, 3, 1)).sum(1)
    event_BNS, _ = draw.intervals(steps, 3, 12 * hour, max(72 * hour, 1.5))
    event_BS = (event_BNS * draw.chance(0.5, 3, 1)).amax(1)
    event_effect_B1 = draw.normal(0.7, 1) * draw.chance(0.7, 1)
    # Half of the shops tell the price that is paid, half the one before the discount.
    includes_B1 = draw.chance(0.5, 1)
    known_BSK[..., PRICE] = (ratio_BS + includes_B1 * torch.log1p(-depth_BS)).exp()
    known_BSK[..., PROMOTION] = promotion_BS
    # Many shops flag a promotion and do not say how deep it is.
    known_BSK[..., DISCOUNT] = torch.where(draw.chance(0.35, 1) > 0, math.nan, depth_BS)
    known_BSK[..., EVENT] = event_BS
    price_effect_BS = (elasticity_B1 * ratio_BS).clamp(-2.0, 2.0)
    return uplift_BS.clamp(max=4.0) - price_effect_BS + event_effect_B1 * event_BS


def _hangover(draw: Seeded, promotion_BS: Tensor, hour: float) -> Tensor:
    """What is missed on the day after: who bought during the promotion doesn't buy right then."""
    day = int(max(24 * hour, 1))
    ended_BS = (promotion_BS.roll(day, 1) - promotion_BS).clamp(min=0.0)
    return draw.uniform(0.0, 0.6, 1) * draw.chance(0.3, 1) * ended_BS


def promotions(draw: Seeded, steps: int, hour: float) -> tuple[Tensor, Tensor]:
    """Depth of discount at every step, and where a flash sale runs: [B, S] each.

    Promotions come as single ones or, in three rows of ten, in a fixed rhythm of weeks.
    """
    sales_BNS, _ = draw.intervals(steps, 4, 6 * hour, max(24 * 14 * hour, 4.0))
    flash_BNS, _ = draw.intervals(steps, 4, 1 * hour, max(8 * hour, 2.0))
    sales_BNS = sales_BNS * draw.chance(0.5, 4, 1) * draw.chance(0.7, 1, 1)
    flash_BNS = flash_BNS * draw.chance(0.5, 4, 1) * draw.chance(0.5, 1, 1)
    rhythmic_BS = _rhythm(draw, steps, hour)
    depth_BS = (sales_BNS * draw.uniform(0.05, 0.4, 4, 1)).amax(1)
    depth_BS = torch.where(draw.chance(0.3, 1) > 0, rhythmic_BS, depth_BS)
    flash_depth_BS = (flash_BNS * draw.uniform(0.2, 0.7, 4, 1)).amax(1)
    return torch.maximum(depth_BS, flash_depth_BS), flash_BNS.amax(1)


def _rhythm(draw: Seeded, steps: int, hour: float) -> Tensor:
    """Depth of a discount that comes back every one to four weeks: [B, S]."""
    week = max(round(168 * hour), 4)
    period_B1 = draw.choice([1.0, 2.0, 3.0, 4.0], [0.2, 0.5, 0.15, 0.15])[:, None] * week
    index_S = torch.arange(steps, device=draw.device)
    turn_BS = (index_S + draw.uniform(0.0, 1.0, 1) * period_B1) % period_B1 / period_B1
    on_BS = (turn_BS < draw.uniform(0.15, 0.6, 1)).float()
    return on_BS * draw.uniform(0.05, 0.4, 1)


def promotion_shape(draw: Seeded, promotion_BS: Tensor, time_BS: Tensor, hour: float) -> Tensor:
    """How a promotion's effect varies within its run and over the week, around one: [B, S]."""
    index_S = torch.arange(promotion_BS.shape[1], device=draw.device)
    # The newest step without a promotion is the one before it began.
    begun_BS = torch.where(promotion_BS > 0, -1, index_S).cummax(1).values
    days_BS = (index_S - begun_BS).clamp(min=0) / max(24 * hour, 1.0)
    size_B1 = draw.normal(0.4, 1) * draw.chance(0.5, 1)
    fading_BS = size_B1 * torch.exp(-days_BS / draw.uniform(0.7, 4.0, 1))
    weekly_BS = (draw.normal(0.25, 7) * draw.chance(0.4, 1)).gather(1, weekday(time_BS))
    return (1.0 + fading_BS + weekly_BS).clamp(0.0, 2.0)
