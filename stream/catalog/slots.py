"""The slots of what is known in advance, in the order in which the network takes them."""

from __future__ import annotations

from typing import Literal

KNOWN_SLOTS = (
    *("price_ratio", "promotion", "discount", "event", "closed", "effect"),
    *(f"free_{number}" for number in range(1, 7)),
)
"""Those of `freshet.model.batch`; the worker asserts that they are the same."""

Kind = Literal["flag", "number"]
"""Outside its intervals a flag is 0, a number unknown."""

FLAGS = ("event", "closed")
FREE = KNOWN_SLOTS[6:]
ALIASES = {"holiday": "event"}

PRICE_RATIO = KNOWN_SLOTS.index("price_ratio")
PROMOTION = KNOWN_SLOTS.index("promotion")
DISCOUNT = KNOWN_SLOTS.index("discount")
