"""Why a forecast is what it is: exact Shapley values over groups of what the network was told, and
the words for them.

The network was trained with any of its inputs missing, so a group is taken away by making it
missing, and the forecast without it is a forecast like any other. With at most eight groups every
combination is forecast: 256 rows, one batch.

Dimensions: B rows (one for each combination), T context steps, H horizon steps, S = T + H, K known
slots, G groups, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from freshet.model.batch import KNOWN_SLOTS, PAST_SLOTS, Batch
from freshet.model.text import NUM_TEXT
from freshet.stream.arrays import Floats
from freshet.stream.errors import InvalidInputError
from freshet.stream.units import DAY_MS, HOUR_MS, WEEK_MS

LEVELS = (0.5, 0.9)
RECENT_STEPS = 4  # where a step is a week or longer, so many of them are recent
NOTICEABLE = 0.01  # of the forecast: what moves it by less is not worth a sentence
SLOT_GROUPS = {
    "price_ratio": "price",
    "discount": "price",
    "promotion": "promotion",
    "event": "event",
    "closed": "event",
    "effect": "event",
}
STEP_NAMES = ((HOUR_MS, "hour"), (DAY_MS, "day"), (WEEK_MS, "week"), (30 * DAY_MS, "month"))


class Forecasts(Protocol):
    """What is needed of a `freshet.model.forecaster.BatchForecaster`."""

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Probabilities of the last dimension of a forecast."""
        ...

    def forecast(self, batch: Batch) -> Tensor:
        """Quantiles in units: [B, H, Q]."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Inputs that are present or missing together.

    Attributes:
        key: one of recent, older, signals, price, promotion, event, own, item.
        words: how a merchant calls it, at the start of a sentence.
        many: whether the words are plural.
    """

    key: str
    words: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one group adds to the forecast of the chosen steps.

    Attributes:
        group: which inputs.
        units_L: units it adds to the summed quantiles at each level.
        steps_HL: the same step by step, over the whole horizon.
    """

    group: Group
    units_L: Floats
    steps_HL: Floats


@dataclass(frozen=True, slots=True)
class Shapley:
    """A forecast taken apart: `full_L` = `empty_L` + the sum of all contributions.

    Attributes:
        levels: L probabilities, the median first.
        steps: the chosen steps of the horizon.
        resolution_ms: length of a step.
        empty_L: summed quantiles when the network knows nothing but the calendar.
        full_L: summed quantiles when it knows all of it.
        contributions: one for each group with something in it, the largest first.
    """

    levels: tuple[float, ...]
    steps: range
    resolution_ms: int
    empty_L: Floats
    full_L: Floats
    contributions: tuple[Contribution, ...]


def shapley(
    forecaster: Forecasts,
    batch: Batch,
    row: int,
    *,
    steps: range | None = None,
    levels: tuple[float, ...] = LEVELS,
    factor: float = 1.0,
) -> Shapley:
    """Take the forecast of one row apart, exactly (Shapley 1953): every combination of its groups
    is forecast.

    Contributions at the upper level are to the sum of the steps' upper quantiles, which is more
    than the upper quantile of the sum. The row is explained alone: related rows of its group are
    left out.

    Args:
        forecaster: forecasts the combinations, in one call.
        batch: holds the row.
        row: which one.
        steps: of the horizon, from 0; default all.
        levels: must be among the forecaster's, the median first.
        factor: units of the batch that make one unit of the reader.

    Raises:
        InvalidInputError: the steps are not within the horizon, or a level is not forecast.
    """
    one = one_row(batch, row)
    steps = chosen_steps(steps, one.prediction_length)
    columns = level_columns(forecaster.quantile_levels, levels)
    groups = groups_of(one)
    coalitions = all_coalitions(one, [group for group, _ in groups], [hide for _, hide in groups])
    value_BHL = forecaster.forecast(coalitions)[..., columns].double().cpu().numpy() / factor
    steps_GHL = shapley_values(value_BHL)
    here = slice(steps.start, steps.stop)
    contributions = [
        Contribution(group, steps_HL[here].sum(0), steps_HL)
        for (group, _), steps_HL in zip(groups, steps_GHL, strict=True)
    ]
    contributions.sort(key=lambda found: -abs(found.units_L[0]))
    empty_L, full_L = value_BHL[0, here].sum(0), value_BHL[-1, here].sum(0)
    return Shapley(levels, steps, one.resolution_ms, empty_L, full_L, tuple(contributions))


def shapley_values(value_BX: Floats) -> Floats:
    """Shapley values of G players from what every coalition is worth: [G, ...].

    Args:
        value_BX: worth of the 2**G coalitions; player g belongs to coalition b where bit g of b is
            set.

    >>> shapley_values(np.array([0.0, 10.0, 20.0, 60.0])).tolist()
    [25.0, 35.0]
    """
    num_groups = len(value_BX).bit_length() - 1
    coalition_B = np.arange(len(value_BX))
    size_B = sum((coalition_B >> group) & 1 for group in range(num_groups))
    ways = [math.factorial(n) * math.factorial(num_groups - 1 - n) for n in range(num_groups)]
    found = []
    for group in range(num_groups):
        without = coalition_B[(coalition_B >> group) & 1 == 0]
        weight = np.array(
            [ways[n] for n in np.broadcast_to(size_B, len(value_BX))[without]], np.float64
        )
        gain = value_BX[without | 1 << group] - value_BX[without]
        found.append(np.tensordot(weight / math.factorial(num_groups), gain, 1))
    return np.array(found) if found else np.zeros((0, *value_BX.shape[1:]))


# Groups -------------------------------------------------------------------------------------------

Hide = Callable[[Batch, Tensor], None]
"""Makes a group missing in some rows (a boolean mask) of a batch that may be written to."""


def groups_of(one: Batch) -> list[tuple[Group, Hide]]:
    """The groups of a single row that have something in them, and how to take each away."""
    recent, words = recent_steps(one.resolution_ms)
    found: list[tuple[Group, Hide]] = []
    start = max(one.context_length - recent, 0)
    if _any(one.target_BT[:, start:]):
        found.append(
            (
                Group("recent", words, many=True),
                lambda batch, rows: _blank(batch.target_BT[:, start:], rows),
            )
        )
    if _any(one.target_BT[:, :start]):
        older = Group("older", "Earlier sales", many=True)
        found.append((older, lambda batch, rows: _blank(batch.target_BT[:, :start], rows)))
    if _any(one.past_BTP):
        signals = Group("signals", _signals(one.past_BTP), many=True)
        found.append((signals, lambda batch, rows: _blank(batch.past_BTP, rows)))
    for key in ("price", "promotion", "event", "own"):
        slots = [s for s, name in enumerate(KNOWN_SLOTS) if SLOT_GROUPS.get(name, "own") == key]
        used = [KNOWN_SLOTS[slot] for slot in slots if _any(one.known_BSK[..., slot])]
        if used:
            found.append((_known_group(key, used), _hide_known(slots)))
    if _any(one.static_BF) and bool((torch.nan_to_num(one.static_BF) != 0).any()):
        item = Group("item", "What the item is (text, price, age)")
        found.append((item, _hide_static))
    return found


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
        return Group(
            key, "Closing days" if used == ["closed"] else "Holidays and events", many=True
        )
    return Group(key, "Your own covariates", many=True)


def _signals(past_BTP: Tensor) -> str:
    names = [name for slot, name in enumerate(PAST_SLOTS) if _any(past_BTP[..., slot])]
    words = [
        "stock" if name == "in_stock" else name for name in names if not name.startswith("free")
    ]
    words += ["your own signals"] * any(name.startswith("free") for name in names)
    told = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    return told[0].upper() + told[1:]


def _hide_known(slots: list[int]) -> Hide:
    def hide(batch: Batch, rows: Tensor) -> None:
        for slot in slots:
            _blank(batch.known_BSK[..., slot], rows)

    return hide


def _hide_static(batch: Batch, rows: Tensor) -> None:
    # An item without text has a zero vector there; a number that nobody knows is missing.
    batch.static_BF[rows, :NUM_TEXT] = 0.0
    batch.static_BF[rows, NUM_TEXT:] = math.nan


def _blank(values: Tensor, rows: Tensor) -> None:
    values[rows] = math.nan


def _any(values: Tensor) -> bool:
    return bool(torch.isfinite(values).any())


def all_coalitions(one: Batch, groups: Sequence[Group], hides: Sequence[Hide]) -> Batch:
    """2**G copies of a single row; in copy b those groups are missing whose bit of b is not set."""
    rows = torch.arange(2 ** len(groups))
    batch = one.rows(torch.zeros_like(rows))
    for bit, hide in enumerate(hides):
        hide(batch, (rows >> bit) & 1 == 0)
    return batch


def one_row(batch: Batch, row: int) -> Batch:
    """A row on its own, without relatives, on the CPU.

    Raises:
        InvalidInputError: there is no such row.
    """
    if not 0 <= row < len(batch):
        raise InvalidInputError(
            f"row {row} of a batch of {len(batch)} rows; expected 0 to {len(batch) - 1}"
        )
    return replace(batch.validate().rows(torch.tensor([row])).to("cpu"), group_B=None)


def chosen_steps(steps: range | None, horizon: int) -> range:
    """The steps to explain; all by default.

    Raises:
        InvalidInputError: they are none, or not within the horizon.
    """
    steps = range(horizon) if steps is None else steps
    if not 0 <= steps.start < steps.stop <= horizon or steps.step != 1:
        raise InvalidInputError(
            f"steps {steps} of a horizon of {horizon}; expected one or more of 0 to {horizon - 1}"
        )
    return steps


def level_columns(known: Sequence[float], levels: Sequence[float]) -> list[int]:
    """Where levels are among the forecaster's.

    Raises:
        InvalidInputError: one of them is not forecast.

    >>> level_columns((0.1, 0.5, 0.9), (0.5, 0.9))
    [1, 2]
    """
    near = {round(level, 6): column for column, level in enumerate(known)}
    missing = [level for level in levels if round(level, 6) not in near]
    if missing:
        raise InvalidInputError(
            f"the levels {missing} are not forecast; expected some of {list(known)}"
        )
    return [near[round(level, 6)] for level in levels]
