"""Records while they are judged, and what was found to be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from freshet.stream.events.limits import Refusals
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.levels import Level, Wrong
from freshet.stream.events.map.missing import missing, record_of
from freshet.stream.events.order_lines import Index


@dataclass(frozen=True, slots=True)
class Judged:
    """Some records of a slice: their bytes, places and raw columns, and what is wrong with them.

    `values` are those of the whole slice, `index` the places in it; `only` names the one line that
    some stand for, by their position in `index`.
    """

    values: Sequence[bytes | None]
    index: Index
    level: Level
    only: Mapping[int, int]
    refused: Refusals

    def refuse(self, wrong: Mapping[int, Wrong]) -> None:
        """Note what is wrong with records, by their position among those judged."""
        for n, why in wrong.items():
            self.refused.add(int(self.index[n]), *why)

    def known_wrong(self) -> dict[int, Wrong]:
        """What is wrong with records, by their position."""
        by_index = self.refused.by_index
        if not by_index:
            return {}
        found = enumerate(self.index.tolist())
        return {
            n: (by_index[i].error_class, by_index[i].message) for n, i in found if i in by_index
        }

    def refuse_missing(self, compiler: Compiler, name: str, places: Sequence[int]) -> None:
        """Note that a field is missing, where nothing worse is known."""
        for n in places:
            index = int(self.index[n])
            if index not in self.refused.by_index:
                record = record_of(self.values[index])
                self.refused.add(index, *missing(compiler, name, record))
