"""A promotion that is not decided yet, written into a window as its table would say it.

Dimensions: N series, T context steps, S context and horizon steps, K known covariates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from freshet.model.effects.columns import NAMES
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Bools, Floats
from freshet.stream.errors import InvalidInputError

KINDS = ("discount", "price", "promotion")  # in the order in which a column's name is tried
REDUCED = 0.97  # of the usual price: what is below it was a promotion


@dataclass(frozen=True, slots=True)
class PlannedPromotion:
    """A promotion that might be planned.

    Attributes:
        steps: of the horizon, from 0.
        discount: share of the price that is taken off, 0 to below 1; 0 is a promotion without a
            lower price.

    Raises:
        InvalidInputError: the discount is not in that range.
    """

    steps: range
    discount: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.discount < 1.0:
            raise InvalidInputError(
                f"a discount of {self.discount}; expected 0 to below 1, such as 0.2 for 20 % off"
            )


def planned_window(window: Window, row: int, promotion: PlannedPromotion, *, on: bool) -> Window:
    """The window with a promotion in some steps of one row's horizon, or with plain prices.

    Every flag that the network reads as a promotion is set, a discount is given as the column gives
    it (0.2 or 20), and a price is the series' usual one less the discount.

    Raises:
        InvalidInputError: no known covariate says anything about promotions or prices.
    """
    known_NSK = window.known_NSK.copy()
    T = window.context_length
    steps = slice(T + promotion.steps.start, T + promotion.steps.stop)
    kinds = _kinds(window)
    if not kinds:
        raise InvalidInputError(
            "no known column is about promotions, discounts or prices, so nothing says what one "
            "does",
            hint="name such a column with --known; its name should say what it is, such as promo, "
            "discount or price",
        )
    for column, kind in kinds:
        values_S = known_NSK[row, :, column]
        if kind == "promotion":
            values_S[steps] = float(on)
        elif kind == "discount":
            percent = np.nanmax(window.known_NSK[..., column], initial=0.0) > 1.0
            values_S[steps] = on * promotion.discount * (100.0 if percent else 1.0)
        else:
            usual = _median(values_S[:T])
            values_S[steps] = usual * (1.0 - on * promotion.discount)
    return replace(window, known_NSK=known_NSK)


def _kinds(window: Window) -> list[tuple[int, str]]:
    """Known columns about promotions, discounts and prices, as the network's slots take them."""
    found = []
    for column, name in enumerate(window.known_names):
        kind = next((kind for kind in KINDS if re.search(NAMES[kind], name.lower())), None)
        values = window.known_NSK[..., column]
        only_flags = bool(np.isin(values[np.isfinite(values)], (0.0, 1.0)).all())
        # A column of kinds, such as "promo=coupon", or of amounts is no flag to be set.
        if kind == "promotion" and ("=" in name or not only_flags):
            continue
        if kind is not None:
            found.append((column, kind))
    return found


def ever_promoted(window: Window, row: int) -> bool:
    """Whether the series had a flag, a discount or a price well below its usual one before."""
    return bool(promoted_steps(window.rows(slice(row, row + 1))).any())


def promoted_steps(window: Window) -> Bools:
    """Steps before the cutoff with a flag, a discount or a price well below the usual: [N, T]."""
    found_NT = np.zeros(window.target_NT.shape, bool)
    for column, kind in _kinds(window):
        values_NT = window.known_NSK[:, : window.context_length, column]
        usual_N1 = np.array([[_median(values_T)] for values_T in values_NT])
        found_NT |= values_NT < REDUCED * usual_N1 if kind == "price" else values_NT > 0
    return found_NT


def _median(values_T: Floats) -> float:
    seen = values_T[np.isfinite(values_T)]
    return float(np.median(seen)) if len(seen) else float("nan")
