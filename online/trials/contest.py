"""A champion and a challenger on the day that begins with the hold-out and those after it.

Whatever a look says depends on the buckets up to it alone, never on when it was asked: a process
that starts anew goes through the same looks to the same verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import msgspec
import torch

from freshet.model.network import FreshetNetwork
from freshet.online.judge.gate import Trial, judge
from freshet.online.judge.sequential import Plan
from freshet.online.judge.standing import Guarded, Standing, relative_loss
from freshet.online.judge.verdict import Verdict
from freshet.online.trials.evaluation import Served, everybody, forecast_ms, items_for, losses_on
from freshet.online.trials.pools import History, Pool
from freshet.online.trials.shadow import Shadow, days_from
from freshet.online.trials.windows import MAX_GATE_WINDOWS
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS

ALL_SEGMENTS = "all"
# A day of the shadow needs no more windows than one for each item.
MAX_DAY_WINDOWS = 256
# A trial whose days do not become final ends at last, by the clock.
MAX_WAIT_FACTOR = 2


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What was declared before the first look; kept beside the challenger's weights.

    Attributes:
        request_id: The request that the verdict answers.
        parent: The version that the challenger is held against, on whom that serves.
        beside: The other version that serves; empty where the parent serves everybody.
        segments: Which the drift named.
        onset_ms: Since when it drifts; None where nothing does.
        start_ms: Where the hold-out begins, and what is judged.
        first_days: The first look has so many days: the hold-out, made up to whole days.
        num_looks: Each but the first has a day more. Whole days: of half a day that a version is
            better at night would be all there is to see.
        error: Chance that may be spent on an equal challenger.
        item_ids: On which items.
        standing: What was measured of the challenger when it was new.
    """

    request_id: str
    parent: str
    beside: str = ""
    segments: tuple[str, ...]
    onset_ms: int | None
    start_ms: int
    first_days: int
    num_looks: int
    error: float
    item_ids: tuple[str, ...]
    standing: Standing = Standing()

    @property
    def plan(self) -> Plan:
        """The looks."""
        return Plan.of_days(self.error, first_days=self.first_days, num_looks=self.num_looks)

    @property
    def champions(self) -> set[str]:
        """The versions that must serve still when the verdict comes."""
        return {self.parent, self.beside} - {""}

    @property
    def expires_ms(self) -> int:
        """The clock at which the trial ends, whatever is final by then."""
        num_days = self.first_days + self.num_looks - 1
        return self.start_ms + MAX_WAIT_FACTOR * num_days * DAY_MS


@dataclass(slots=True)
class Contest:
    """A trial: both networks, and what they did so far.

    Args:
        terms: What was declared.
        shadow: Both networks on the same windows.
        margin: Relative gain that must be exceeded.
    """

    terms: Terms
    shadow: Shadow
    margin: float
    look: int = field(default=-1, init=False)
    verdict: Verdict | None = field(default=None, init=False)

    def proceed(self) -> Verdict | None:
        """Take every look that is due, until one decides; the newest verdict.

        Raises:
            InvalidInputError: There is no window to compare on.
        """
        while self._due():
            self._take()
        return self.verdict

    def _due(self) -> bool:
        """Whether the next look's buckets are final and nothing is decided."""
        decided = self.verdict is not None and self.verdict.decision != "not yet"
        if decided or self.look >= self.terms.plan.last:
            return False
        return self.shadow.final_until(self._part(self.look + 1)[1])

    def _part(self, look: int) -> tuple[int, int]:
        """[start, end) of what a look adds."""
        terms, grid = self.terms, self.shadow.history.grid
        end = terms.first_days + look
        start = end - 1 if look else 0
        return days_from(grid, terms.start_ms, start), days_from(grid, terms.start_ms, end)

    def _take(self) -> None:
        self.look += 1
        maximum = MAX_DAY_WINDOWS if self.look else MAX_GATE_WINDOWS
        self.shadow.extend(*self._part(self.look), maximum=maximum)
        trial = self._trial()
        self.verdict = judge(trial, margin=self.margin, plan=self.terms.plan, look=self.look)

    def _trial(self) -> Trial:
        both, terms = self.shadow.so_far(), self.terms
        every = set(self.shadow.history.segments())
        return Trial(
            champion_IT=both.first_IT,
            challenger_IT=both.second_IT,
            segments=both.segments,
            affected=frozenset(every if ALL_SEGMENTS in terms.segments else terms.segments),
            resolution_ms=self.shadow.history.grid.resolution_ms,
            champion_covered_IT=both.first_covered_IT,
            challenger_covered_IT=both.second_covered_IT,
            finite=both.finite,
            standing=terms.standing,
            before=self.shadow.before(terms.start_ms, terms.onset_ms),
            unseen=both.unseen,
            alone=not terms.beside,
        )


def whole_days(grid: Grid, num_buckets: int) -> int:
    """As many days as hold so many buckets.

    >>> whole_days(Grid(3_600_000), 12), whole_days(Grid(3_600_000), 25)
    (1, 2)
    """
    return max(1, math.ceil(num_buckets * grid.resolution_ms / DAY_MS))


def measured(
    champion: FreshetNetwork,
    challenger: FreshetNetwork,
    *,
    base: FreshetNetwork,
    anchors: Pool | None,
    pool: Pool,
    guards: tuple[Guarded, ...] = (),
) -> Standing:
    """What is measured once; blocks for seconds.

    Args:
        champion, challenger: The networks.
        base: The shipped weights: what a row of promotions forgets is forgotten of these.
        anchors: Windows from before the recent part.
        pool: Windows on which they are timed.
        guards: What they did at other resolutions.
    """
    champion_ms, challenger_ms = forecast_ms([champion, challenger], pool)
    lost = losses_on(challenger, anchors)
    return Standing(
        finite=all(bool(torch.isfinite(one).all()) for one in challenger.parameters()),
        anchor_loss=relative_loss(losses_on(champion, anchors), lost),
        anchor_loss_to_base=relative_loss(losses_on(base, anchors), lost),
        latency_ratio=challenger_ms / max(champion_ms, 1e-6),
        guards=guards,
    )


def chosen_items(
    history: History, segments: tuple[str, ...], seed: int, served: Served = everybody
) -> tuple[str, ...]:
    """The items of a trial: of those that are served, those of the named segments first."""
    rows = items_for(history, seed=seed, maximum=MAX_GATE_WINDOWS, affected=segments, served=served)
    return tuple(history.item_ids[row] for row in rows)
