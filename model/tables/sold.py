"""Tells a table that has rows only for steps that sold something from one that lacks values.

Dimensions: N series, L steps.
"""

from __future__ import annotations

import numpy as np

from freshet.model.tables.told import tell
from freshet.stream.arrays import Bools, Floats, Ints

GAPS = 0.1
FEW = 30


def tell_if_only_sold(target_NL: Floats, inside_NL: Bools, time_ms_NL: Ints) -> None:
    """Warn where rows seem to be there only if something was sold.

    No target is 0, though of the steps on which others have one, a series lacks many: a forecast of
    the steps that sold is no forecast of sales.
    """
    seen_NL = np.isfinite(target_NL)
    if seen_NL.sum() < FEW or (target_NL[seen_NL] == 0.0).any():
        return
    sold_ms = np.unique(time_ms_NL[seen_NL])
    sells_N1 = seen_NL.any(1, keepdims=True)
    traded_NL = inside_NL & sells_N1 & np.isin(time_ms_NL, sold_ms)
    share = float((traded_NL & ~seen_NL).sum()) / max(int(traded_NL.sum()), 1)
    if share > GAPS:
        tell(
            f"{100 * share:.0f} % of the steps of a series have no target while others sold, and "
            "no target is 0: these steps count as unknown; where rows exist only for steps that "
            "sold anything, say that missing ones are zero"
        )
