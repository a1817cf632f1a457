"""What a click says besides when it was: what was done, to which item or items."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import Any, Final

import numpy as np

from freshet.stream.event_settings import EventSettings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.item_names import ItemNames
from freshet.stream.events.judged import Judged
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.levels import Paths, Wrong
from freshet.stream.events.map.names import LINES
from freshet.stream.events.map.shapes import Shape
from freshet.stream.events.order_lines import OrderLines
from freshet.stream.schemas import CHANNEL_OF_CLICK, CHANNELS, ClickKind

_CHANNEL_NUMBER: Final[dict[str | None, int]] = {
    kind: CHANNELS.index(channel) for kind, channel in CHANNEL_OF_CLICK.items()
}


class ClickFields:
    """The fields of clicks."""

    def __init__(self, compiler: Compiler, events: EventSettings, names: ItemNames) -> None:
        self._compiler = compiler
        self._names = names
        self._series = [compiler.text(name) for name in events.series_by]
        self._kind = compiler.text("kind")
        self.lines: OrderLines | None = None
        """Where the map says that clicks have several items."""
        if LINES in events.fields_of("clicks"):
            self.lines = OrderLines("clicks", compiler, events, names)
            self.shape: Shape = self.lines.shape
        else:
            self.shape = compiler.slots.shape("Click", self._known_kinds(events))

    def _known_kinds(self, events: EventSettings) -> dict[int, Any]:
        """The kinds of clicks as a type, where none of them stands for another.

        Decoded so, equal texts are one object, and looking them up takes half the time.
        """
        source, section = self._kind.source, events.clicks
        if self._kind.words or section.skip_when or section.keep_when:
            return {}
        if not isinstance(source, Paths) or len(source.slots) > 1:
            return {}
        return {source.slots[0]: ClickKind | None}

    def add_to(self, columns: Decoded, part: Judged) -> Decoded:
        """Columns with what was done to which items; of clicks with lines to each record."""
        level = part.level
        kinds = self._kind.read(level)
        part.refuse(kinds.wrong)
        found = map(_CHANNEL_NUMBER.get, kinds.values, repeat(0))
        channel = np.fromiter(found, np.int64, level.size)
        unknown = np.flatnonzero(channel == 0).tolist()
        part.refuse_missing(self._compiler, "kind", [n for n in unknown if kinds.values[n] is None])
        part.refuse({n: _unknown_kind(kinds.values[n]) for n in unknown})
        if self.lines is not None:
            return replace(columns, channel=channel)
        series = []
        for field in self._series:
            texts = field.read(level)
            part.refuse(texts.wrong)
            part.refuse_missing(self._compiler, field.name, texts.lacking)
            series.append(texts.values)
        wrong = part.known_wrong()
        names = self._names.places(series, wrong)
        part.refuse(wrong)
        return replace(columns, line_name=names, channel=channel)


def _unknown_kind(kind: str | None) -> Wrong:
    known = ", ".join(CHANNEL_OF_CLICK)
    text = f"the kind of click is {str(kind)[:40]!r}, expected one of {known}"
    return "InvalidField", text
