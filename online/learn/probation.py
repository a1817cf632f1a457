"""The days after a promotion in which the new version must show that it holds, in every segment.

Its parent runs beside it on the same buckets, of the segments that it serves. It is taken back for
a segment that is worse by more than the margin and surely worse at all, or where its intervals hold
too little, and for all of them when all together are: at looks that are declared before the first,
as the gate's. Where a row is worse by more than the margin and that may be chance, another look
follows; what is not surely worse by the last one stays.

Dimensions: I items, T buckets in time order, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from freshet.online.judge.gate import (
    COVERAGE_BAND,
    MIN_FREEDOM,
    NOMINAL_COVERAGE,
)
from freshet.online.judge.rows import Before, Rows
from freshet.online.judge.sequential import Plan
from freshet.online.judge.standing import paired
from freshet.online.judge.verdict import Condition, Report, flat_report
from freshet.online.trials.shadow import Shadow, SoFar
from freshet.online.trials.windows import MAX_GATE_WINDOWS, first_whole
from freshet.stream.arrays import Bools, Floats
from freshet.stream.catalog.segments import NO_SEGMENT
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.grid import Grid

MAX_WAIT_FACTOR = 2
# Looks, each as long after the one before as the first after the promotion.
MAX_LOOKS = 4
# Chance that a version that is as good as its parent is taken back, over all looks and segments.
ERROR = 0.05
# A distance in coverage is believed beyond so many standard errors.
COVERAGE_REACH = 3.0
MAX_SEGMENT_CONDITIONS = 20


@dataclass(frozen=True, slots=True)
class Probation:
    """Its looks: ends of stretches of whole buckets, the first of which begins at `start_ms`."""

    start_ms: int
    ends_ms: tuple[int, ...]

    @property
    def plan(self) -> Plan:
        """How sure one must be at each look."""
        return Plan(ERROR, tuple((look + 1) / MAX_LOOKS for look in range(MAX_LOOKS)))

    def stretch(self, look: int) -> tuple[int, int]:
        """[start, end) of what a look adds."""
        return (self.ends_ms[look - 1] if look else self.start_ms), self.ends_ms[look]

    def due(self, final_ms: int, now_ms: int) -> bool:
        """Whether there is anything to look at: the first stretch is final, or its time is over."""
        return final_ms >= self.ends_ms[0] or not self.waits(now_ms, 0)

    def waits(self, now_ms: int, look: int) -> bool:
        """Whether requests still wait for a look: no longer than twice its time by the clock.

        >>> probation = Probation(100, (124, 148))
        >>> probation.waits(147, 0), probation.waits(148, 0), probation.waits(195, 1)
        (True, False, True)
        """
        return now_ms < self.start_ms + MAX_WAIT_FACTOR * (self.ends_ms[look] - self.start_ms)


@dataclass(frozen=True, slots=True)
class ProbationVerdict:
    """Whether the version stays, and what that rests on.

    Attributes:
        segments: Which it goes from, where it goes; none: from all that it serves.
    """

    decision: Literal["stays", "goes", "not yet"]
    reason: str
    report: Report
    segments: tuple[str, ...] = ()


def probation_of(promotion: ModelEvent, *, num_buckets: int, grid: Grid) -> Probation:
    """The probation of a promoted version: it begins with the first bucket after the promotion."""
    start = first_whole(grid, promotion.at_ms)
    ends = (grid.start_ms(start + num_buckets * (look + 1)) for look in range(MAX_LOOKS))
    return Probation(grid.start_ms(start), tuple(ends))


@dataclass(slots=True)
class Watch:
    """A probation that goes on: parent and version in the shadow, and the looks that were taken.

    Args:
        probation: Its looks.
        shadow: The parent first, the version second.
        margin: Relative loss that is too much.
    """

    probation: Probation
    shadow: Shadow
    margin: float
    look: int = field(default=0, init=False)

    def proceed(self, now_ms: int) -> ProbationVerdict | None:
        """Take the looks that are due; the verdict, or None while another look is to come."""
        final_ms = self.shadow.history.final_ms() or 0
        while self.look < MAX_LOOKS and final_ms >= self.probation.ends_ms[self.look]:
            verdict = self._judged(*self.probation.stretch(self.look))
            if verdict.decision != "not yet":
                return verdict
            self.look += 1
        return None if self.probation.waits(now_ms, self.look) else self._judged_late(final_ms)

    def _judged_late(self, final_ms: int) -> ProbationVerdict:
        """Its time is over: what is final by now is judged, and the version stays in doubt."""
        grid = self.shadow.history.grid
        start_ms, end_ms = self.probation.stretch(self.look)
        end_ms = min(end_ms, grid.start_ms(grid.bucket(final_ms)))
        late = "not all of its buckets became final in twice their time"
        if end_ms <= start_ms:
            return ProbationVerdict("stays", late, {})
        verdict = self._judged(start_ms, end_ms)
        if verdict.decision == "goes":
            return verdict
        return replace(verdict, decision="stays", reason=late)

    def _judged(self, start_ms: int, end_ms: int) -> ProbationVerdict:
        self.shadow.extend(start_ms, end_ms, maximum=MAX_GATE_WINDOWS)
        return judge_probation(
            self.shadow.so_far(),
            self.shadow.before(self.probation.start_ms),
            resolution_ms=self.shadow.history.grid.resolution_ms,
            margin=self.margin,
            plan=self.probation.plan,
            look=self.look,
        )


def judge_probation(
    both: SoFar,
    before: Before | None,
    *,
    resolution_ms: int,
    margin: float,
    plan: Plan,
    look: int,
) -> ProbationVerdict:
    """The verdict on a version: `both` and `before` hold its parent first, and it second.

    Args:
        both: What they did since the promotion.
        before: What they do on days from before it: how much days differ.
        resolution_ms: Length of a bucket.
        margin: Relative loss that is too much.
        plan: The looks.
        look: Which of them this is.
    """
    rows = Rows.of(both.segments, ())
    first_IT, second_IT = paired(both.first_IT, both.second_IT)
    found, days = rows.estimated(
        first_IT, second_IT, resolution_ms=resolution_ms, before=before, unseen=both.unseen
    )
    surely_R = found.high_R(plan.level(look) / len(rows.names)) < 0.0
    known_R = found.freedom_R >= MIN_FREEDOM
    # Where nothing says how much days differ, the loss of the shop itself decides.
    surely_R = np.where(known_R, surely_R, ~rows.segments_R)
    worse_R = -found.gain_R > margin
    off_R, distance_R = _coverage(rows, both)
    lost_R = worse_R & surely_R
    conditions = [
        Condition("finite", float(both.finite), 1.0, both.finite),
        *_by_row("loss", rows.names, -found.gain_R, margin, lost_R),
        *_by_row("coverage_distance", rows.names, distance_R, COVERAGE_BAND, off_R),
    ]
    failed = [condition for condition in conditions if not condition.ok]
    waits = bool((worse_R & ~surely_R & known_R).any()) and look < plan.last
    report = {
        "gain": float(f"{found.gain_R[-1]:.6g}"),
        "days": days,
        "items": float(len(both.segments)),
        **flat_report(conditions),
    }
    reason = "; ".join(f"{x.name} {x.value:.4g} against {x.threshold:.4g}" for x in failed)
    decision: Literal["stays", "goes", "not yet"] = "not yet" if waits else "stays"
    segments = _failed_alone(rows, lost_R | off_R) if both.finite else ()
    return ProbationVerdict("goes" if failed else decision, reason, report, segments)


def _failed_alone(rows: Rows, failed_R: Bools) -> tuple[str, ...]:
    """The segments that failed, where the others may stay; none where all must go.

    Of items whose segment is unknown nobody can say that another version is to serve them.
    """
    names = [rows.names[row] for row in np.flatnonzero(failed_R & rows.segments_R)]
    every = failed_R[-1] or len(names) == rows.segments_R.sum() or NO_SEGMENT in names
    return () if every else tuple(names)


def _by_row(
    name: str, rows: Sequence[str], values_R: Floats, threshold: float, failed_R: Bools
) -> list[Condition]:
    """A condition for the shop, and for each segment; of these the worst ones."""
    conditions = [
        Condition(f"{name}:{row}", float(value), threshold, not failed)
        for row, value, failed in zip(rows, values_R, failed_R, strict=True)
    ]
    segments = sorted(conditions[:-1], key=lambda condition: (condition.ok, -condition.value))
    return [conditions[-1], *segments[:MAX_SEGMENT_CONDITIONS]]


def _coverage(rows: Rows, both: SoFar) -> tuple[Bools, Floats]:
    """Where the version's coverage is too far off, and by how much further than its parent's.

    Its standard error is that of a mean over items, whose hours all depend on one another.
    """
    first_IT, second_IT = paired(both.first_covered_IT, both.second_covered_IT)
    count_I = np.isfinite(first_IT).sum(1).astype(np.float64)
    counts_RI = rows.member_RI * count_I
    total_R = np.maximum(counts_RI.sum(1), 1.0)
    first_R, second_R = (
        rows.member_RI @ np.nansum(x, axis=1) / total_R for x in (first_IT, second_IT)
    )
    excess_R = np.abs(second_R - NOMINAL_COVERAGE) - np.abs(first_R - NOMINAL_COVERAGE)
    shift_I = np.nansum(second_IT - first_IT, axis=1)
    residual_RI = rows.member_RI * (shift_I - (second_R - first_R)[:, None] * count_I)
    num_items_R = (counts_RI > 0).sum(1)
    factor_R = num_items_R / np.maximum(num_items_R - 1.0, 1.0)
    error_R = np.sqrt(factor_R * (residual_RI**2).sum(1)) / total_R
    enough_R = num_items_R >= 2
    off_R = (excess_R - COVERAGE_REACH * error_R > COVERAGE_BAND) & enough_R
    return off_R, np.where(counts_RI.sum(1) > 0, excess_R, 0.0)
