"""The buckets after a promotion in which the new version must show that it holds. Pure.

Both versions forecast the same final buckets from the same contexts (a shadow run), and the new one
is rolled back when it is worse by more than the margin. The scores of served forecasts cannot
decide that: they tell how the parent did before the drift and the version after it, which are
different days.
"""

from __future__ import annotations

from dataclasses import dataclass

from freshet.online.learn.evaluation import Comparison
from freshet.online.learn.gain import relative_gain
from freshet.online.learn.gate import Report
from freshet.online.learn.windows import first_whole
from freshet.stream.config import LearnSettings
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.grid import Grid

MAX_WAIT_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Probation:
    """Its buckets, [start, end): the first ones that begin after the promotion."""

    start_ms: int
    end_ms: int

    def keeps_waiting(self, now_ms: int) -> bool:
        """Whether requests wait for it: no longer than twice its length of clock time.

        >>> probation = Probation(100, 124)
        >>> probation.keeps_waiting(147), probation.keeps_waiting(148)
        (True, False)
        """
        return now_ms < self.start_ms + MAX_WAIT_FACTOR * (self.end_ms - self.start_ms)


@dataclass(frozen=True, slots=True)
class ProbationVerdict:
    """Whether the version stays, and what that rests on."""

    holds: bool
    gain: float
    report: Report


def probation_of(promotion: ModelEvent, *, num_buckets: int, grid: Grid) -> Probation:
    """The probation of a promoted version."""
    start = first_whole(grid, promotion.at_ms)
    return Probation(grid.start_ms(start), grid.start_ms(start + num_buckets))


def judge_probation(
    both: Comparison, resolution_ms: int, settings: LearnSettings
) -> ProbationVerdict:
    """The verdict on a version: `both` holds its parent first, and it second.

    The gain itself decides, not the lower end of its interval: the version has passed a gate, and
    is taken back for what it does, not for what it cannot be proven not to do.
    """
    gain = relative_gain(
        both.first_IT,
        both.second_IT,
        resolution_ms=resolution_ms,
        confidence=settings.gate_confidence,
    )
    worse = -gain.gain > settings.probation_margin
    report: Report = {
        "gain": float(f"{gain.gain:.6g}"),
        "loss_margin": settings.probation_margin,
        "blocks": float(gain.num_blocks),
        "items": float(gain.num_items),
    }
    return ProbationVerdict(both.finite and not worse, gain.gain, report)
