"""What versions of orders change: more of an item is sold, less is given back.

Each version that counts is held against the state that stood before it, item by item. Whole columns
at once, also where several versions of one order are in a batch. Pure numpy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from freshet.stream.arrays import Bools, Ints
from freshet.stream.fold.additions import (
    ORDERS,
    RETURNS,
    REVENUE,
    UNITS,
    Additions,
)
from freshet.stream.fold.states import KNOWN, Judged, Versions
from freshet.stream.store.orders import OrderStates


@dataclass(frozen=True, slots=True)
class StateLines:
    """Lines of versions, flat: whose it is, its item's slot, thousandths, price in ten-thousandths.

    No quantity is 0.
    """

    version: Ints
    slot: Ints
    quantity: Ints
    price: Ints


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch's versions add, and the orders as they then are.

    `conflicting` says of each version whether it repeats the number that stands but not what is in
    it. `changed` are orders (places in what was known), `states` is each one's new state.
    """

    additions: Additions
    conflicting: Bools
    changed: Ints
    states: OrderStates


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in some versions: keys are `version * width + slot + 1`, rising, each once.

    Those of version `n` are from `start[n]` to `start[n + 1]`. `worth` is the sum of quantity times
    price over the version's lines of the item.
    """

    start: Ints
    keys: Ints
    quantity: Ints
    worth: Ints


def find_changes(
    lines: StateLines, versions: Versions, judged: Judged, known: OrderStates, time_ms: Ints
) -> Changes:
    """Hold each version that counts, or repeats one, against what stood before it.

    Args:
        lines: Of those versions, in any order. Slots of items that no applied version has are -1.
        versions: As judged.
        judged: Their verdicts.
        known: What was known of their orders before the batch.
        time_ms: When each version's change counts.
    """
    num = len(versions.order)
    width = 2 + max(int(lines.slot.max(initial=-1)), int(known.slot.max(initial=-1)))
    mine = _contents(lines, width, num)
    keys, old_quantity = _stood_before(versions, judged, known, mine, width)
    both = _distinct(np.concatenate((mine.keys, keys)))
    new, old, worth = np.zeros((3, len(both)), np.int64)
    at = np.searchsorted(both, mine.keys)
    new[at] = mine.quantity
    worth[at] = mine.worth
    old[np.searchsorted(both, keys)] = old_quantity
    version, slot = both // width, both % width - 1
    different = new != old
    conflicting = np.zeros(num, np.bool_)
    conflicting[version[different]] = True
    own = different & judged.applied[version]
    additions = _additions(
        slot[own], time_ms[version[own]], old=old[own], new=new[own], worth=worth[own]
    )
    changed, states = _states_after(versions, judged, mine, width, len(known))
    return Changes(additions, conflicting & judged.same, changed, states)


def _distinct(keys: Ints) -> Ints:
    """Each key once, rising; np.unique takes ten times as long."""
    rising = np.sort(keys)
    return rising[_begins(rising)]


def _begins(rising: Ints) -> Bools:
    """Where a number differs from the one before it; the first one always does."""
    begins = np.ones(len(rising), np.bool_)
    begins[1:] = rising[1:] != rising[:-1]
    return begins


def _contents(lines: StateLines, width: int, num_versions: int) -> _Contents:
    """Lines of one item in a version, added up."""
    key = lines.version * width + lines.slot + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    if not len(key):
        return _Contents(np.zeros(num_versions + 1, np.int64), key, key, key)
    first = np.flatnonzero(_begins(key))
    quantity = lines.quantity[order]
    worth = quantity * lines.price[order]
    return _Contents(
        start=np.searchsorted(key[first], np.arange(num_versions + 1) * width),
        keys=key[first],
        quantity=np.add.reduceat(quantity, first),
        worth=np.add.reduceat(worth, first),
    )


def _stood_before(
    versions: Versions, judged: Judged, known: OrderStates, mine: _Contents, width: int
) -> tuple[Ints, Ints]:
    """What was in the order before each version that counts or repeats: keys and quantities."""
    held = judged.applied | judged.same
    stored = np.flatnonzero(held & (judged.before == KNOWN))
    order = versions.order[stored]
    owner, place = _spread(stored, known.start[order], known.start[order + 1])
    chained = np.flatnonzero(held & (judged.before >= 0))
    before = judged.before[chained]
    heir, inherited = _spread(chained, mine.start[before], mine.start[before + 1])
    keys = np.concatenate(
        (owner * width + known.slot[place] + 1, heir * width + mine.keys[inherited] % width)
    )
    return keys, np.concatenate((known.quantity[place], mine.quantity[inherited]))


def _spread(owners: Ints, begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Every place from each one's begin to its end, and whose it is.

    >>> owner, place = _spread(np.array([7, 8]), np.array([2, 9]), np.array([4, 10]))
    >>> owner.tolist(), place.tolist()
    ([7, 7, 8], [2, 3, 9])
    """
    sizes = end - begin
    first = np.cumsum(sizes) - sizes
    place = np.arange(int(sizes.sum())) + np.repeat(begin - first, sizes)
    return np.repeat(owners, sizes), place


def _additions(slot: Ints, time_ms: Ints, *, old: Ints, new: Ints, worth: Ints) -> Additions:
    """Units, revenue and a count for what is more, returns for what is less."""
    more = new > old
    sold = np.flatnonzero(more)
    increase = new[sold] - old[sold]
    amount = revenue(increase, new[sold], worth[sold])
    paid = amount > 0
    first = sold[old[sold] == 0]
    back = np.flatnonzero(~more)
    row = np.concatenate((sold, sold[paid], first, back))
    channel = np.repeat(
        (UNITS, REVENUE, ORDERS, RETURNS), (len(sold), int(paid.sum()), len(first), len(back))
    )
    value = np.concatenate(
        (increase, amount[paid], np.ones(len(first), np.int64), old[back] - new[back])
    )
    return Additions(slot[row], time_ms[row], channel, value)


def revenue(increase: Ints, quantity: Ints, worth: Ints) -> Ints:
    """What an increase brings at the mean price of a version's lines of the item, rounded.

    All in integers, ties up; `worth` is the sum of quantity times price.

    >>> revenue(np.array([1_000, 1_000]), np.array([3_000, 3_000]), np.array([300_000, 500_000]))
    array([100, 167])
    """
    price = worth // quantity
    amount = (increase * price + 500) // 1_000
    uneven = price * quantity != worth
    for n in np.flatnonzero(uneven).tolist():
        whole = int(quantity[n]) * 1_000
        amount[n] = (2 * int(increase[n]) * int(worth[n]) + whole) // (2 * whole)
    return amount


def _states_after(
    versions: Versions, judged: Judged, mine: _Contents, width: int, num_orders: int
) -> tuple[Ints, OrderStates]:
    """The orders that a version changed, rising, and what they then are."""
    applied = np.flatnonzero(judged.applied)
    last = np.full(num_orders, -1, np.int64)
    np.maximum.at(last, versions.order[applied], applied)
    changed = np.flatnonzero(last >= 0)
    last = last[changed]
    begin, end = mine.start[last], mine.start[last + 1]
    _, place = _spread(last, begin, end)
    states = OrderStates(
        known=np.ones(len(changed), np.bool_),
        version=versions.version[last],
        kept_day=judged.kept_day[last],
        start=np.concatenate((np.zeros(1, np.int64), np.cumsum(end - begin))),
        slot=mine.keys[place] % width - 1,
        quantity=mine.quantity[place],
    )
    return changed, states
