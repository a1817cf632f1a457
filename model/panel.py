"""A long table as arrays, and windows of it that hold nothing from after their cutoff.

Dimensions: N series, T context steps, H horizon steps, S = T + H, K known covariates, P past covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stream.errors import InvalidInputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """N series up to one cutoff each, and what is known in advance of the H steps after it.

    Everything is aligned on the right: the last context step of every series is its last step before the cutoff, and
    histories shorter than the longest are padded with NaN on the left. The arrays are copies that end at the cutoff,
    so that no later value can be asked for.

    Attributes:
        item_ids: N names.
        frequency: pandas offset alias of a step, such as "D", "h", "W-SUN" or "MS".
        resolution_ms: nominal length of a step (a month counts 30.44 days).
        season_length: steps of the season that yardsticks use.
        time_ms_NS: int64 start of every context and horizon step, UTC milliseconds.
        target_NT: float64 >= 0; NaN where missing or before the series began.
        known_NSK: float64 numbers, flags and one-hot categories, NaN where missing; context and horizon.
        past_NTP: the same for covariates that end with the context.
        known_names: K names; a one-hot column is "column=value".
        past_names: P names.
        static: per column N values: float64 with NaN, or object (str or None) for categories and text.
    """

    item_ids: tuple[str, ...]
    frequency: str
    resolution_ms: int
    season_length: int
    time_ms_NS: Ints
    target_NT: Floats
    known_NSK: Floats
    past_NTP: Floats
    known_names: tuple[str, ...]
    past_names: tuple[str, ...]
    static: dict[str, NDArray[np.float64] | NDArray[np.object_]]

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def context_length(self) -> int:
        """T, steps of the longest history."""
        return self.target_NT.shape[1]

    @property
    def horizon(self) -> int:
        """H, steps after the cutoff."""
        return self.known_NSK.shape[1] - self.context_length

    def rows(self, index: Ints | slice) -> Window:
        """Some of the series, in the order of `index`."""
        chosen = np.arange(len(self))[index]
        return replace(
            self,
            item_ids=tuple(self.item_ids[row] for row in chosen),
            time_ms_NS=self.time_ms_NS[chosen],
            target_NT=self.target_NT[chosen],
            known_NSK=self.known_NSK[chosen],
            past_NTP=self.past_NTP[chosen],
            static={name: values[chosen] for name, values in self.static.items()},
        )

    def earlier(self, steps: int, horizon: int | None = None) -> tuple[Window, Floats]:
        """The same series `steps` steps ago, and what came then: a window to learn from and its actuals [N, H].

        Args:
            steps: how many steps before this window's cutoff the new one lies; at least the new horizon.
            horizon: H of the new window; default this one's.

        Raises:
            InvalidInputError: the history is not that long, or the horizon would reach past this cutoff.
        """
        horizon = self.horizon if horizon is None else horizon
        cutoff = self.context_length - steps
        if not (horizon >= 1 and steps >= horizon and cutoff >= 1):
            raise InvalidInputError(
                f"a window {steps} steps ago with a horizon of {horizon} does not fit into a history of "
                f"{self.context_length} steps",
                hint="ask for at least the horizon and less than the history",
            )
        end = cutoff + horizon
        window = replace(
            self,
            time_ms_NS=self.time_ms_NS[:, :end],
            target_NT=self.target_NT[:, :cutoff],
            known_NSK=self.known_NSK[:, :end],
            past_NTP=self.past_NTP[:, :cutoff],
        )
        return window, self.target_NT[:, cutoff:end]
