"""Which records were already applied: hashes of event ids, each with its newest applied minute.

A record is a duplicate when an applied record has the same hash and the end of that record's minute
plus the allowed lateness is still after the watermark. When an entry's memory is freed never
changes a verdict. Beside each hash lies a digest of what the event said (`content.py`), so that
duplicates which say otherwise are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from freshet.stream.arrays import Bools, Digests, Hashes, Ints
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


@dataclass(frozen=True, slots=True)
class Entries:
    """Applied events: the hash of each one's id, its minute, and the digest of what it said."""

    hashes: Hashes
    minutes: Ints
    contents: Digests

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def none(cls) -> Entries:
        """Of no events."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint32))

    def chosen(self, which: Bools | npt.NDArray[np.intp]) -> Entries:
        """Some of them."""
        return Entries(self.hashes[which], self.minutes[which], self.contents[which])


class SeenHashes:
    """An open-addressing table from hash to newest minute, and what was said then.

    It is three flat arrays, without a Python object an entry.

    >>> seen = SeenHashes()
    >>> new = Entries(np.array([7, 8], np.uint64), np.array([3, 4]), np.array([1, 2], np.uint32))
    >>> seen.add(new, oldest_minute=0)
    >>> seen.known(np.array([8, 9, 7], np.uint64)).minutes.tolist()
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
        self._contents = np.zeros(capacity, np.uint32)
        self._used = 0

    def known(self, hashes: Hashes) -> Entries:
        """What is known of each hash, minute UNSEEN if nothing; expired ones may be reported."""
        slots = self._slots(hashes)
        return Entries(hashes, self._minutes[slots], self._contents[slots])

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

    def add(self, new: Entries, *, oldest_minute: int) -> None:
        """Remember applied events, the newest minute of each hash.

        Entries before `oldest_minute` may be dropped.
        """
        if (self._used + len(new)) * 2 > len(self._hashes):
            self._rebuild(len(new), oldest_minute)
        while len(new):
            slots = self._slots(new.hashes)
            free = self._minutes[slots] == UNSEEN
            self._hashes[slots[free]] = new.hashes[free]
            # Two new hashes may have met in one free slot: the last written holds it, and the other
            # searches on.
            held = self._hashes[slots] == new.hashes
            taken = np.sort(slots[held & free])  # np.unique takes ten times as long.
            again = int(np.count_nonzero(taken[1:] == taken[:-1]))
            self._used += len(taken) - again
            repeated = again > 0 or len(taken) < int(np.count_nonzero(held))
            self._write(slots[held], new.chosen(held), repeated=repeated)
            new = new.chosen(~held)

    def _write(self, slots: npt.NDArray[np.intp], new: Entries, *, repeated: bool) -> None:
        """Fill slots; `repeated` says that one may come twice or be filled already."""
        if repeated:
            # The newest of a hash is written last, and stays.
            order = np.argsort(new.minutes, kind="stable")
            order = order[new.minutes[order] >= self._minutes[slots[order]]]
            slots, new = slots[order], new.chosen(order)
        self._minutes[slots] = new.minutes
        self._contents[slots] = new.contents

    def _rebuild(self, extra: int, oldest_minute: int) -> None:
        live = self._minutes >= max(oldest_minute, 0)
        kept = Entries(self._hashes[live], self._minutes[live], self._contents[live])
        capacity = _SMALLEST_CAPACITY
        while capacity < 4 * (len(kept) + extra):
            capacity *= 2
        self._allocate(capacity)
        if len(kept):
            self.add(kept, oldest_minute=oldest_minute)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Columns of verdicts; `conflicting` are those duplicates that say otherwise."""

    duplicate: Bools
    refused: Bools
    conflicting: Bools


def find_duplicates(
    events: Entries,
    watermark_ms: Ints,
    known: Entries,
    *,
    allowed_lateness_ms: int,
    admit: Callable[[int], bool] | None = None,
) -> Repeats:
    """Judge records in log order.

    Args:
        events: The records.
        watermark_ms: Before each record.
        known: What `SeenHashes.known` says of their hashes, as of the first record.
        allowed_lateness_ms: How long after its minute's end a hash still makes duplicates, in
            watermark time.
        admit: Asked for each record that is no duplicate, in order; False refuses it and it does
            not count as applied. None admits all, and is fast: only hashes that repeat are then
            looked at one by one.
    """
    hashes = events.hashes
    duplicate = _still_counts(known.minutes, watermark_ms, allowed_lateness_ms)
    conflicting = duplicate & (events.contents != known.contents)
    refused = np.zeros(len(hashes), np.bool_)
    newest: dict[int, tuple[int, int]] = {}
    for i in range(len(hashes)) if admit is not None else _repeated(hashes).tolist():
        name, content = int(hashes[i]), int(events.contents[i])
        minute, said = newest.get(name, (int(known.minutes[i]), int(known.contents[i])))
        expiry_ms = minute_expiry_ms(minute, allowed_lateness_ms)
        duplicate[i] = minute != UNSEEN and expiry_ms > watermark_ms[i]
        conflicting[i] = duplicate[i] and said != content
        if duplicate[i]:
            continue
        if admit is not None and not admit(i):
            refused[i] = True
        elif int(events.minutes[i]) >= minute:
            newest[name] = (int(events.minutes[i]), content)
    return Repeats(duplicate, refused, conflicting)


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
