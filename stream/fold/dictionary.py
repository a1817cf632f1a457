"""Which slot each item has in a partition's tiles, and which records a full dictionary refuses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Ints
from freshet.stream.events.columns import Decoded

NO_SLOT = -1


class ItemDictionary:
    """The items of a partition, each with its slot.

    Slots are given in log order, by the first applied line, and never change.
    """

    def __init__(self, max_items: int, item_ids: Sequence[str] = ()) -> None:
        self.max_items = max_items
        self.item_ids = list(item_ids)
        self._slots = {item_id: slot for slot, item_id in enumerate(self.item_ids)}
        self._table: list[str] | None = None
        self._slot_of_name = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.item_ids)

    def slots(self, names: Ints, item_ids: list[str]) -> Ints:
        """The slot of each of some names, which are places in a table of item ids, or NO_SLOT.

        What a name meant is remembered for as long as the same table is used, since a table only
        grows.
        """
        self._follow(item_ids)
        slots: Ints = self._slot_of_name[names]
        # A name without a slot is asked about again: it may have got one since.
        without = np.flatnonzero(slots < 0)
        if len(without):
            for name in np.unique(names[without]).tolist():
                self._slot_of_name[name] = self._slots.get(item_ids[name], NO_SLOT)
            slots[without] = self._slot_of_name[names[without]]
        return slots

    def _follow(self, item_ids: list[str]) -> None:
        """Look up what was added to the table, or the whole of another one."""
        if item_ids is not self._table:
            self._table = item_ids
            self._slot_of_name = np.empty(0, np.int64)
        if len(item_ids) > len(self._slot_of_name):
            more = item_ids[len(self._slot_of_name) :]
            found = np.fromiter(map(self._slots.get, more, repeat(NO_SLOT)), np.int64, len(more))
            self._slot_of_name = np.concatenate((self._slot_of_name, found))

    def extend(self, new_items: Sequence[str]) -> None:
        """Give the next slots to new items."""
        for item_id in new_items:
            self._slots[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)


class Admission:
    """Lets a record in while all its new items still find a slot; asked in log order.

    Args:
        decoded: The good records of a batch.
        on_time: Those of them that may be applied, as positions in `decoded.index`.
        line_slot: The slot of each line's item.
        dictionary: The items before the batch.
    """

    def __init__(
        self,
        decoded: Decoded,
        on_time: npt.NDArray[np.intp],
        line_slot: Ints,
        dictionary: ItemDictionary,
    ) -> None:
        self._decoded = decoded
        self._on_time = on_time
        self._free = dictionary.max_items - len(dictionary)
        self._unknown = line_slot < 0
        self._admitted: set[str] = set()
        records = np.arange(len(decoded.index) + 1)
        self._first_line = np.searchsorted(decoded.line_record, records)

    def needed(self) -> bool:
        """Whether the batch could fill the dictionary at all."""
        unknown = np.flatnonzero(self._unknown).tolist()
        if len(unknown) <= self._free:
            return False
        return len({self._decoded.item_of(line) for line in unknown}) > self._free

    def admit(self, position: int) -> bool:
        """Whether the record at a position of `on_time` is let in; if so, its items have slots."""
        record = self._on_time[position]
        first, end = self._first_line[record : record + 2].tolist()
        unknown = [line for line in range(first, end) if self._unknown[line]]
        fresh = {self._decoded.item_of(line) for line in unknown} - self._admitted
        if len(self._admitted) + len(fresh) > self._free:
            return False
        self._admitted |= fresh
        return True
