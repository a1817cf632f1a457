"""A batch's versions of orders: judged first, and held against what stood once items have slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Ints
from freshet.stream.events.columns import Decoded
from freshet.stream.fold.additions import Additions
from freshet.stream.fold.state_changes import StateLines, find_changes
from freshet.stream.fold.state_log import StateLog
from freshet.stream.fold.states import NOTHING, Admit, Judged, Versions, judge
from freshet.stream.store.layout import OrderWrites


@dataclass(frozen=True, slots=True)
class ChangedOrders:
    """What the versions of a batch add, and the states that they leave.

    `conflicting` says of each version whether it repeats a number but not what is in it, `time_ms`
    when it counts.
    """

    additions: Additions
    time_ms: Ints
    conflicting: Bools
    writes: list[OrderWrites]


class StateBatch:
    """The versions of a batch that are neither late nor from the future, in log order.

    Args:
        decoded: The good records of the batch.
        on_time: Which of them these are, as positions in `decoded.index`.
        log: What is known of the partition's orders; reads Redis.
    """

    def __init__(self, decoded: Decoded, on_time: npt.NDArray[np.intp], log: StateLog) -> None:
        assert decoded.states is not None, "the records are not states"
        states = decoded.states.of(on_time)
        self._decoded = decoded
        self._on_time = on_time
        self._log = log
        # A deleted row still says when it was last changed: at one number a cancellation is newer.
        self._version = 2 * states.version + states.cancelled
        self._created_ms = states.created_ms
        self._order, self._loaded = log.load(states.created_ms, states.order_hash)
        self._versions: Versions | None = None
        self._judged: Judged | None = None

    def judge(self, watermark_ms: Ints, patient: Bools, admit: Admit | None) -> Judged:
        """What becomes of each: see `states.judge`; columns are of all good records."""
        self._versions = Versions(
            order=self._order,
            version=self._version,
            created_ms=self._created_ms,
            watermark_ms=watermark_ms[self._on_time],
            patient=patient[self._on_time],
        )
        self._judged = judge(
            self._versions, self._loaded.states, keep_ms=self._log.keep_ms, admit=admit
        )
        return self._judged

    def changes(self, line_slot: Ints, new_items: Sequence[str], num_known: int) -> ChangedOrders:
        """What they change, once judged.

        An export of old orders has each as it is now, so what history tells of an order first
        counts when the order was made, and only what it tells later when that changed.

        Args:
            line_slot: The slot of each line's item; of those that count all are known.
            new_items: The items that got a slot by this batch.
            num_known: How many items had one before.
        """
        assert self._versions is not None and self._judged is not None, "judge comes first"
        held = np.zeros(len(self._decoded.index), np.bool_)
        held[self._on_time] = self._judged.applied | self._judged.same
        lines = np.flatnonzero(held[self._decoded.line_record])
        slot = line_slot[lines]
        told_first = self._versions.patient & (self._judged.before == NOTHING)
        changed_ms = self._decoded.event_time_ms[self._on_time]
        time_ms = np.where(told_first, self._versions.created_ms, changed_ms)
        new = {item_id: num_known + n for n, item_id in enumerate(new_items)}
        for n in np.flatnonzero(slot < 0).tolist():
            slot[n] = new.get(self._decoded.item_of(int(lines[n])), -1)
        found = find_changes(
            self._lines(lines, slot),
            self._versions,
            self._judged,
            self._loaded.states,
            time_ms,
        )
        writes = self._log.writes(self._loaded, found)
        return ChangedOrders(found.additions, time_ms, found.conflicting, writes)

    def _lines(self, lines: Ints, slot: Ints) -> StateLines:
        decoded = self._decoded
        place = np.zeros(len(decoded.index), np.int64)
        place[self._on_time] = np.arange(len(self._on_time))
        return StateLines(
            version=place[decoded.line_record[lines]],
            slot=slot,
            quantity=np.rint(decoded.quantity[lines] * 1_000).astype(np.int64),
            price=np.rint(decoded.unit_price[lines] * 10_000).astype(np.int64),
        )
