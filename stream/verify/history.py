"""Headers of history, record by record: which sequence of which load was judged. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

_MARK = re.compile(rb"(?P<load>[A-Za-z0-9._-]{1,100}):(?:(?P<number>[0-9]{1,18})|complete)")

Settled = Literal["new", "duplicate", "complete", "malformed"]


@dataclass(slots=True)
class Loads:
    """What was loaded so far: the highest number of each load, and whether one is complete."""

    highest: dict[bytes, int] = field(default_factory=dict)
    complete: bool = False

    def take(self, mark: bytes, *, redriven: bool) -> Settled:
        """What the header of the next record says; a redriven one's number counts for nothing."""
        match = _MARK.fullmatch(mark)
        if match is None:
            return "malformed"
        if match["number"] is None:
            return "complete"
        if redriven:
            return "new"
        number, before = int(match["number"]), self.highest.get(match["load"])
        if before is not None and number <= before:
            return "duplicate"
        self.highest[match["load"]] = number
        return "new"
