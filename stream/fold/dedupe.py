"""Which records were already applied: hashes of event ids, each with its newest applied minute.

A record is a duplicate when an applied record has the same hash and the end of that record's minute
plus the allowed lateness is still after the watermark. When an entry's memory is freed never
changes a verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Hashes, Ints
from freshet.stream.units import MINUTE_MS

UNSEEN: Final = -1
_SMALLEST_CAPACITY: Final = 1 << 12


def minute_expiry_ms(minute: int, allowed_lateness_ms: int) -> int:
    """The watermark at which a minute's hashes no longer make duplicates.

    >>> minute_expiry_ms(2, 1_000)
    181000
    """
    return (minute + 1) * MINUTE_MS + allowed_lateness_ms


def first_live_minute(watermark_ms: int, allowed_lateness_ms: int) -> int:
    """The oldest minute whose hashes still make duplicates.

    >>> first_live_minute(181_000, 1_000), first_live_minute(180_999, 1_000)
    (3, 2)
    """
    return (watermark_ms - allowed_lateness_ms) // MINUTE_MS


class SeenHashes:
    """An open-addressing table from hash to newest minute.

    It is two flat arrays, without a Python object an entry.

    >>> seen = SeenHashes()
    >>> seen.add(np.array([7, 8], np.uint64), np.array([3, 4]), oldest_minute=0)
    >>> seen.minutes(np.array([8, 9, 7], np.uint64)).tolist()
    [4, -1, 3]
    """

    def __init__(self) -> None:
        self._allocate(_SMALLEST_CAPACITY)

    def __len__(self) -> int:
        """Entries held, those that may be forgotten included."""
        return self._used

    def _allocate(self, capacity: int) -> None:
        self._hashes = np.zeros(capacity, np.uint64)
        self._minutes = np.full(capacity, UNSEEN, np.int64)
        self._used = 0

    def minutes(self, hashes: Hashes) -> Ints:
        """The newest minute of each hash, or UNSEEN; expired entries may still be reported."""
        return self._minutes[self._slots(hashes)]

    def _slots(self, hashes: Hashes) -> npt.NDArray[np.intp]:
        """For each hash its slot, or the free slot where its search ended."""
        mask = len(self._hashes) - 1
        slots = (hashes & np.uint64(mask)).astype(np.intp)
        pending = np.flatnonzero((self._hashes[slots] != hashes) & (self._minutes[slots] != UNSEEN))
        while len(pending):
            at = (slots[pending] + 1) & mask
            slots[pending] = at
            pending = pending[(self._hashes[at] != hashes[pending]) & (self._minutes[at] != UNSEEN)]
        return slots

    def add(self, hashes: Hashes, minutes: Ints, *, oldest_minute: int) -> None:
        """Remember applied hashes, the newest minute of each.

        Entries before `oldest_minute` may be dropped.
        """
        if (self._used + len(hashes)) * 2 > len(self._hashes):
            self._rebuild(len(hashes), oldest_minute)
        while len(hashes):
            slots = self._slots(hashes)
            free = self._minutes[slots] == UNSEEN
            self._hashes[slots[free]] = hashes[free]
            # Two new hashes may have met in one free slot: the last written holds it, and the other
            # searches on.
            held = self._hashes[slots] == hashes
            taken = np.sort(slots[held & free])  # np.unique takes ten times as long.
            again = int(np.count_nonzero(taken[1:] == taken[:-1]))
            self._used += len(taken) - again
            if again or len(taken) < np.count_nonzero(held):
                np.maximum.at(self._minutes, slots[held], minutes[held])
            else:
                self._minutes[slots[held]] = minutes[held]
            hashes, minutes = hashes[~held], minutes[~held]

    def _rebuild(self, extra: int, oldest_minute: int) -> None:
        live = self._minutes >= max(oldest_minute, 0)
        hashes, minutes = self._hashes[live], self._minutes[live]
        capacity = _SMALLEST_CAPACITY
        while capacity < 4 * (len(hashes) + extra):
            capacity *= 2
        self._allocate(capacity)
        if len(hashes):
            self.add(hashes, minutes, oldest_minute=oldest_minute)


def find_duplicates(
    hashes: Hashes,
    minutes: Ints,
    watermark_ms: Ints,
    seen_minutes: Ints,
    *,
    allowed_lateness_ms: int,
    admit: Callable[[int], bool] | None = None,
) -> tuple[Bools, Bools]:
    """Judge records in log order: (duplicate, refused).

    Args:
        hashes: Of the records' event ids.
        minutes: Of the records' event times.
        watermark_ms: Before each record.
        seen_minutes: What `SeenHashes.minutes` says of each hash, as of the first record.
        allowed_lateness_ms: How long after its minute's end a hash still makes duplicates, in
            watermark time.
        admit: Asked for each record that is no duplicate, in order; False refuses it and it does
            not count as applied. None admits all, and is fast: only hashes that repeat are then
            looked at one by one.
    """
    duplicate = _still_counts(seen_minutes, watermark_ms, allowed_lateness_ms)
    refused = np.zeros(len(hashes), np.bool_)
    newest: dict[int, int] = {}
    for i in range(len(hashes)) if admit is not None else _repeated(hashes).tolist():
        name = int(hashes[i])
        minute = newest.get(name, int(seen_minutes[i]))
        expiry_ms = minute_expiry_ms(minute, allowed_lateness_ms)
        duplicate[i] = minute != UNSEEN and expiry_ms > watermark_ms[i]
        if duplicate[i]:
            continue
        if admit is not None and not admit(i):
            refused[i] = True
        else:
            newest[name] = max(minute, int(minutes[i]))
    return duplicate, refused


def _still_counts(minutes: Ints, watermark_ms: Ints, allowed_lateness_ms: int) -> Bools:
    counts: Bools = (minutes != UNSEEN) & (
        (minutes + 1) * MINUTE_MS + allowed_lateness_ms > watermark_ms
    )
    return counts


def _repeated(hashes: Hashes) -> npt.NDArray[np.intp]:
    """Positions, rising, of all hashes that occur more than once."""
    order = np.argsort(hashes)
    same = hashes[order[1:]] == hashes[order[:-1]]
    if not same.any():
        return order[:0]
    return np.sort(order[np.concatenate((same, [False])) | np.concatenate(([False], same))])
