"""What a simulated shop plans: promotions, flash sales, price steps and events.

All of it is known in advance, so the network can learn to trust such slots; how strongly a shop's
customers answer is drawn anew for each row, so it must read that from the history. Effects are
logarithms of a factor. Dimensions: B rows, S steps, N intervals, K known slots.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.synthetic.seasons import weekday
from freshet.model.synthetic.seeded import FOREVER, Seeded
from freshet.stream.units import HOUR_MS

PRICE = KNOWN_SLOTS.index("price_ratio")
PROMOTION = KNOWN_SLOTS.index("promotion")
DISCOUNT = KNOWN_SLOTS.index("discount")
EVENT = KNOWN_SLOTS.index("event")
# Half of the rhythms follow a leaflet that comes every other week.
RHYTHM_WEEKS = (
    (1.0, 0.2),
    (2.0, 0.5),
    (3.0, 0.15),
    (4.0, 0.15),
)


def planned_effects(
    draw: Seeded,
    known_BSK: Tensor,
    time_BS: Tensor,
    resolution_ms: int,
) -> Tensor:
    """Fill the slots of price, promotion, discount and event; their effect together: [B, S]."""
    steps = known_BSK.shape[1]
    hour_steps = HOUR_MS / resolution_ms
    # Sales go with a power of the price: a tenth off sells more by its elasticity times a tenth.
    # A survey of 1,851 elasticities found 2.6 on average (Bijmolt and others 2005), and they differ
    # more than tenfold between goods; 15 % of the rows feel no price at all.
    elasticity_B1 = draw.log_uniform(0.3, 6.0, 1)
    elasticity_B1 = elasticity_B1 * draw.chance(0.85, 1)
    depth_BS, flash_BS = promotions(draw, steps, hour_steps)
    promotion_BS = (depth_BS > 0).float()
    uplift_BS = _uplift(draw, elasticity_B1, depth_BS, promotion_BS)
    uplift_BS = uplift_BS * promotion_shape(draw, promotion_BS, time_BS, hour_steps)
    # A flash sale is on the front page, and sells more than its price explains.
    flash_size_B1 = draw.uniform(0.0, 1.8, 1)
    uplift_BS += flash_size_B1 * flash_BS
    uplift_BS -= _hangover(draw, promotion_BS, hour_steps)
    ratio_BS = _price_steps(draw, steps)
    event_BS = _events(draw, steps, hour_steps)
    # An event helps or hurts (a fair brings guests, a strike keeps them away), or does nothing.
    event_size_B1 = draw.normal(0.7, 1)
    event_size_B1 = event_size_B1 * draw.chance(0.7, 1)
    _tell(draw, known_BSK, ratio_BS, depth_BS)
    known_BSK[..., EVENT] = event_BS
    price_effect_BS = (elasticity_B1 * ratio_BS).clamp(-2.0, 2.0)
    # Four log units are 55 times the usual: deep discounts times high elasticities would be more.
    return uplift_BS.clamp(max=4.0) - price_effect_BS + event_size_B1 * event_BS


def _uplift(
    draw: Seeded,
    elasticity_B1: Tensor,
    depth_BS: Tensor,
    promotion_BS: Tensor,
) -> Tensor:
    """What the lower price sells, and what the banner does beside it, even without one: [B, S]."""
    banner_B1 = draw.unit(1)
    banner_B1 = banner_B1 * draw.chance(0.7, 1)
    price_change_BS = torch.log1p(-depth_BS)
    return -elasticity_B1 * price_change_BS + banner_B1 * promotion_BS


def _price_steps(draw: Seeded, steps: int) -> Tensor:
    """Up to three changes of price that stay, in log units, and are no promotion: [B, S]."""
    after_BNS = draw.intervals(steps, 3, *FOREVER)
    size_BN1 = draw.normal(0.15, 3, 1)
    happens_BN1 = draw.chance(0.4, 3, 1)
    return (after_BNS * size_BN1 * happens_BN1).sum(1)


def _events(draw: Seeded, steps: int, hour_steps: float) -> Tensor:
    """1.0 during up to three events of half a day to three days: [B, S]."""
    longest = max(72 * hour_steps, 1.5)
    event_BNS = draw.intervals(steps, 3, 12 * hour_steps, longest)
    happens_BN1 = draw.chance(0.5, 3, 1)
    return (event_BNS * happens_BN1).amax(1)


def _tell(
    draw: Seeded,
    known_BSK: Tensor,
    ratio_BS: Tensor,
    depth_BS: Tensor,
) -> None:
    """Fill the slots of price, promotion and discount as differently as real feeds do."""
    # Half of the shops tell the price that is paid, half the one before the discount.
    includes_B1 = draw.chance(0.5, 1)
    discounted_BS = includes_B1 * torch.log1p(-depth_BS)
    known_BSK[..., PRICE] = (ratio_BS + discounted_BS).exp()
    known_BSK[..., PROMOTION] = (depth_BS > 0).float()
    # Many shops flag a promotion and do not say how deep it is.
    silent_B1 = draw.chance(0.35, 1) > 0
    known_BSK[..., DISCOUNT] = torch.where(silent_B1, math.nan, depth_BS)


def _hangover(draw: Seeded, promotion_BS: Tensor, hour_steps: float) -> Tensor:
    """What is missed on the day after: who bought during the promotion doesn't buy right then."""
    day_steps = int(max(24 * hour_steps, 1))
    yesterday_BS = promotion_BS.roll(day_steps, 1)
    ended_BS = (yesterday_BS - promotion_BS).clamp(min=0.0)
    size_B1 = draw.uniform(0.0, 0.6, 1)
    # Fresh food cannot be hoarded: most shops know no hangover.
    hoarded_B1 = draw.chance(0.3, 1)
    return size_B1 * hoarded_B1 * ended_BS


def promotions(draw: Seeded, steps: int, hour_steps: float) -> tuple[Tensor, Tensor]:
    """Depth of discount at every step, and where a flash sale runs: [B, S] each.

    Promotions come as single ones or, in three rows of ten, in a fixed rhythm of weeks.
    """
    # Up to four promotions of six hours to two weeks, and up to four flash sales of some hours.
    longest_sale = max(24 * 14 * hour_steps, 4.0)
    sale_BNS = draw.intervals(steps, 4, 6 * hour_steps, longest_sale)
    longest_flash = max(8 * hour_steps, 2.0)
    flash_BNS = draw.intervals(steps, 4, hour_steps, longest_flash)
    # Whether each one takes place, and whether a row has any: items without must be common.
    sale_BNS = sale_BNS * draw.chance(0.5, 4, 1)
    sale_BNS = sale_BNS * draw.chance(0.7, 1, 1)
    flash_BNS = flash_BNS * draw.chance(0.5, 4, 1)
    flash_BNS = flash_BNS * draw.chance(0.5, 1, 1)
    rhythmic_BS = _rhythm(draw, steps, hour_steps)
    sale_depth_BN1 = draw.uniform(0.05, 0.4, 4, 1)
    single_BS = (sale_BNS * sale_depth_BN1).amax(1)
    in_rhythm_B1 = draw.chance(0.3, 1) > 0
    depth_BS = torch.where(in_rhythm_B1, rhythmic_BS, single_BS)
    # Flash sales cut deeper than promotions; where both run, the deeper one holds.
    flash_depth_BN1 = draw.uniform(0.2, 0.7, 4, 1)
    flash_depth_BS = (flash_BNS * flash_depth_BN1).amax(1)
    depth_BS = torch.maximum(depth_BS, flash_depth_BS)
    return depth_BS, flash_BNS.amax(1)


def _rhythm(draw: Seeded, steps: int, hour_steps: float) -> Tensor:
    """Depth of a discount that comes back every one to four weeks: [B, S]."""
    week_steps = max(round(168 * hour_steps), 4)
    weeks_B = draw.choice(RHYTHM_WEEKS)
    period_B1 = weeks_B[:, None] * week_steps
    index_S = draw.index(steps)
    shift_B1 = draw.unit(1) * period_B1
    turn_BS = (index_S + shift_B1) % period_B1 / period_B1
    # It runs for 15 to 60 % of its period.
    running_share_B1 = draw.uniform(0.15, 0.6, 1)
    on_BS = (turn_BS < running_share_B1).float()
    depth_B1 = draw.uniform(0.05, 0.4, 1)
    return on_BS * depth_B1


def promotion_shape(
    draw: Seeded,
    promotion_BS: Tensor,
    time_BS: Tensor,
    hour_steps: float,
) -> Tensor:
    """How a promotion's effect varies within its run and over the week, around one: [B, S]."""
    # The newest step without a promotion is the one before it began.
    index_S = draw.index(promotion_BS.shape[1])
    without_BS = torch.where(promotion_BS > 0, -1, index_S)
    before_BS = without_BS.cummax(1).values
    since_BS = (index_S - before_BS).clamp(min=0)
    days_BS = since_BS / max(24 * hour_steps, 1.0)
    # Half of the rows sell most, or least, on the first day, and this wears off within days.
    size_B1 = draw.normal(0.4, 1)
    size_B1 = size_B1 * draw.chance(0.5, 1)
    fading_days_B1 = draw.uniform(0.7, 4.0, 1)
    fading_BS = size_B1 * torch.exp(-days_BS / fading_days_B1)
    # A discount on Saturday is not one on Tuesday: who comes then differs.
    weekly_B7 = draw.normal(0.25, 7)
    weekly_B7 = weekly_B7 * draw.chance(0.4, 1)
    weekly_BS = weekly_B7.gather(1, weekday(time_BS))
    return (1.0 + fading_BS + weekly_BS).clamp(0.0, 2.0)
