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
    """What is in some versions: keys are `version * width + slot`, rising, each once.

    `worth` is the sum of quantity times price over the version's lines of the item.
    """

    keys: Ints
    quantity: Ints
    worth: Ints


def find_changes(
    lines: StateLines, versions: Versions, judged: Judged, known: OrderStates, changed_ms: Ints
) -> Changes:
    """Hold each version that counts, or repeats one, against what stood before it.

    Args:
        lines: Of those versions, in any order. Slots of items that no applied version has are -1.
        versions: As judged.
        judged: Their verdicts.
        known: What was known of their orders before the batch.
        changed_ms: When each version's change happened.
    """
    num = len(versions.order)
    width = 2 + max(int(lines.slot.max(initial=-1)), int(known.slot.max(initial=-1)))
    mine = _contents(lines, width)
    keys, old_quantity = _stood_before(versions, judged, known, mine, width)
    both = np.unique(np.concatenate((mine.keys, keys)))
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
        slot[own], changed_ms[version[own]], old=old[own], new=new[own], worth=worth[own]
    )
    changed, states = _states_after(versions, judged, mine, width, len(known))
    return Changes(additions, conflicting & judged.same, changed, states)


def _contents(lines: StateLines, width: int) -> _Contents:
    """Lines of one item in a version, added up."""
    key = lines.version * width + lines.slot + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    if not len(key):
        return _Contents(key, key, key)
    first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    quantity = lines.quantity[order]
    worth = quantity * lines.price[order]
    return _Contents(key[first], np.add.reduceat(quantity, first), np.add.reduceat(worth, first))


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
    begin = np.searchsorted(mine.keys, before * width)
    end = np.searchsorted(mine.keys, (before + 1) * width)
    heir, inherited = _spread(chained, begin, end)
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
    increase = np.where(more, new - old, 0)
    added_CL = np.zeros((RETURNS + 1, len(slot)), np.int64)
    added_CL[UNITS] = increase
    added_CL[REVENUE][more] = revenue(increase[more], new[more], worth[more])
    added_CL[ORDERS] = more & (old == 0)
    added_CL[RETURNS] = np.where(more, 0, old - new)
    channel, row = np.nonzero(added_CL)
    return Additions(slot[row], time_ms[row], channel, added_CL[channel, row])


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
    begin = np.searchsorted(mine.keys, last * width)
    end = np.searchsorted(mine.keys, (last + 1) * width)
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
