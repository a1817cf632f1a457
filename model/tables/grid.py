"""Where the rows of a table lie on its steps: by the clock of its zone, or by UTC.

Days and longer steps begin when the clock says so. Hours and shorter ones pass as they do
everywhere: a clock may show one twice.

Dimensions: R rows, N series.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

import numpy as np

from freshet.model.tables.calendar import Calendar
from freshet.model.tables.items import Items
from freshet.stream.arrays import Bools, Ints
from freshet.stream.files.times import Times, clock_of
from freshet.stream.units import DAY_MS, HOUR_MS


@dataclass(frozen=True, slots=True)
class Grid:
    """Numbered steps of every series of a table.

    Attributes:
        calendar: the steps.
        by_clock: times are those of the zone's clock, not UTC.
        phase_N: of each series.
        zone: of the table's times.
    """

    calendar: Calendar
    by_clock: bool
    phase_N: Ints
    zone: tzinfo | None

    @classmethod
    def of(cls, times: Times, items: Items, frequency: str) -> Grid:
        """The grid on which the rows of a table lie."""
        by_clock = _by_clock(times, frequency)
        time_ms_R = times.clock_ms_R if by_clock else times.utc_ms_R
        calendar = Calendar.of(frequency, int(time_ms_R.min()))
        phase_N = calendar.phases(time_ms_R, items.code_R, len(items.names))
        return cls(calendar, by_clock, phase_N, times.zone)

    @property
    def frequency(self) -> str:
        """The pandas alias of a step."""
        return self.calendar.frequency

    @property
    def uneven(self) -> bool:
        """Whether steps differ in length, as months do: they begin where the calendar says."""
        return self.calendar.step_ms == 0

    def steps_of(self, times: Times, code_R: Ints) -> Ints:
        """The number of the step that each row lies in."""
        return self.calendar.steps(self._time(times), self.phase_N[code_R])

    def nearest(self, times: Times, code_R: Ints) -> Ints:
        """The number of the step that begins nearest to each row."""
        return self.calendar.nearest(self._time(times), self.phase_N[code_R])

    def off(self, times: Times, code_R: Ints) -> Bools:
        """Which rows do not lie where a step begins."""
        return self.calendar.off_grid(self._time(times), self.phase_N[code_R])

    def times(self, step_NX: Ints) -> tuple[Ints, Ints | None]:
        """The time of numbered steps, and what the clock shows where that is another."""
        time_ms_NX = self.calendar.times(step_NX, self.phase_N[:, None])
        if self.zone is None or self.by_clock:
            return time_ms_NX, None
        clock_ms_NX = clock_of(time_ms_NX, self.zone)
        return time_ms_NX, None if (clock_ms_NX == time_ms_NX).all() else clock_ms_NX

    def _time(self, times: Times) -> Ints:
        return times.clock_ms_R if self.by_clock else times.utc_ms_R


def _by_clock(times: Times, frequency: str) -> bool:
    """Whether steps are counted by the clock: whichever of the two shows an even grid."""
    step_ms = Calendar.of(frequency, 0).step_ms
    if 0 < step_ms <= HOUR_MS:
        return False
    even_ms = step_ms if 0 < step_ms < DAY_MS else DAY_MS
    shown = len(np.unique(times.clock_ms_R % even_ms))
    passed = len(np.unique(times.utc_ms_R % even_ms))
    return shown <= passed if step_ms == 0 or step_ms >= DAY_MS else shown < passed
