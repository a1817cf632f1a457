"""What a record of an order that changes says besides its lines: which version it is, of when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from freshet.stream.events.columns import Decoded, StateColumns
from freshet.stream.events.judged import Judged
from freshet.stream.events.map.compiler import Compiler
from freshet.stream.events.map.flags import FlagField, VersionField
from freshet.stream.events.map.times import MISSING, TimeField


class StateFields:
    """The fields of orders that say what an order is."""

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._version: VersionField = compiler.version("version")
        self._changed_at: TimeField = compiler.time("changed_at")
        self._flags: list[FlagField] = [compiler.flag("cancelled"), compiler.flag("deleted")]

    def add_to(self, columns: Decoded, part: Judged) -> Decoded:
        """Columns with what each order is; an event's time is then when the order changed."""
        versions = self._version.read(part.level)
        part.refuse(versions.wrong)
        part.refuse_missing(self._compiler, "version", np.flatnonzero(~versions.given).tolist())
        changed = self._changed_at.read(part.level)
        part.refuse(changed.wrong)
        stamps_ms = np.array(part.level.timestamp(), np.int64)
        usual_ms = np.where(versions.times_ms == MISSING, stamps_ms, versions.times_ms)
        cancelled, deleted = (flag.read(part.level) for flag in self._flags)
        states = StateColumns(
            order_hash=columns.event_hash,
            version=versions.values,
            created_ms=columns.event_time_ms,
            cancelled=cancelled | deleted,
        )
        changed_ms = np.where(changed.values == MISSING, usual_ms, changed.values)
        return replace(columns, states=states, event_time_ms=changed_ms)
