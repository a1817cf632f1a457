"""What is measured of a challenger once, when it is new, and held against every look. Pure.

These are facts of two networks, not of the days that come: what was forgotten, how far the
challenger is from the shipped weights, how fast it is, and what it does at other resolutions.
"""

from __future__ import annotations

import msgspec
import numpy as np

from freshet.online.judge.gain import MIN_BLOCKS, relative_gain
from freshet.stream.arrays import Floats

MIN_ITEMS = 5
GUARD_CONFIDENCE = 0.95


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """What the challenger did at another served resolution.

    Attributes:
        resolution_ms: Length of a bucket, as forecasts name it.
        loss: By how much of the champion's losses the challenger's are more.
        surely: It is worse by more than chance explains.
        few: There are too few blocks or items to tell what is chance.
        blocks, items: How many.
        finite: All of its forecasts are.
        seconds: Wall time that reading and forecasting took.
    """

    resolution_ms: int
    loss: float
    surely: bool
    few: bool
    blocks: int
    items: int
    finite: bool
    seconds: float = 0.0


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of both versions when the challenger was new.

    Attributes:
        finite: The challenger's parameters are.
        anchor_loss: By how much of the champion's loss on windows from before the drift the
            challenger's is more.
        anchor_loss_to_base: The same, held against the shipped weights: what a row of champions
            forgot, each a little.
        latency_ratio: Time of one forecast of the same batch over the champion's, by turns.
        guards: What it did at every other resolution that is served.
    """

    finite: bool = True
    anchor_loss: float = 0.0
    anchor_loss_to_base: float = 0.0
    latency_ratio: float = 1.0
    guards: tuple[Guarded, ...] = ()


def paired(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Both with NaN in the same cells: one counts where both losses are known."""
    both = np.isfinite(first) & np.isfinite(second)
    return np.where(both, first, np.nan), np.where(both, second, np.nan)


def relative_loss(first: Floats, second: Floats) -> float:
    """By how much of the first's losses the second's are more; 0 where there are none.

    >>> relative_loss(np.array([1.0, 3.0, np.nan]), np.array([2.0, 3.0, 1.0]))
    0.25
    """
    first, second = paired(first, second)
    before = float(np.nansum(first))
    return float(np.nansum(second)) / before - 1.0 if before > 0 else 0.0


def guarded(
    champion_IT: Floats,
    challenger_IT: Floats,
    *,
    resolution_ms: int,
    finite: bool,
    seconds: float = 0.0,
) -> Guarded:
    """What losses of items and buckets at another resolution say; nothing where there are none."""
    champion_IT, challenger_IT = paired(champion_IT, challenger_IT)
    # The champion's gain over the challenger.
    harm = relative_gain(
        challenger_IT, champion_IT, resolution_ms=resolution_ms, confidence=GUARD_CONFIDENCE
    )
    return Guarded(
        resolution_ms=resolution_ms,
        loss=relative_loss(champion_IT, challenger_IT),
        surely=harm.low > 0.0,
        few=harm.num_blocks < MIN_BLOCKS or harm.num_items < MIN_ITEMS,
        blocks=harm.num_blocks,
        items=harm.num_items,
        finite=finite,
        seconds=round(seconds, 3),
    )
