"""A table as arrays aligned on each series' end; windows of it hold nothing after their cutoff.

Dimensions: N series, T context steps, H horizon steps, S = T + H, L steps in all, K known and P
past covariates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import tzinfo

import numpy as np
from numpy.typing import NDArray

from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Window:
    """N series up to one cutoff each, and what is known in advance of the H steps after it.

    Everything is aligned on the right: the last context step of every series is its last step
    before the cutoff, and histories shorter than the longest are padded with NaN on the left. The
    arrays are copies that end at the cutoff, so that no later value can be asked for.

    Attributes:
        item_ids: N names.
        frequency: pandas offset alias of a step, such as "D", "h", "W-SUN" or "MS".
        resolution_ms: nominal length of a step (a month counts 30.44 days).
        season_length: steps of the season that yardsticks use.
        time_ms_NS: int64 start of every context and horizon step, UTC milliseconds.
        target_NT: float64 >= 0; NaN where missing or before the series began.
        known_NSK: float64 numbers, flags and one-hot categories, NaN where missing; context and
            horizon.
        past_NTP: the same for covariates that end with the context.
        known_names: K names; a one-hot column is "column=value".
        past_names: P names.
        static: per column N values: float64 with NaN, or object (str or None) for categories and
            text.
        length_N: context steps since each series began, which may begin with missing values; None:
            it began with its first value.
        country: ISO code whose public holidays are known, besides Christmas and Easter; None: no
            other.
        local_ms_NS: what the clock of the series' place shows at each step, as milliseconds since
            1970-01-01 00:00 on it; None: it shows UTC.
        level_N: what each series is of a hierarchy, by its level's name; None: all are items.
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
    static: dict[str, Floats | NDArray[np.object_]]
    length_N: Ints | None = None
    country: str | None = None
    local_ms_NS: Ints | None = None
    level_N: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def shown_ms_NS(self) -> Ints:
        """The time of each step by the clock of the series' place: calendars follow it."""
        return self.time_ms_NS if self.local_ms_NS is None else self.local_ms_NS

    @property
    def context_length(self) -> int:
        """T, steps of the longest history."""
        return int(self.target_NT.shape[1])

    @property
    def horizon(self) -> int:
        """H, steps after the cutoff."""
        return int(self.known_NSK.shape[1]) - self.context_length

    def newest(self, steps: int) -> Window:
        """The window with exactly so many context steps, missing ones before its first."""
        cut = max(self.context_length - steps, 0)
        missing = max(steps - self.context_length, 0)
        return replace(
            self,
            time_ms_NS=_longer(self.time_ms_NS[:, cut:], missing, self.resolution_ms),
            target_NT=_padded(self.target_NT[:, cut:], missing),
            known_NSK=_padded(self.known_NSK[:, cut:], missing),
            past_NTP=_padded(self.past_NTP[:, cut:], missing),
            length_N=None if self.length_N is None else np.minimum(self.length_N, steps),
            local_ms_NS=None
            if self.local_ms_NS is None
            else _longer(self.local_ms_NS[:, cut:], missing, self.resolution_ms),
        )

    def earlier(self, steps: int) -> Window:
        """What was known at a cutoff so many steps earlier, with the same horizon."""
        T, S = self.context_length - steps, self.time_ms_NS.shape[1] - steps
        return replace(
            self,
            time_ms_NS=self.time_ms_NS[:, :S],
            target_NT=self.target_NT[:, :T],
            known_NSK=self.known_NSK[:, :S],
            past_NTP=self.past_NTP[:, :T],
            length_N=None if self.length_N is None else np.maximum(self.length_N - steps, 0),
            local_ms_NS=None if self.local_ms_NS is None else self.local_ms_NS[:, :S],
        )

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
            length_N=None if self.length_N is None else self.length_N[chosen],
            local_ms_NS=None if self.local_ms_NS is None else self.local_ms_NS[chosen],
            level_N=_chosen(self.level_N, chosen),
        )


@dataclass(frozen=True, slots=True)
class Panel:
    """N whole series, each aligned on its own end: column -1 holds every series' own last step.

    Attributes:
        item_ids: N names, sorted.
        frequency: pandas offset alias of a step.
        resolution_ms: nominal length of a step.
        season_length: steps of the season that yardsticks use.
        length_N: steps from the first to the last row of each series; what lies left of them is
            padding.
        time_ms_NL: int64 start of every step, UTC milliseconds (see `clock_ms_NL`).
        target_NL: float64 >= 0, NaN where missing.
        known_NLK: known covariates, see `Window`.
        past_NLP: past covariates, see `Window`.
        known_names: K names.
        past_names: P names.
        static: per column N values, see `Window`.
        categories: the values that became one-hot columns, per text column.
        country: see `Window`.
        keys: what each series is called in the table: a number, a text; none: by its name.
        zone: that of the table's times; None: they name none.
        clock_ms_NL: what the clock of the zone shows at every step; None: what `time_ms_NL` says,
            which for days and longer steps is the clock's time rather than UTC.
        level_N: see `Window`.
    """

    item_ids: tuple[str, ...]
    frequency: str
    resolution_ms: int
    season_length: int
    length_N: Ints
    time_ms_NL: Ints
    target_NL: Floats
    known_NLK: Floats
    past_NLP: Floats
    known_names: tuple[str, ...]
    past_names: tuple[str, ...]
    static: dict[str, Floats | NDArray[np.object_]]
    categories: dict[str, tuple[str, ...]]
    country: str | None = None
    keys: tuple[object, ...] = ()
    zone: tzinfo | None = None
    clock_ms_NL: Ints | None = None
    level_N: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def long_enough(self, steps: int) -> Bools:
        """Which series have history before a cutoff `steps` steps before their own end: [N]."""
        return self.length_N > steps

    def whole(self) -> Window:
        """All of it as a past, without a horizon."""
        return Window(
            item_ids=self.item_ids,
            frequency=self.frequency,
            resolution_ms=self.resolution_ms,
            season_length=self.season_length,
            time_ms_NS=self.time_ms_NL,
            target_NT=self.target_NL,
            known_NSK=self.known_NLK,
            past_NTP=self.past_NLP,
            known_names=self.known_names,
            past_names=self.past_names,
            static=self.static,
            length_N=self.length_N,
            country=self.country,
            local_ms_NS=self.clock_ms_NL,
            level_N=self.level_N,
        )

    def window(self, steps: int, horizon: int) -> Window:
        """What may be known at a cutoff `steps` steps before each series' own end.

        Too short series are left out.

        Raises:
            InvalidInputError: no series is long enough, or the horizon reaches past the end.
        """
        _require(
            1 <= horizon <= steps,
            f"a horizon of {horizon} steps does not fit into the last {steps} steps",
        )
        kept = self.long_enough(steps)
        _require(
            bool(kept.any()),
            f"no series is longer than the {steps} steps that the windows need; "
            f"the longest has {int(self.length_N.max(initial=0))}",
            hint="ask for fewer or shorter windows, or give more history",
        )
        longest = int(self.length_N.max())
        rows = np.flatnonzero(kept)
        L = self.target_NL.shape[1]
        context = slice(L - longest, L - steps)
        known = slice(L - longest, L - steps + horizon)
        clock_ms_NL = self.clock_ms_NL
        return replace(
            self.whole(),
            item_ids=tuple(self.item_ids[row] for row in rows),
            time_ms_NS=self.time_ms_NL[rows, known],
            target_NT=self.target_NL[rows, context],
            known_NSK=self.known_NLK[rows, known],
            past_NTP=self.past_NLP[rows, context],
            static={name: values[rows] for name, values in self.static.items()},
            length_N=self.length_N[rows] - steps,
            local_ms_NS=None if clock_ms_NL is None else clock_ms_NL[rows, known],
            level_N=_chosen(self.level_N, rows),
        )

    def actual(self, steps: int, horizon: int) -> Floats:
        """What came after the cutoff of `window(steps, horizon)`: [N, H].

        Never give it to a model.
        """
        L = self.target_NL.shape[1]
        return self.target_NL[self.long_enough(steps), L - steps : L - steps + horizon]


@dataclass(frozen=True, slots=True)
class Rolling:
    """Rolling origins as fev places them: W cutoffs, the last one a horizon before each end.

    They lie `window_step` apart, by default a horizon.

    Cutoffs are steps from each series' own end, so series that end earlier have earlier cutoffs.

    >>> rolling = Rolling(horizon=48, num_windows=10)
    >>> rolling.steps_back(0), rolling.steps_back(9)
    (480, 48)
    """

    horizon: int
    num_windows: int = 1
    window_step: int | None = None

    def steps_back(self, index: int) -> int:
        """Steps from the end of a series to the cutoff of window `index`, oldest first."""
        if not 0 <= index < self.num_windows:
            raise IndexError(f"window {index} of {self.num_windows}")
        return self.horizon + (self.num_windows - 1 - index) * (self.window_step or self.horizon)

    def window(self, panel: Panel, index: int) -> Window:
        """What may be known at the cutoff of window `index`."""
        return panel.window(self.steps_back(index), self.horizon)

    def actual(self, panel: Panel, index: int) -> Floats:
        """What came after that cutoff: [N, H], rows as in `window`."""
        return panel.actual(self.steps_back(index), self.horizon)


def _chosen(names_N: tuple[str, ...] | None, rows: Ints) -> tuple[str, ...] | None:
    return None if names_N is None else tuple(names_N[row] for row in rows)


def _padded(values_NX: Floats, missing: int) -> Floats:
    """NaN before the first step."""
    if not missing:
        return values_NX
    shape = (len(values_NX), missing, *values_NX.shape[2:])
    return np.concatenate([np.full(shape, np.nan), values_NX], 1)


def _longer(time_ms_NS: Ints, missing: int, resolution_ms: int) -> Ints:
    """Even steps before the first one."""
    if not missing:
        return time_ms_NS
    before_X = np.arange(-missing, 0) * resolution_ms
    return np.concatenate([time_ms_NS[:, :1] + before_X, time_ms_NS], 1)


def _require(condition: bool, message: str, hint: str = "") -> None:
    if not condition:
        raise InvalidInputError(message, hint=hint)
