"""What an event says, in 32 bits: its time and its lines, whatever their order.

Two records of one event id that differ in a time, an item, a quantity, a price or a kind of click
have different digests, but for one pair in 4,000 million. A number beside another one is no secret,
so the mixing is plain arithmetic on whole columns (after splitmix64).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xxhash

from freshet.stream.arrays import Digests, Hashes
from freshet.stream.events.columns import Decoded

_FIRST: Final = np.uint64(0x9E3779B97F4A7C15)
_SECOND: Final = np.uint64(0xBF58476D1CE4E5B9)
_THIRD: Final = np.uint64(0x94D049BB133111EB)
_SHIFT: Final = np.uint64(31)


class ContentDigests:
    """Digests of records; remembers those of the names in a table of items, which only grows."""

    def __init__(self) -> None:
        self._table: list[str] | None = None
        self._of_name: Hashes = np.empty(0, np.uint64)

    def of(self, decoded: Decoded) -> Digests:
        """One digest a good record; each has a line."""
        self._follow(decoded.item_ids)
        line = self._of_name[decoded.line_name]
        if len(decoded.quantity):
            thousandths = np.rint(decoded.quantity * 1_000).astype(np.int64).view(np.uint64)
            price = np.rint(decoded.unit_price * 10_000).astype(np.int64).view(np.uint64)
            line = line + thousandths * _FIRST + price * _SECOND
        elif len(decoded.channel):
            line = line + decoded.channel.astype(np.int64).view(np.uint64) * _FIRST
        lines = _mixed(line)
        if len(lines) != len(decoded.index):
            # Wrapped around, sums of unsigned numbers are still right.
            sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(lines, dtype=np.uint64)))
            edges = np.searchsorted(decoded.line_record, np.arange(len(decoded.index) + 1))
            lines = sums[edges[1:]] - sums[edges[:-1]]
        time_ms = decoded.event_time_ms.view(np.uint64)
        return (_mixed(lines + time_ms * _THIRD) >> np.uint64(32)).astype(np.uint32)

    def _follow(self, item_ids: list[str]) -> None:
        """Learn what was added to the table, or the whole of another one."""
        if item_ids is not self._table:
            self._table = item_ids
            self._of_name = np.empty(0, np.uint64)
        if len(item_ids) > len(self._of_name):
            more = item_ids[len(self._of_name) :]
            names = b"".join(map(xxhash.xxh3_64_digest, map(str.encode, more)))
            found = np.frombuffer(names, ">u8").astype(np.uint64)
            self._of_name = np.concatenate((self._of_name, found))


def _mixed(numbers: Hashes) -> Hashes:
    """Each number spread over all 64 bits."""
    mixed = (numbers ^ (numbers >> _SHIFT)) * _SECOND
    mixed = (mixed ^ (mixed >> _SHIFT)) * _THIRD
    return mixed ^ (mixed >> _SHIFT)
