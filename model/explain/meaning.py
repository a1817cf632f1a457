"""What a table's columns mean to whoever reads an explanation, found by their names.

The network has slots: a promotion by the week is a share in a free slot, and what prices do to all
items is in the slot `effect`, beside what feasts do. Dimensions: N series, S steps.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS
from freshet.model.effects.columns import NAMES
from freshet.model.effects.parts import CLOSING, FEASTS, HOLIDAYS, effect_parts
from freshet.model.effects.shared import SharedEffects
from freshet.model.explain.groups import SLOT_GROUPS, Meaning
from freshet.model.tables.panel import Window

KINDS = {"discount": "price", "price": "price", "promotion": "promotion", "event": "event"}
DAYS = {FEASTS: "shared", HOLIDAYS: "event", CLOSING: "event"}


def meaning_of(window: Window, shared: SharedEffects, row: int, steps: slice) -> Meaning:
    """What the slots of one series hold when `dress` fills them by `shared`.

    Args:
        window: holds the series.
        shared: what was found in it.
        row: which series.
        steps: of the window, those that the batch has.
    """
    groups = [_group(shared, column, name) for column, name in enumerate(window.known_names)]
    slots = {KNOWN_SLOTS[place.slot]: groups[place.column] for place in shared.places}
    effects: dict[str, Tensor] = {}
    for whose, part_NS in effect_parts(window.rows(slice(row, row + 1)), shared):
        key = DAYS[whose] if isinstance(whose, str) else groups[whose]
        part_S = torch.from_numpy(part_NS[0, steps])
        effects[key] = effects[key] + part_S if key in effects else part_S
    return Meaning({slot: key for slot, key in slots.items() if slot not in SLOT_GROUPS}, effects)


def _group(shared: SharedEffects, column: int, name: str) -> str:
    """The group of a known column: by what it closes, by its name, else the shop's own."""
    if any(column == closing for closing, _ in shared.closing.states):
        return "event"
    lower = name.lower()
    return next((key for kind, key in KINDS.items() if re.search(NAMES[kind], lower)), "own")
