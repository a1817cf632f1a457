"""Groups as series of a panel beside its items, and the levels of any window of it.

Dimensions: N items, G groups, X = G + N series, L steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from freshet.model.predict.coherent import levels_of
from freshet.model.tables.hierarchy import Grouping, members_of
from freshet.model.tables.panel import Panel, Window
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError


class Parts(NamedTuple):
    """A window's series by level, groups first, and where each of them is in the window."""

    windows: list[Window]
    members_GN: csr_array
    row_X: Ints


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The items of a panel, and the groups that are series of it too."""

    items: tuple[str, ...]
    groupings: tuple[Grouping, ...]

    def parts(self, window: Window) -> Parts:
        """The levels of a window of the panel, whose groups are added up from its items alone."""
        row = {name: place for place, name in enumerate(window.item_ids)}
        there = [place for place, name in enumerate(self.items) if name in row]
        items = window.rows(np.array([row[self.items[place]] for place in there]))
        groupings = [_of_items(grouping, there) for grouping in self.groupings]
        names = [*(name for each in groupings for name in called(each)), *items.item_ids]
        order = np.array([row[name] for name in names])
        return Parts(levels_of(items, groupings), members_of(groupings), order)


def called(grouping: Grouping) -> list[str]:
    """The names of groups as series of a panel: "store 7", and the total as it is."""
    return [
        name if name == grouping.name else f"{grouping.name} {name}" for name in grouping.groups
    ]


def _of_items(grouping: Grouping, there: list[int]) -> Grouping:
    """The groups that some of the items make."""
    used, group_N = np.unique(grouping.group_N[there], return_inverse=True)
    return Grouping(grouping.name, tuple(grouping.groups[group] for group in used), group_N)


def with_groups(
    panel: Panel, groupings: Sequence[Grouping], item_level: str
) -> tuple[Panel, Hierarchy]:
    """A panel of items, which end together, with their groups as series: "store 7".

    What a group sold where some of its items are missing is told by what these usually sell.

    Raises:
        InvalidInputError: an item is called as a group.
    """
    *of_groups, items = levels_of(panel.whole(), groupings)
    parts = [items, *of_groups]
    groups = [name for grouping in groupings for name in called(grouping)]
    both = sorted(set(groups) & set(panel.item_ids))
    if both:
        raise InvalidInputError(
            f"{both[0]!r} would be an item and a group", hint="call the item otherwise"
        )
    sizes = [len(panel), *(len(each.groups) for each in groupings)]
    clocks = [part.local_ms_NS for part in parts if part.local_ms_NS is not None]
    found = replace(
        panel,
        item_ids=(*panel.item_ids, *groups),
        keys=(),
        length_N=np.concatenate([part.length_N for part in parts if part.length_N is not None]),
        time_ms_NL=np.concatenate([part.time_ms_NS for part in parts]),
        target_NL=np.concatenate([part.target_NT for part in parts]),
        known_NLK=np.concatenate([part.known_NSK for part in parts]),
        past_NLP=np.concatenate([part.past_NTP for part in parts]),
        static={name: _filled(values, len(groups)) for name, values in panel.static.items()},
        clock_ms_NL=np.concatenate(clocks) if clocks else None,
        level_N=tuple(np.repeat([item_level, *(each.name for each in groupings)], sizes).tolist()),
    )
    return found, Hierarchy(panel.item_ids, tuple(groupings))


def _filled(values_N: Floats | NDArray[np.object_], groups: int) -> Floats | NDArray[np.object_]:
    """What is said of items alone, missing for groups."""
    missing = None if values_N.dtype == object else np.nan
    return np.concatenate([values_N, np.full(groups, missing, values_N.dtype)])
