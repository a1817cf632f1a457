"""Values that say nothing of what comes: single spikes of sales, and clicks that nobody buys after.

Each series is looked at alone. Dimensions: N series, T context steps, P past slots.
"""

from __future__ import annotations

import numpy as np

from freshet.stream.arrays import Bools, Floats, Singles

# What so few of a series' values reach, and a multiple of all others, is no demand but a mistake or
# an order that does not come again.
RARE_SHARE = 0.01
SPIKE = 5.0
# Clicks end at so many times the 95 % level of their time of day, or day of the week, unless sales
# grew as much.
USUAL_LEVEL = 0.95
CLICK_SURGE = 1.5
FEWEST_CYCLES = 10
FEWEST_STEPS = 20


def without_spikes(target_NT: Floats, told_NT: Bools) -> Floats:
    """Targets of which single ones are at most SPIKE times the largest of the others: [N, T].

    Args:
        target_NT: units >= 0, NaN where missing.
        told_NT: steps with a promotion or an event, which may sell what no other does.

    >>> sales = np.r_[np.full(99, 10.0), 1e6][None]
    >>> without_spikes(sales, sales < 0)[0, -2:].tolist()
    [10.0, 50.0]
    """
    T = target_NT.shape[1]
    if T < FEWEST_STEPS:
        return target_NT
    rare = 1 + int(RARE_SHARE * T)
    plain_NT = np.where(np.isfinite(target_NT) & ~told_NT, target_NT, 0.0)
    largest_NX = np.partition(plain_NT, (T - rare - 1, T - 1), axis=1)
    other_N1 = largest_NX[:, [T - rare - 1]]
    most_N1 = np.where(other_N1 > 0, SPIKE * other_N1, np.inf)
    if not (largest_NX[:, [-1]] > most_N1).any():
        return target_NT
    return np.where(told_NT, target_NT, np.minimum(target_NT, most_N1))


def bought_clicks(
    past_NTP: Singles, target_NT: Floats, slots: tuple[int, ...], period: int
) -> Singles:
    """Clicks no further above their usual level than sales are above theirs: [N, T, P].

    A bot looks at everything and buys nothing; a surge with orders behind it is one.

    Args:
        past_NTP: counts in the order of PAST_SLOTS.
        target_NT: units.
        slots: those that hold clicks.
        period: steps of a cycle.
    """
    sales_NT = np.nan_to_num(target_NT)
    surge_NT = sales_NT / np.maximum(_usual(sales_NT, period), 1.0)
    tamed_NTP = past_NTP.copy()
    for slot in slots:
        clicks_NT = past_NTP[..., slot]
        if np.isfinite(clicks_NT).any():
            usual_NT = np.maximum(_usual(np.nan_to_num(clicks_NT), period), 1.0)
            most_NT = CLICK_SURGE * usual_NT * np.maximum(surge_NT, 1.0)
            tamed_NTP[..., slot] = np.minimum(clicks_NT, most_NT)
    return tamed_NTP


def _usual(values_NT: Floats | Singles, period: int) -> Floats:
    """The level that one cycle of twenty exceeds at each step's phase: [N, T].

    That of all steps where the cycles are few.
    """
    N, T = values_NT.shape
    cycles = T // period
    if cycles < FEWEST_CYCLES:
        period, cycles = 1, T
    folded_NCP = values_NT[:, T - cycles * period :].reshape(N, cycles, period)
    place = int(USUAL_LEVEL * (cycles - 1))
    usual_NP = np.partition(folded_NCP, place, axis=1)[:, place].astype(np.float64)
    phase_T = np.arange(-T, 0) % period
    usual_NT: Floats = usual_NP[:, phase_T]
    return usual_NT
