"""How a worker's quantiles are served at other levels of the network, as the owner decided.

Dimensions: B rows, H steps, Q levels of the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from freshet.online.adjust.decision import ALL, ByDecision
from freshet.online.adjust.levels import UPPER, served
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.schemas import QuantileMap

# A day's decision that was missed changes nothing; where nobody has decided for longer, quantiles
# are the network's own.
HOLDS_BUCKETS = 72


@dataclass(eq=False)
class Calibrated(ByDecision):
    """The maps by which items are served.

    Attributes:
        name: The decision that holds; empty where none does.
    """

    name: str = field(default="", init=False)
    _maps: list[QuantileMap] = field(default_factory=list, init=False)

    def begin(self, cutoff_ms: int) -> None:
        """A round begins; what is decided from now on counts for the next one."""
        newest = self.decisions.newest_maps(self.resolution_ms, cutoff_ms)
        decided = self._holding(newest, cutoff_ms, HOLDS_BUCKETS)
        self._maps = [] if decided is None else decided.record.maps
        self.name = decided.sha256 if decided is not None and self._maps else ""

    def places(
        self, item_ids: Sequence[str], quantiles_BHQ: Floats, levels_Q: Sequence[float]
    ) -> Ints | None:
        """By which map each step is served, from 1 on, 0 by none: [B, H]; None: all by none."""
        if not self._maps:
            return None
        segment_B = np.array(self.segments(item_ids), object)
        upper_BH = quantiles_BHQ[..., list(levels_Q).index(UPPER)]
        places_BH = np.zeros(upper_BH.shape, np.int64)
        # What is said of a segment counts for more than what is said of the whole shop.
        numbers = sorted(range(len(self._maps)), key=lambda n: self._maps[n].segment != ALL)
        for number in numbers:
            one = self._maps[number]
            covers_BH = covered(one, upper_BH)
            if one.segment != ALL:
                covers_BH &= (segment_B == one.segment)[:, None]
            places_BH[covers_BH] = number + 1 if one.levels else 0
        return places_BH if places_BH.any() else None

    def moved(self, quantiles_BHQ: Floats, levels_Q: Sequence[float], places_BH: Ints) -> Floats:
        """Quantiles as they are served; those of place 0 are the same to the last bit."""
        found_BHQ = quantiles_BHQ.copy()
        for place in np.unique(places_BH[places_BH > 0]).tolist():
            at_BH = places_BH == place
            levels = self._maps[place - 1].levels
            found_BHQ[at_BH] = served(quantiles_BHQ[at_BH], levels_Q, np.array(levels))
        return found_BHQ


def covered(one: QuantileMap, upper_BH: Floats) -> Bools:
    """Which steps a map is about, whatever their segment."""
    step_H = np.arange(1, upper_BH.shape[1] + 1)
    last = upper_BH.shape[1] if one.last_step is None else one.last_step
    within_H = (one.first_step <= step_H) & (step_H <= last)
    below = np.inf if one.below_units is None else one.below_units
    return np.asarray(within_H & (one.from_units <= upper_BH) & (upper_BH < below))
