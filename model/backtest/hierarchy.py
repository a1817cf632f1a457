"""A comparison on a table with levels: groups are series too, and forecasts may be made to add up.

Dimensions: N series, items first, then groups; H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from freshet.model.baselines import Model
from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.levels import at_levels
from freshet.model.predict.coherent import coherent_forecast, levels_of
from freshet.model.predict.files import whole_frame
from freshet.model.tables.hierarchy import Grouping, groupings_of, members_of
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import TableSettings, read_panel
from freshet.stream.arrays import Floats, Ints
from freshet.stream.errors import InvalidInputError

COHERENT = "coherent:"


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


class ByLevel:
    """A model that forecasts each level's series as a table of their own."""

    def __init__(self, make: Callable[[], Model], hierarchy: Hierarchy) -> None:
        self._make, self._hierarchy = make, hierarchy
        self._model = make()
        self._fitted: list[Model] = []
        self.name, self.needs_fit = self._model.name, self._model.needs_fit

    def fit(self, window: Window) -> None:
        """Fit one model a level."""
        self._fitted = []
        for part in self._hierarchy.parts(window).windows:
            model = self._make()
            model.fit(part)
            self._fitted.append(model)

    def predict(self, window: Window, levels: tuple[float, ...]) -> Floats:
        """Quantiles [N, H, Q]."""
        parts = self._hierarchy.parts(window)
        made_NHQ = self._quantiles(parts, levels)
        found_NHQ = np.empty_like(made_NHQ)
        found_NHQ[parts.row_X] = made_NHQ
        return found_NHQ

    def _quantiles(self, parts: Parts, levels: tuple[float, ...]) -> Floats:
        """Of each level's series one after the other."""
        made = [self._of_level(place, part, levels) for place, part in enumerate(parts.windows)]
        return np.concatenate(made)

    def _of_level(self, place: int, part: Window, levels: tuple[float, ...]) -> Floats:
        model = self._fitted[place] if self._fitted else self._model
        return model.predict(part, levels)


class Coherent(ByLevel):
    """The same, brought to one distribution in which items add up to their groups."""

    def __init__(self, make: Callable[[], Model], hierarchy: Hierarchy) -> None:
        super().__init__(make, hierarchy)
        self.name = COHERENT + self.name

    def _quantiles(self, parts: Parts, levels: tuple[float, ...]) -> Floats:
        own_Q = tuple(QUANTILE_LEVELS)
        found = coherent_forecast(self._of_level, parts.windows, parts.members_GN, own_Q)
        return at_levels(found.quantiles_XHQ, np.array(own_Q), np.array(levels))


def called(grouping: Grouping) -> list[str]:
    """The names of groups as series of a panel: "store 7", and the total as it is."""
    return [
        name if name == grouping.name else f"{grouping.name} {name}" for name in grouping.groups
    ]


def _of_items(grouping: Grouping, there: list[int]) -> Grouping:
    """The groups that some of the items make."""
    used, group_N = np.unique(grouping.group_N[there], return_inverse=True)
    return Grouping(grouping.name, tuple(grouping.groups[group] for group in used), group_N)


def panel_with_groups(
    source: Path, settings: TableSettings, names: Sequence[str]
) -> tuple[Panel, Hierarchy]:
    """The series of a file's items and of their groups, which are called "store 7".

    What a group sold where some of its items are missing is told by what these usually sell.

    Raises:
        InvalidInputError: the table or its levels cannot be used.
    """
    if settings.end == "own":
        raise InvalidInputError("series that end each on its own do not add up")
    columns = settings.columns
    roles = {"id_column": columns.item_id, "timestamp_column": columns.time}
    frame = whole_frame(source, roles, settings.file)
    panel = read_panel(frame, replace(settings, end="common"))
    keys = panel.keys or panel.item_ids
    groupings = groupings_of(frame, columns.item_id, keys, names)
    return _with_groups(panel, groupings, columns.item_id)


def _with_groups(
    panel: Panel, groupings: Sequence[Grouping], item_level: str
) -> tuple[Panel, Hierarchy]:
    *of_groups, items = levels_of(_whole(panel), groupings)
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


def _whole(panel: Panel) -> Window:
    """All of a panel as a past without a horizon."""
    return Window(
        item_ids=panel.item_ids,
        frequency=panel.frequency,
        resolution_ms=panel.resolution_ms,
        season_length=panel.season_length,
        time_ms_NS=panel.time_ms_NL,
        target_NT=panel.target_NL,
        known_NSK=panel.known_NLK,
        past_NTP=panel.past_NLP,
        known_names=panel.known_names,
        past_names=panel.past_names,
        static=panel.static,
        length_N=panel.length_N,
        country=panel.country,
        local_ms_NS=panel.clock_ms_NL,
    )
