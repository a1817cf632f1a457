"""What becomes of each record of a batch: applied, or one of four reasons why not.

The reasons: it is from the future, it is too late, it is a duplicate, a full dictionary refuses it.

The verdicts are those of judging record by record in log order; whole columns are judged at once
only where the order inside the batch cannot matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Ints
from freshet.stream.events.decoder import Decoded
from freshet.stream.events.redrive import repeats
from freshet.stream.fold.dedupe import SeenHashes, find_duplicates
from freshet.stream.fold.watermark import NEVER_MS, TimeRules, TimeVerdicts, time_verdicts
from freshet.stream.units import MINUTE_MS


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used: its place in the batch, and why. Stages: decode, future,
    dictionary.
    """

    index: int
    stage: str
    error_class: str
    message: str


class ItemDictionary:
    """Which slot each item has: slots are given in log order, by the first applied line, and never
    change.
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
        """The slot of each of some names, which are places in a table of item ids; -1 where it has
        none.

        What a name meant is remembered for as long as the same table is used, since a table only
        grows.
        """
        if item_ids is not self._table:
            self._table, self._slot_of_name = item_ids, np.empty(0, np.int64)
        if len(item_ids) > len(self._slot_of_name):
            more = item_ids[len(self._slot_of_name) :]
            found = np.fromiter(map(self._slots.get, more, repeat(-1)), np.int64, len(more))
            self._slot_of_name = np.concatenate((self._slot_of_name, found))
        slots: Ints = self._slot_of_name[names]
        without = np.flatnonzero(slots < 0)
        if len(without):
            for name in np.unique(names[without]).tolist():
                self._slot_of_name[name] = self._slots.get(item_ids[name], -1)
            slots[without] = self._slot_of_name[names[without]]
        return slots

    def extend(self, new_items: Sequence[str]) -> None:
        """Give the next slots to new items."""
        for item_id in new_items:
            self._slots[item_id] = len(self.item_ids)
            self.item_ids.append(item_id)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Verdicts on the decoded records, and what is new to the dictionary.

    `times` says which are from the future and which are too late.
    `line_slot` is each line's slot once `new_items` have theirs; -1 on lines that are not applied.
    `new_redrives` are the headers of records sent again that were judged for the first time.
    """

    times: TimeVerdicts
    duplicate: Bools
    refused: Bools
    applied: Bools
    line_slot: Ints
    new_items: list[str]
    new_redrives: list[bytes]


def judge(
    decoded: Decoded,
    timestamp_ms: Ints,
    frontier_ms: int | None,
    *,
    rules: TimeRules,
    seen: SeenHashes,
    dictionary: ItemDictionary,
    redrives: Sequence[bytes | None] = (),
    known_redrives: AbstractSet[bytes] = frozenset(),
) -> Verdicts:
    """Judge the good records of a batch; changes neither `seen` nor `dictionary`.

    Args:
        decoded: The good records, in log order.
        timestamp_ms: Their Kafka timestamps.
        frontier_ms: The partition's frontier before the batch, None before its first event.
        rules: Limits of time.
        seen: What was applied before the batch.
        dictionary: The items before the batch.
        redrives: The records' redrive headers, None for most; empty when no record has one.
        known_redrives: Those of them that were judged before the batch.
    """
    redriven = np.array([name is not None for name in redrives], np.bool_) if redrives else None
    before_ms = NEVER_MS if frontier_ms is None else frontier_ms
    times = time_verdicts(decoded.event_time_ms, timestamp_ms, before_ms, rules, redriven)
    repeat, new_redrives = (
        repeats(redrives, times.future, known_redrives) if redrives else (times.future, [])
    )
    on_time = np.flatnonzero(~times.future & ~times.too_late & ~repeat)
    slot = dictionary.slots(decoded.line_name, decoded.item_ids)
    hashes = decoded.event_hash[on_time]
    admission = _Admission(decoded, on_time, slot, dictionary)
    duplicate, refused = find_duplicates(
        hashes,
        decoded.event_time_ms[on_time] // MINUTE_MS,
        times.watermark_ms[on_time],
        seen.minutes(hashes),
        allowed_lateness_ms=rules.allowed_lateness_ms,
        admit=admission.admit if admission.needed() else None,
    )
    verdicts = np.zeros((3, len(decoded.index)), np.bool_)
    verdicts[:, on_time] = duplicate, refused, ~(duplicate | refused)
    verdicts[0] |= repeat & ~times.future
    new_items: dict[str, int] = {}
    for line in np.flatnonzero((slot < 0) & verdicts[2][decoded.line_record]).tolist():
        slot[line] = new_items.setdefault(decoded.item_of(line), len(dictionary) + len(new_items))
    return Verdicts(
        times, verdicts[0], verdicts[1], verdicts[2], slot, list(new_items), new_redrives
    )


class _Admission:
    """Lets a record in while all its new items still find a slot; asked in log order."""

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
        self._first_line = np.searchsorted(decoded.line_record, np.arange(len(decoded.index) + 1))

    def needed(self) -> bool:
        """Whether the batch could fill the dictionary at all."""
        unknown = np.flatnonzero(self._unknown).tolist()
        return (
            len(unknown) > self._free
            and len({self._decoded.item_of(line) for line in unknown}) > self._free
        )

    def admit(self, position: int) -> bool:
        record = self._on_time[position]
        lines = range(int(self._first_line[record]), int(self._first_line[record + 1]))
        fresh = {
            self._decoded.item_of(line) for line in lines if self._unknown[line]
        } - self._admitted
        if len(self._admitted) + len(fresh) > self._free:
            return False
        self._admitted |= fresh
        return True


def dead_letters(
    decoded: Decoded, judged: Verdicts, timestamps_ms: Ints, *, max_future_ms: int
) -> list[DeadLetter]:
    """Every record of the batch that cannot be used, in log order.

    Args:
        decoded: The batch, with its refusals.
        judged: Verdicts on its good records.
        timestamps_ms: Kafka timestamps of all records of the batch.
        max_future_ms: For the message.
    """
    dead = [
        DeadLetter(bad.index, "decode", bad.error_class, bad.message) for bad in decoded.refusals
    ]
    for n in np.flatnonzero(judged.times.future).tolist():
        index = int(decoded.index[n])
        ahead_ms = int(decoded.event_time_ms[n]) - int(timestamps_ms[index])
        text = (
            f"event_time is {ahead_ms} ms after the record's timestamp, expected at most "
            f"{max_future_ms}"
        )
        dead.append(DeadLetter(index, "future", "FutureEvent", text))
    for index in decoded.index[judged.refused].tolist():
        text = "the partition's item dictionary is full (windows.max_items_per_partition)"
        dead.append(DeadLetter(index, "dictionary", "DictionaryFull", text))
    return sorted(dead, key=lambda letter: letter.index)
