"""A comparison on a table with levels: groups are series too, and forecasts may be made to add up.

Dimensions: N series, items first, then groups; H horizon steps, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from freshet.model.baselines import Model
from freshet.model.batch import QUANTILE_LEVELS
from freshet.model.levels import at_levels
from freshet.model.predict.coherent import coherent_forecast
from freshet.model.predict.files import whole_frame
from freshet.model.predict.groups import Hierarchy, Parts, with_groups
from freshet.model.tables.hierarchy import groupings_of
from freshet.model.tables.panel import Panel, Window
from freshet.model.tables.table import TableSettings, read_panel
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError

COHERENT = "coherent:"


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
    return with_groups(panel, groupings, columns.item_id)
