"""The states of a partition's orders, as Redis keeps them: read when asked for, written whole.

An order's state lies under the day on which the order was made, and leaves with that day.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Final

import numpy as np

from freshet.stream.arrays import Hashes, Ints
from freshet.stream.fold.state_changes import Changes
from freshet.stream.store.layout import Keys, OrderWrites
from freshet.stream.store.orders import OrderStates, decode_orders, encode_orders, expiry_ms
from freshet.stream.units import DAY_MS

ReadFields = Callable[[Sequence[tuple[str, Sequence[bytes]]]], list[list[bytes | None]]]
"""Values of fields of some hashes in Redis."""

MAX_CACHED_ORDERS: Final = 50_000
_HASH_BYTES: Final = 8
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class LoadedOrders:
    """The different orders of a batch: the day each was made, its hash, and what is known of it.

    `name` tells a day's order from that of another day, in 64 bits.
    """

    day: Ints
    order_hash: Hashes
    name: Hashes
    states: OrderStates


class StateLog:
    """Reads states that a batch needs, and knows what is to be written after it.

    Args:
        read: Reads fields of hashes.
        keys: The partition's.
        keep_ms: How long after its day an order is kept.
    """

    def __init__(self, read: ReadFields, keys: Keys, keep_ms: int) -> None:
        self.keep_ms = keep_ms
        self._read = read
        self._keys = keys
        self._cache = _Recent(MAX_CACHED_ORDERS)

    def load(self, created_ms: Ints, order_hash: Hashes) -> tuple[Ints, LoadedOrders]:
        """Which order each of some records is of, and what is known of these orders."""
        days = created_ms // DAY_MS
        names = _names(order_hash, days)
        name, first, order = np.unique(names, return_index=True, return_inverse=True)
        day, hashes = days[first], order_hash[first]
        entries = self._cache.get(name)
        missing = np.flatnonzero([entry is None for entry in entries])
        found = self._stored(day[missing], hashes[missing])
        for n, entry in zip(missing.tolist(), found, strict=True):
            entries[n] = entry
        return order, LoadedOrders(day, hashes, name, decode_orders(entries))

    def _stored(self, day: Ints, order_hash: Hashes) -> list[bytes | None]:
        if not len(day):
            return []
        by_day = np.argsort(day, kind="stable")
        fields = _fields(order_hash[by_day])
        asked = []
        for begin, end in _stretches(day[by_day]):
            asked.append((self._keys.orders(int(day[by_day[begin]])), fields[begin:end]))
        entries: list[bytes | None] = [None] * len(day)
        for n, entry in zip(by_day.tolist(), chain(*self._read(asked)), strict=True):
            entries[n] = entry
        return entries

    def writes(self, loaded: LoadedOrders, changes: Changes) -> list[OrderWrites]:
        """The absolute new states of a batch's changed orders, by day."""
        day = loaded.day[changes.changed]
        by_day = np.argsort(day, kind="stable")
        fields = _fields(loaded.order_hash[changes.changed][by_day])
        entries = encode_orders(changes.states)
        data = [entries[n] for n in by_day.tolist()]
        kept_day = changes.states.kept_day[by_day]
        writes = []
        for begin, end in _stretches(day[by_day]):
            latest = expiry_ms(int(kept_day[begin:end].max()), self.keep_ms)
            own = slice(begin, end)
            writes.append(OrderWrites(int(day[by_day[begin]]), latest, fields[own], data[own]))
        return writes

    def remember(self, writes: Sequence[OrderWrites]) -> None:
        """These were written."""
        for one in writes:
            hashes = np.frombuffer(b"".join(one.names), "<u8").astype(np.uint64)
            self._cache.put(_names(hashes, np.full(len(hashes), one.day)), one.data)


class _Recent:
    """The entries written last; half of them leave at a time, so that none is looked at alone."""

    def __init__(self, max_entries: int) -> None:
        self._max_young = max_entries // 2
        self._young: dict[int, bytes] = {}
        self._old: dict[int, bytes] = {}

    def get(self, names: Hashes) -> list[bytes | None]:
        asked = names.tolist()
        found = list(map(self._young.get, asked))
        if self._old:
            older = map(self._old.get, asked)
            found = [entry or old for entry, old in zip(found, older, strict=True)]
        return found

    def put(self, names: Hashes, entries: Sequence[bytes]) -> None:
        """An entry that is larger than the cache leaves the next time."""
        self._young.update(zip(names.tolist(), entries, strict=True))
        if len(self._young) > self._max_young:
            self._old, self._young = self._young, {}


def _names(order_hash: Hashes, day: Ints) -> Hashes:
    """Tells a day's order from that of another day; multiplied modulo 2**64."""
    return order_hash + day.astype(np.uint64) * _ODD


def _fields(order_hash: Hashes) -> list[bytes]:
    data = order_hash.astype("<u8").tobytes()
    return [data[at : at + _HASH_BYTES] for at in range(0, len(data), _HASH_BYTES)]


def _stretches(rising: Ints) -> list[tuple[int, int]]:
    """From where to where a number is the same."""
    if not len(rising):
        return []
    edges = [0, *(np.flatnonzero(rising[1:] != rising[:-1]) + 1).tolist(), len(rising)]
    return list(pairwise(edges))
