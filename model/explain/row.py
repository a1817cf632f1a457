"""What every explanation settles first: which row of a batch, which steps and which levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from freshet.model.batch import Batch
from freshet.stream.errors import InvalidInputError


class Forecasts(Protocol):
    """What an explanation needs of a `freshet.model.forecaster.BatchForecaster`."""

    @property
    def quantile_levels(self) -> tuple[float, ...]:
        """Probabilities of the last dimension of a forecast."""

    def forecast(self, batch: Batch) -> Tensor:
        """Quantiles in units: [B, H, Q]."""


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
