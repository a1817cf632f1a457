"""The item_ids of lines: a table that grows, and the place of each line's item_id in it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Final

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.events.limits import MAX_KEY_BYTES
from freshet.stream.events.map.levels import Column, Wrong
from freshet.stream.schemas import item_id_of

MAX_CACHED_ITEM_IDS: Final = 500_000

_UNNAMED: Final = -1


class ItemNames:
    """Item ids, each with its place in a table; bounded."""

    def __init__(self, series_by: tuple[str, ...]) -> None:
        self._series_by = series_by
        self.item_ids: list[str] = []
        self._place_of: dict[str, int] = {}

    def forget_when_full(self) -> None:
        """Begin another table; whoever holds the old one keeps it."""
        if len(self.item_ids) >= MAX_CACHED_ITEM_IDS:
            self.item_ids, self._place_of = [], {}

    def places(self, series: Sequence[Column], wrong: dict[int, Wrong]) -> Ints:
        """The place of each line's item_id; that of a line that is wrong means nothing.

        Args:
            series: A column of texts for each field of a series; None only where a line is wrong.
            wrong: What is wrong with lines, by their place; a name that is too long is added.
        """
        item_ids = self._joined(series)
        found = map(self._place_of.get, item_ids, repeat(_UNNAMED))
        places = np.fromiter(found, np.int64, len(item_ids))
        for n in np.flatnonzero(places == _UNNAMED).tolist():
            if n not in wrong:
                places[n] = self._place(item_ids[n], n, wrong)
        return places

    def _joined(self, series: Sequence[Column]) -> list[str]:
        try:
            item_ids = list(map("|".join, zip(*series, strict=True)))
        except TypeError:  # Some lines are wrong.
            rows = zip(*series, strict=True)
            return [item_id_of([value or "" for value in values]) for values in rows]
        text = "".join(item_ids)
        if "\\" in text or text.count("|") != (len(self._series_by) - 1) * len(item_ids):
            return [item_id_of(list(values)) for values in zip(*series, strict=True)]
        return item_ids

    def _place(self, item_id: str, line: int, wrong: dict[int, Wrong]) -> int:
        """The place of an item_id that was new a moment ago."""
        size = len(item_id.encode())
        if size > MAX_KEY_BYTES:
            text = f"the item_id has {size} bytes, expected at most {MAX_KEY_BYTES}"
            wrong[line] = ("OversizedKey", text)
            return _UNNAMED
        place = self._place_of.setdefault(item_id, len(self.item_ids))
        if place == len(self.item_ids):
            self.item_ids.append(item_id)
        return place
