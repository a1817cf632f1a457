"""The item_ids of lines: a table that grows, and the place of each line's item_id in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Ints
from freshet.stream.events.limits import MAX_KEY_BYTES, Refusals
from freshet.stream.schemas import item_id_of

MAX_CACHED_ITEM_IDS: Final = 500_000

Index = npt.NDArray[np.intp]
Fields = Sequence[Sequence[Any]]
"""One sequence a field, all of one length."""

_UNNAMED: Final = -1


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines while they are checked, with None where an amount is missing.

    `record` is a position among the decoded records.
    """

    record: Index
    series: Fields
    quantity: Sequence[float | None] = ()
    unit_price: Sequence[float | None] = ()


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

    def places(self, lines: Lines, index: Index, refused: Refusals) -> Ints:
        """The place of each line's item_id; that of a refused record means nothing."""
        item_ids = self._joined(lines, index, refused)
        found = map(self._place_of.get, item_ids, repeat(_UNNAMED))
        places = np.fromiter(found, np.int64, len(item_ids))
        for n in np.flatnonzero(places == _UNNAMED).tolist():
            places[n] = self._place(item_ids[n], int(index[lines.record[n]]), refused)
        return places

    def _joined(self, lines: Lines, index: Index, refused: Refusals) -> list[str]:
        try:
            item_ids = list(map("|".join, zip(*lines.series, strict=True)))
        except TypeError:
            return [self._checked(n, lines, index, refused) for n in range(len(lines.record))]
        text = "".join(item_ids)
        if "\\" in text or text.count("|") != (len(self._series_by) - 1) * len(item_ids):
            return [item_id_of(list(values)) for values in zip(*lines.series, strict=True)]
        return item_ids

    def _checked(self, line: int, lines: Lines, index: Index, refused: Refusals) -> str:
        """The item_id of a line that may lack a field."""
        values = [column[line] for column in lines.series]
        if None in values:
            missing = self._series_by[values.index(None)]
            text = f"the field {missing!r} is missing"
            refused.add(int(index[lines.record[line]]), "MissingField", text)
        return item_id_of([value or "" for value in values])

    def _place(self, item_id: str, index: int, refused: Refusals) -> int:
        """The place of an item_id that was new a moment ago."""
        size = len(item_id.encode())
        if size > MAX_KEY_BYTES:
            text = f"the item_id has {size} bytes, expected at most {MAX_KEY_BYTES}"
            refused.add(index, "OversizedKey", text)
        elif index not in refused.by_index:
            place = self._place_of.setdefault(item_id, len(self.item_ids))
            if place == len(self.item_ids):
                self.item_ids.append(item_id)
            return place
        return _UNNAMED
