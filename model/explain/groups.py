"""The groups of inputs that a forecast is taken apart into, and how each is taken away.

The network was trained with any of its inputs missing, so a group is taken away by making it
missing, and the forecast without it is a forecast like any other.
Dimensions: B rows, T context steps, S context and horizon steps, K known slots, P past slots.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.explain.season import seasonal, without_season
from freshet.model.features import EFFECT
from freshet.model.text import NUM_TEXT
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

RECENT_STEPS = 4  # where a step is a week or longer, so many of them are recent
SLOT_GROUPS = {
    "price_ratio": "price",
    "discount": "price",
    "promotion": "promotion",
    "event": "event",
    "closed": "event",
}
KNOWN_GROUPS = ("price", "promotion", "event", "own", "shared")
NO_EFFECT = 1e-6  # log units; an effect that is nowhere larger is none
STEP_NAMES = ((HOUR_MS, "hour"), (DAY_MS, "day"), (WEEK_MS, "week"), (30 * DAY_MS, "month"))


@dataclass(frozen=True, slots=True)
class Group:
    """Inputs that are present or missing together.

    Attributes:
        key: one of recent, older, calendar, signals, price, promotion, event, own, shared,
            siblings, item.
        words: how a merchant calls it, at the start of a sentence.
        many: whether the words are plural.
    """

    key: str
    words: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a table says that its columns mean, where a batch has only slots.

    Attributes:
        slots: the group of a slot, where it is another than SLOT_GROUPS says.
        effects: the part of the slot `effect` that belongs to each group, in log units over all
            steps of the row: [S] each. What they leave is shared by all items.
    """

    slots: Mapping[str, str] = field(default_factory=dict)
    effects: Mapping[str, Tensor] = field(default_factory=dict)


SLOTS_ALONE = Meaning()

Hide = Callable[[Batch, Tensor], None]
"""Makes a group missing in some rows (a boolean mask) of a batch that may be written to."""


def groups_of(one: Batch, meaning: Meaning = SLOTS_ALONE) -> list[tuple[Group, Hide]]:
    """The groups of a single row that have something in them, and how to take each away."""
    return [
        *_sales_groups(one),
        *_calendar_groups(one),
        *_signal_groups(one),
        *_known_groups(one, meaning),
        *_item_groups(one),
        *_sibling_groups(one),
    ]


def _sales_groups(one: Batch) -> list[tuple[Group, Hide]]:
    """Sales of the last week, and those before it."""
    recent, words = recent_steps(one.resolution_ms)
    start = max(one.context_length - recent, 0)
    groups = (
        (Group("recent", words, many=True), slice(start, None)),
        (Group("older", "Earlier sales", many=True), slice(0, start)),
    )
    return [(group, _hide_sales(steps)) for group, steps in groups if _any(one.target_BT[:, steps])]


def _signal_groups(one: Batch) -> list[tuple[Group, Hide]]:
    """Clicks, stock and the shop's own signals of the past, all in one."""
    if not _any(one.past_BTP):
        return []
    return [(Group("signals", _signals(one.past_BTP), many=True), _hide_signals)]


def _calendar_groups(one: Batch) -> list[tuple[Group, Hide]]:
    """The usual course of the week, the day or the year, where it was seen twice."""
    season = seasonal(one)
    if season is None:
        return []
    plain_T = without_season(one, season)
    if bool(torch.isclose(plain_T, one.target_BT[0], equal_nan=True).all()):
        return []

    def hide(batch: Batch, rows: Tensor) -> None:
        # What another group took away stays away.
        hidden_RT = batch.target_BT[rows].isnan()
        batch.target_BT[rows] = torch.where(hidden_RT, math.nan, plain_T)

    return [(Group("calendar", season.words), hide)]


def _known_groups(one: Batch, meaning: Meaning) -> list[tuple[Group, Hide]]:
    """What is known in advance, by what a merchant would call it."""
    slot_groups = SLOT_GROUPS | dict(meaning.slots)
    effects = _effects(one, meaning)
    found = []
    for key in KNOWN_GROUPS:
        names = [name for name in KNOWN_SLOTS if slot_groups.get(name, "own") == key]
        slots = [KNOWN_SLOTS.index(name) for name in names if name != "effect"]
        used = [KNOWN_SLOTS[slot] for slot in slots if _any(one.known_BSK[..., slot])]
        if used or key in effects:
            found.append((_known_group(key, used), _hide_known(slots, effects.get(key))))
    return found


def _effects(one: Batch, meaning: Meaning) -> dict[str, Tensor]:
    """What each group adds to the slot `effect`: [S]; together they are all of it."""
    left_S = torch.nan_to_num(one.known_BSK[0, :, EFFECT])
    if not bool((left_S.abs() > NO_EFFECT).any()):
        return {}
    parts = {key: part_S.to(left_S) for key, part_S in meaning.effects.items()}
    for part_S in parts.values():
        left_S = left_S - part_S
    parts["shared"] = parts.get("shared", torch.zeros_like(left_S)) + left_S
    return {key: part_S for key, part_S in parts.items() if bool((part_S.abs() > NO_EFFECT).any())}


def _item_groups(one: Batch) -> list[tuple[Group, Hide]]:
    """Text, price and age; zeros are no text, and say nothing."""
    if not bool((torch.nan_to_num(one.static_BF) != 0).any()):
        return []
    return [(Group("item", "What the item is (text, price, age)"), _hide_static)]


def _sibling_groups(one: Batch) -> list[tuple[Group, Hide]]:
    """What siblings sell, where the item has too little of a past to be believed alone."""
    if one.own_B is None or one.pooled_BHQ is None or bool((one.own_B >= 1.0).all()):
        return []
    return [(Group("siblings", "What similar items sell"), _hide_siblings)]


def recent_steps(resolution_ms: int) -> tuple[int, str]:
    """How many of the newest steps count as recent, and how a merchant calls their sales.

    >>> recent_steps(86_400_000), recent_steps(604_800_000)
    ((7, "The last week's sales"), (4, "The last 4 weeks' sales"))
    """
    week = WEEK_MS // resolution_ms
    if week >= 2:
        return week, "The last week's sales"
    return RECENT_STEPS, f"The last {RECENT_STEPS} {step_name(resolution_ms)}s' sales"


def step_name(resolution_ms: int) -> str:
    """What a step is called: hour, day, week, month, or just step.

    >>> step_name(3_600_000), step_name(2_629_746_000), step_name(900_000)
    ('hour', 'month', 'step')
    """
    for length_ms, name in STEP_NAMES:
        if abs(resolution_ms - length_ms) <= 0.05 * length_ms:
            return name
    return "step"


def _known_group(key: str, used: list[str]) -> Group:
    if key == "price":
        return Group(key, "The discount" if used == ["discount"] else "The price")
    if key == "promotion":
        return Group(key, "The promotion")
    if key == "event":
        words = "Closing days" if used == ["closed"] else "Holidays and events"
        return Group(key, words, many=True)
    if key == "shared":
        return Group(key, "What the calendar does to all items (feasts, turn of the month)")
    return Group(key, "Your own covariates", many=True)


def _signals(past_BTP: Tensor) -> str:
    names = [name for slot, name in enumerate(PAST_SLOTS) if _any(past_BTP[..., slot])]
    told_names = [name for name in names if not name.startswith("free")]
    words = ["stock" if name == "in_stock" else name for name in told_names]
    if len(told_names) < len(names):
        words.append("your own signals")
    told = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return told[0].upper() + told[1:]


def _hide_sales(steps: slice) -> Hide:
    def hide(batch: Batch, rows: Tensor) -> None:
        _blank(batch.target_BT[:, steps], rows)

    return hide


def _hide_signals(batch: Batch, rows: Tensor) -> None:
    _blank(batch.past_BTP, rows)


def _hide_known(slots: list[int], effect_S: Tensor | None) -> Hide:
    def hide(batch: Batch, rows: Tensor) -> None:
        for slot in slots:
            _blank(batch.known_BSK[..., slot], rows)
        if effect_S is not None:
            _subtract(batch.known_BSK[..., EFFECT], rows, effect_S)

    return hide


def _subtract(effect_BS: Tensor, rows: Tensor, part_S: Tensor) -> None:
    """Take a part of the effect away; where none is left the slot is missing, as without one."""
    left_RS = effect_BS[rows] - part_S
    none_R1 = ~(left_RS.abs() > NO_EFFECT).any(1, keepdim=True)
    effect_BS[rows] = torch.where(none_R1, math.nan, left_RS)


def _hide_static(batch: Batch, rows: Tensor) -> None:
    # An item without text has a zero vector there; a number that nobody knows is missing.
    batch.static_BF[rows, :NUM_TEXT] = 0.0
    batch.static_BF[rows, NUM_TEXT:] = math.nan


def _hide_siblings(batch: Batch, rows: Tensor) -> None:
    assert batch.own_B is not None
    batch.own_B[rows] = 1.0


def _blank(values: Tensor, rows: Tensor) -> None:
    values[rows] = math.nan


def _any(values: Tensor) -> bool:
    return bool(torch.isfinite(values).any())
