"""The arrays of one forecast request: many series, one resolution, one cutoff each.

Dimensions: B rows, T context steps, H horizon steps, S = T + H, P past slots, K known slots,
F static features.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from freshet.stream.errors import InvalidInputError

KNOWN_SLOTS = (
    *("price_ratio", "promotion", "discount", "event"),
    # 1 where nothing can be sold: such steps are forecast as 0 and count as missing in the history.
    "closed",
    "effect",  # expected change of log sales, estimated outside from what many series share
    *(f"free_{number}" for number in range(1, 7)),
)
QUANTILE_LEVELS = (0.01, *(round(0.05 * i, 2) for i in range(1, 20)), 0.99)
"""At which networks forecast unless told otherwise, and at which siblings are told."""
PAST_SLOTS = ("views", "carts", "favourites", "checkouts", "in_stock", "free_1", "free_2", "free_3")


@dataclass(frozen=True, slots=True)
class Batch:
    """Contexts of B series that end right before their cutoff, and what is known of the horizon.

    Attributes:
        target_BT: float32 units per bucket, >= 0; NaN where missing (stock-out, before the launch).
        past_BTP: float32 raw counts in the order of PAST_SLOTS; NaN where missing.
        known_BSK: float32 in the order of KNOWN_SLOTS, for context and horizon; NaN where unknown.
        static_BF: float32 from `freshet.model.text.static_features`; NaN for unknown numbers.
        start_ms_B: int64 start of the first context bucket, UTC milliseconds.
        resolution_ms: length of a bucket, the same for all rows.
        group_B: int64 group number of related rows, or None when rows stand alone.
        local_ms_BS: int64 what the shop's clock shows at the start of each step of context and
            horizon, as milliseconds since 1970-01-01 00:00 on that clock; None: it shows UTC, and
            steps are even. `freshet.model.local_clock` says what becomes of it.
        factor_B: float32 what the targets were multiplied by, so that amounts such as kilograms
            have the size of counts; forecasts are divided by it. None: by nothing.
        own_B: float32 how much of a row's forecast is its own, from 0 to 1; the rest is what its
            siblings sell. None: all of it.
        pooled_BHQ: float32 what siblings sell, in the size of the targets, at QUANTILE_LEVELS.
    """

    target_BT: Tensor
    past_BTP: Tensor
    known_BSK: Tensor
    static_BF: Tensor
    start_ms_B: Tensor
    resolution_ms: int
    group_B: Tensor | None = None
    local_ms_BS: Tensor | None = None
    factor_B: Tensor | None = None
    own_B: Tensor | None = None
    pooled_BHQ: Tensor | None = None

    def __len__(self) -> int:
        return int(self.target_BT.shape[0])

    @property
    def context_length(self) -> int:
        """T, the number of context steps."""
        return int(self.target_BT.shape[1])

    @property
    def prediction_length(self) -> int:
        """H, the number of steps after the cutoff."""
        return int(self.known_BSK.shape[1]) - self.context_length

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def rows(self, index: Tensor | slice) -> Batch:
        """Some of the rows, in the order of `index`."""
        return self._map(lambda tensor: tensor[index])

    def arguments(self) -> tuple[Tensor | int | None, ...]:
        """The fields in the order in which the network takes them."""
        assert self.local_ms_BS is None, "the network knows even steps alone: local_clock.even"
        return tuple(getattr(self, field.name) for field in fields(self)[:-4])

    def validate(self) -> Batch:
        """Return self when shapes and values fit together, else raise InvalidInputError."""
        self._check_shapes()
        if self.prediction_length <= 0:
            raise InvalidInputError(
                f"known_BSK has {self.known_BSK.shape[1]} steps for a context of "
                f"{self.context_length}: no horizon; expected context plus horizon, fill the part "
                "after the cutoff with NaN where nothing is known"
            )
        if self.resolution_ms <= 0:
            raise InvalidInputError(
                f"resolution_ms is {self.resolution_ms}; expected a positive length"
            )
        broken_B = ((self.target_BT < 0) | torch.isinf(self.target_BT)).any(1)
        if bool(broken_B.any()):
            raise InvalidInputError(
                f"target_BT row {int(broken_B.nonzero()[0])} holds a negative or infinite value; "
                "expected units >= 0 or NaN for missing"
            )
        return self

    def _check_shapes(self) -> None:
        for name, dimensions in (("target_BT", 2), ("known_BSK", 3), ("static_BF", 2)):
            found = tuple(getattr(self, name).shape)
            if len(found) != dimensions:
                raise InvalidInputError(
                    f"{name} has shape {found}; expected {dimensions} dimensions, as its "
                    "name's ending says"
                )
        (B, T), S = self.target_BT.shape, self.known_BSK.shape[1]
        expected: dict[str, tuple[int, ...]] = {
            "past_BTP": (B, T, len(PAST_SLOTS)),
            "known_BSK": (B, S, len(KNOWN_SLOTS)),
            "static_BF": (B, self.static_BF.shape[1]),
            "start_ms_B": (B,),
        }
        if self.group_B is not None:
            expected["group_B"] = (B,)
        if self.local_ms_BS is not None:
            expected["local_ms_BS"] = (B, S)
        if self.factor_B is not None:
            expected["factor_B"] = (B,)
        if self.own_B is not None and self.pooled_BHQ is not None:
            expected["own_B"] = (B,)
            expected["pooled_BHQ"] = (B, S - T, len(QUANTILE_LEVELS))
        for name, shape in expected.items():
            _check_shape(name, tuple(getattr(self, name).shape), shape)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(v) for name, v in values.items() if isinstance(v, Tensor)
        }
        return replace(self, **changed)


def _check_shape(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise InvalidInputError(
            f"{name} has shape {found}; expected {expected} to fit target_BT: "
            "pad with NaN where a value is missing rather than leaving it out"
        )
