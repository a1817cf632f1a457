"""How the state of an order lies in Redis: rows of 12 bytes, written and read for many at once.

The first row is the order's version and the day from which it is kept; each further one is a
quantity in thousandths and the slot of its item, in rising order of slots. So the same state is the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.errors import StoreError
from freshet.stream.units import DAY_MS

ROW: Final = np.dtype([("number", "<i8"), ("name", "<u4")])


@dataclass(frozen=True, slots=True)
class OrderStates:
    """What is known of some orders, as columns.

    Order `n` has the items from `start[n]` to `start[n + 1]`; one that is not `known` has none.
    `kept_day` is the day, counted from 1970, from which it is kept.
    """

    known: Bools
    version: Ints
    kept_day: Ints
    start: Ints
    slot: Ints
    quantity: Ints

    def __len__(self) -> int:
        return len(self.known)


def expiry_ms(kept_day: int, keep_ms: int) -> int:
    """The watermark at which an order that is kept from that day is forgotten.

    >>> expiry_ms(0, 1_000)
    86401000
    """
    return (kept_day + 1) * DAY_MS + keep_ms


def encode_orders(states: OrderStates) -> list[bytes]:
    """The entry of each order; all of them known.

    >>> one = OrderStates(np.array([True]), np.array([7]), np.array([1]), np.array([0, 1]),
    ...     np.array([5]), np.array([2_000]))
    >>> encode_orders(one)[0].hex()
    '070000000000000001000000d00700000000000005000000'
    """
    ends = states.start[1:] + np.arange(1, len(states) + 1)
    heads = np.concatenate(([0], ends[:-1]))[: len(states)]
    rows = np.empty(len(states) + len(states.slot), ROW)
    is_item = np.ones(len(rows), np.bool_)
    is_item[heads] = False
    rows["number"][heads] = states.version
    rows["name"][heads] = states.kept_day
    rows["number"][is_item] = states.quantity
    rows["name"][is_item] = states.slot
    data = rows.tobytes()
    edges = [0, *(ends * ROW.itemsize).tolist()]
    return [data[begin:end] for begin, end in pairwise(edges)]


def decode_orders(entries: Sequence[bytes | None]) -> OrderStates:
    """What some entries say; None or nothing is an order that nothing is known of.

    Raises:
        StoreError: One is damaged.
    """
    filled = [entry or b"" for entry in entries]
    sizes = np.fromiter(map(len, filled), np.int64, len(filled))
    if (sizes % ROW.itemsize).any():
        raise StoreError("the state of an order is damaged: it is not made of rows of 12 bytes")
    known = sizes > 0
    rows = np.frombuffer(b"".join(filled), ROW)
    num_rows = sizes // ROW.itemsize
    heads = (np.cumsum(num_rows) - num_rows)[known]
    is_item = np.ones(len(rows), np.bool_)
    is_item[heads] = False
    version, kept_day = np.zeros((2, len(sizes)), np.int64)
    version[known] = rows["number"][heads]
    kept_day[known] = rows["name"][heads]
    num_items = num_rows - known
    return OrderStates(
        known=known,
        version=version,
        kept_day=kept_day,
        start=np.concatenate((np.zeros(1, np.int64), np.cumsum(num_items))),
        slot=rows["name"][is_item].astype(np.int64),
        quantity=rows["number"][is_item].astype(np.int64),
    )
