"""Items and the groups that they add up to, forecast by one model and brought to say the same.

Each level's series are forecast apart, as a table of their own, also at a few earlier cutoffs: how
errors of those moved together is how the next ones will.

Dimensions: N items, G groups, X = G + N series, groups first; H horizon steps, E past errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array

from freshet.model.effects.columns import buyable
from freshet.model.quantiles.reconcile import Coherent, normal_places, reconcile
from freshet.model.tables.hierarchy import Grouping, summed
from freshet.model.tables.panel import Window
from freshet.stream.arrays import Floats

Quantiles = Callable[[int, Window, tuple[float, ...]], Floats]

# Earlier cutoffs, a horizon apart: so many, or more of short horizons until there are as many
# steps, but never more than the other number.
CUTOFFS = 4
STEPS = 32
MOST_CUTOFFS = 8
# An earlier cutoff needs so many horizons before it.
HORIZONS_BEFORE = 2


def levels_of(window: Window, groupings: Sequence[Grouping]) -> list[Window]:
    """The series of each level, those of the items last."""
    # What nobody could buy is missing in a sum too.
    items = buyable(window)
    return [*(summed(items, grouping) for grouping in groupings), window]


def earlier_cutoffs(window: Window) -> list[int]:
    """Steps back from the end of a window to cutoffs whose forecasts can be judged."""
    H = window.horizon
    wanted = min(max(CUTOFFS, -(-STEPS // H)), MOST_CUTOFFS)
    possible = window.context_length // H - HORIZONS_BEFORE
    return [H * (place + 1) for place in range(min(wanted, possible))]


def forecasts_needed(window: Window, groupings: Sequence[Grouping]) -> int:
    """How many series will be forecast in all."""
    if not groupings:
        return len(window)
    series = len(window) + sum(len(grouping.groups) for grouping in groupings)
    return series * (1 + len(earlier_cutoffs(window)))


def coherent_forecast(
    forecast: Quantiles,
    parts: Sequence[Window],
    members_GN: csr_array,
    levels: tuple[float, ...],
) -> Coherent:
    """Quantiles of all series after the windows' end, and means that add up.

    Args:
        forecast: quantiles of the horizon of the n-th level's window, [N, H, Q].
        parts: the series of each level, all up to one cutoff, items last.
        members_GN: which items belong to which group of the other levels.
        levels: of the quantiles: many, since they stand for whole distributions.
    """

    def quantiles(back: int) -> Floats:
        windows = [part.earlier(back) if back else part for part in parts]
        made = [forecast(place, window, levels) for place, window in enumerate(windows)]
        return np.concatenate(made)

    places: list[Floats] = []
    for back in earlier_cutoffs(parts[-1]):
        came_XH = np.concatenate([_came(part, back) for part in parts])
        places.append(normal_places(came_XH, quantiles(back), levels))
    own_XHQ = quantiles(0)
    places_XE = np.concatenate(places, 1) if places else np.zeros((len(own_XHQ), 0))
    return reconcile(own_XHQ, levels, members_GN, places_XE)


def _came(window: Window, back: int) -> Floats:
    """What came in the horizon after a cutoff `back` steps before the window's end: [N, H]."""
    first = window.context_length - back
    return window.target_NT[:, first : first + window.horizon]
