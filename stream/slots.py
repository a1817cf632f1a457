"""The slots of what is known in advance, and the names under which covariates fill them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

FlagSlot = Literal["event", "closed", "free_1", "free_2", "free_3", "free_4", "free_5", "free_6"]
NumberSlot = Literal["free_1", "free_2", "free_3", "free_4", "free_5", "free_6"]

KNOWN_SLOTS = (
    *("price_ratio", "promotion", "discount", "event", "closed", "effect"),
    *("free_1", "free_2", "free_3", "free_4", "free_5", "free_6"),
)
"""Those of `freshet.model.batch`, in its order; the worker asserts that they are the same."""

PRICE_RATIO = KNOWN_SLOTS.index("price_ratio")
PROMOTION = KNOWN_SLOTS.index("promotion")
DISCOUNT = KNOWN_SLOTS.index("discount")
EVENT = KNOWN_SLOTS.index("event")
CLOSED = KNOWN_SLOTS.index("closed")
FREE = KNOWN_SLOTS[KNOWN_SLOTS.index("free_1") :]
NAMED_SLOTS = tuple(name for name in KNOWN_SLOTS if name != "effect")
"""Those that the shop says something of."""
ALIASES = {"holiday": "event"}
TOLD_OTHERWISE = ("price_ratio", "promotion", "discount", "effect")
"""Prices and promotions have topics of their own; effects are estimated."""


class Slot(NamedTuple):
    """Where a covariate goes: a place in `KNOWN_SLOTS`, and whether it is a share from 0 to 1.

    Outside its intervals a flag is 0, a number unknown.
    """

    place: int
    flag: bool


def covariate_slots(flags: Mapping[str, str], numbers: Mapping[str, str]) -> dict[str, Slot]:
    """The slot of every name that a covariate may have.

    Args:
        flags: Further names and the slots that they fill, as flags.
        numbers: The same, as numbers; a free slot is one unless a flag fills it.

    >>> slots = covariate_slots({"fair": "event", "strike": "free_2"}, {"rain": "free_1"})
    >>> slots["fair"] == slots["holiday"] == slots["event"]
    True
    >>> slots["rain"], slots["strike"].flag, slots["free_2"].flag
    (Slot(place=6, flag=False), True, True)
    """
    is_flag = {"event", "closed", *flags.values()}
    names = {name: name for name in ("event", "closed", *FREE)}
    names |= ALIASES | dict(numbers) | dict(flags)
    return {name: Slot(KNOWN_SLOTS.index(slot), slot in is_flag) for name, slot in names.items()}
