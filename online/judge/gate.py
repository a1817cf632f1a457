"""May a challenger replace the champion: yes, no, or not yet? Held-out windows, then days. Pure.

Dimensions: I items, T buckets in time order.

The first look is at the day that begins with the hold-out. Then both versions forecast each day
that becomes final, until the gain is sure, hopeless, or the last look of the plan is over. The test
is of each segment that the drift named and of all these together, or of the whole shop where none
was named: a challenger passes when the lower end of the gain of one of these rows lies above the
margin, at the level that the plan (`online/judge/sequential.py`) has for this look, divided by the
number of rows (Bonferroni). Where others would be harmed, or the whole shop would, it passes for
the segments alone that show the gain: nothing more is tested for that, so nothing more passes by
chance. How much days differ is known from days before the trial (`online/judge/paired.py`).

What was tried on the way (factors of interpolation) is chosen on other buckets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from freshet.online.judge.paired import Estimate
from freshet.online.judge.rows import Before, Rows
from freshet.online.judge.sequential import Plan
from freshet.online.judge.standing import MIN_ITEMS, Guarded, Standing, paired
from freshet.online.judge.verdict import Condition, Report, Shown, Verdict
from freshet.stream.arrays import Floats
from freshet.stream.catalog.segments import NO_SEGMENT

# Of a variance that rests on fewer days nobody can say how sure it is.
MIN_FREEDOM = 3.0
# Waiting is in vain when the last look would not be passed even if all days to come were as good as
# the upper end of the gain says, which is exceeded in so many of all cases. At a level of 10 % one
# that is 5 % better is given up more often; to wait until the upper end lies below the margin takes
# six days for one that is no better, this two.
FUTILE_LEVEL = 0.03
# Of the interval between the 10 % and the 90 % quantile.
NOMINAL_COVERAGE = 0.8
COVERAGE_BAND = 0.05
# The deciding gain may be one segment's. All items together may not pay more than this for it.
OVERALL_MARGIN = 0.01
SEGMENT_MARGIN = 0.05
# A segment that is worse by more than its margin and, at this level, by more than chance, ends it.
HARM_LEVEL = 0.001
ANCHOR_MARGIN = 0.05
# Of what is surely gained, so much may be forgotten.
ANCHOR_SHARE = 0.25
# What a row of champions may forget in all: promotions add up, and each alone looks harmless.
BASE_ANCHOR_MARGIN = 0.10
# Of a loss on few windows nobody can say whether it is chance; by so many times what may be lost it
# is believed all the same.
FEW_WINDOWS_FACTOR = 2.0
# Versions share one architecture: what is twice as slow is broken, what is less is a busy machine.
LATENCY_RATIO = 2.0
MAX_SEGMENT_CONDITIONS = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """What both versions did on windows that neither was trained on.

    Attributes:
        champion_IT, challenger_IT: pinball loss in units per item and final bucket; NaN where there
            is no actual.
        segments: I names, one for each item.
        affected: Segments that the drift alert named: the test is theirs. Where none has MIN_ITEMS
            items (or none was named) all items make the test.
        resolution_ms: Length of a bucket.
        champion_covered_IT, challenger_covered_IT: Share of forecasts whose 80 % interval held the
            actual; NaN where there is none.
        finite: The challenger's forecasts are all finite.
        standing: What was measured when the challenger was new.
        before: Days before the trial; without them only its own days say how much days differ.
        unseen: Share of the shop's items that the trial has no windows of.
        alone: The champion serves everybody, so the challenger may serve some segments beside it.
    """

    champion_IT: Floats
    challenger_IT: Floats
    segments: Sequence[str]
    affected: frozenset[str]
    resolution_ms: int
    champion_covered_IT: Floats
    challenger_covered_IT: Floats
    finite: bool
    standing: Standing
    before: Before | None = None
    unseen: float = 0.0
    alone: bool = True


def judge(trial: Trial, *, margin: float, plan: Plan, look: int = 0) -> Verdict:
    """The verdict on a challenger at one look.

    Args:
        trial: Both versions on held-out windows, up to where this look is.
        margin: Relative gain that must be exceeded.
        plan: The looks that were declared before the first.
        look: Which of them this is.
    """
    shape = len(trial.segments), trial.champion_IT.shape[1]
    assert trial.champion_IT.shape == trial.challenger_IT.shape == shape
    rows = Rows.of(trial.segments, trial.affected)
    champion_IT, challenger_IT = paired(trial.champion_IT, trial.challenger_IT)
    found, days = rows.estimated(
        champion_IT,
        challenger_IT,
        resolution_ms=trial.resolution_ms,
        before=trial.before,
        unseen=trial.unseen,
    )
    look_at = _Look(trial, rows, found, days, plan.level(look) / len(rows.tested))
    foreseen = _foreseen(rows, found, plan, look)
    for_all = look_at.verdict(rows.tested, margin, foreseen)
    if all(condition.ok for condition in for_all.conditions):
        return replace(for_all, decision="promote")
    may_be_some = trial.alone and bool(rows.segments_R[rows.tested].any())
    shown = look_at.shown(margin) if may_be_some else []
    segments = look_at.helped(shown)
    if segments:
        for_some = look_at.verdict(shown, margin, foreseen, segments)
        if all(condition.ok for condition in for_some.conditions):
            return replace(for_some, decision="promote")
    # Whom it would harm need not be served by it.
    hopeless = any(
        condition.hopeless
        for condition in for_all.conditions
        if not (may_be_some and condition.of_segments)
    )
    return replace(for_all, decision="reject" if hopeless or look == plan.last else "not yet")


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look has, for whoever may be served.

    Attributes:
        level: Of the test of one row.
    """

    trial: Trial
    rows: Rows
    found: Estimate
    days: float
    level: float

    def verdict(
        self,
        candidates: Sequence[int],
        margin: float,
        foreseen: float,
        segments: tuple[str, ...] = (),
    ) -> Verdict:
        """Every condition of serving everybody, or some segments beside the champion; undecided."""
        gain = self._deciding(candidates)
        spread = self._without_best(gain.row)
        finite = self.trial.finite and self.trial.standing.finite
        conditions = (
            Condition("finite", float(finite), 1.0, finite, hopeless=not finite),
            Condition("freedom", gain.freedom, MIN_FREEDOM, gain.freedom >= MIN_FREEDOM),
            Condition("items", gain.num_items, MIN_ITEMS, gain.num_items >= MIN_ITEMS),
            Condition("gain_low", gain.low, margin, gain.low > margin, hopeless=foreseen <= margin),
            Condition("gain_without_best_item", spread, 0.0, spread > 0.0 or gain.gain <= 0.0),
            *(() if segments else (_overall(self.found),)),
            _coverage(self.trial, segments),
            *(() if segments else _segments(self.rows, self.found)),
            *_standing(self.trial.standing, gain),
        )
        return Verdict("not yet", conditions, gain, segments)

    def shown(self, margin: float) -> list[int]:
        """The tested rows that show the gain, not by one item alone."""
        low_R = self.found.low_R(self.level)
        return [
            row
            for row in self.rows.tested
            if low_R[row] > margin and self.found.freedom_R[row] >= MIN_FREEDOM
            if self._without_best(row) > 0.0
        ]

    def helped(self, shown: Sequence[int]) -> tuple[str, ...]:
        """Segments that show the gain, or are better and show it together with the others named."""
        rows = self.rows
        together = any(not rows.segments_R[row] for row in shown)
        return tuple(
            rows.names[row]
            for row in rows.tested
            if rows.segments_R[row] and rows.names[row] != NO_SEGMENT
            if row in shown or (together and self.found.gain_R[row] > 0.0)
        )

    def _deciding(self, candidates: Sequence[int]) -> Shown:
        """The gain of the row that shows it most clearly."""
        found, low_R = self.found, self.found.low_R(self.level)
        row = max(candidates, key=lambda row: (low_R[row], found.gain_R[row]))
        return Shown(
            row=row,
            name=self.rows.names[row],
            gain=float(found.gain_R[row]),
            low=float(low_R[row]),
            high=float(found.high_R(FUTILE_LEVEL)[row]),
            num_items=int(self.rows.member_RI[row].sum()),
            days=self.days,
            freedom=float(found.freedom_R[row]),
        )

    def _without_best(self, row: int) -> float:
        return self.rows.without_best(
            row, *paired(self.trial.champion_IT, self.trial.challenger_IT)
        )


def _foreseen(rows: Rows, found: Estimate, plan: Plan, look: int) -> float:
    """The best lower end that the last look may have, if the days to come go well."""
    if not found.freedom_R[rows.tested].all():
        # Where nothing is known of the noise there is every hope.
        return math.inf
    share = plan.shares[look]
    hope_R = found.gain_R + (1.0 - share) * (found.high_R(FUTILE_LEVEL) - found.gain_R)
    last = replace(found, gain_R=hope_R, error_R=found.error_R * math.sqrt(share))
    low_R = last.low_R(plan.level(plan.last) / len(rows.tested))
    return float(low_R[rows.tested].max())


def _overall(found: Estimate) -> Condition:
    overall = float(found.gain_R[-1])
    ok = overall >= -OVERALL_MARGIN
    return Condition("overall_gain", overall, -OVERALL_MARGIN, ok, of_segments=True)


def _coverage(trial: Trial, segments: Collection[str]) -> Condition:
    """How far the 80 % interval is from holding 80 %: at most the champion's distance and a band.

    Of the named segments, or of all. Pinball loss alone can be gained with intervals that are too
    narrow to plan by.
    """
    member_I = np.array([not segments or segment in segments for segment in trial.segments])
    champion, challenger = (
        _mean(covered_IT[member_I])
        for covered_IT in (trial.champion_covered_IT, trial.challenger_covered_IT)
    )
    distance = abs(challenger - NOMINAL_COVERAGE)
    allowed = abs(champion - NOMINAL_COVERAGE) + COVERAGE_BAND
    return Condition("coverage_distance", distance, allowed, distance <= allowed)


def _mean(values: Floats) -> float:
    """NaN where there is nothing."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _segments(rows: Rows, found: Estimate) -> list[Condition]:
    """No segment may look worse by more than the margin, where all of them get one version."""
    surely_R = found.high_R(HARM_LEVEL) < 0.0
    conditions = []
    for row in np.flatnonzero(rows.segments_R):
        loss = -float(found.gain_R[row])
        ok = loss <= SEGMENT_MARGIN
        hopeless = not ok and bool(surely_R[row])
        name = f"segment_loss:{rows.names[row]}"
        conditions.append(
            Condition(name, loss, SEGMENT_MARGIN, ok, hopeless=hopeless, of_segments=True)
        )
    conditions.sort(key=lambda condition: (condition.ok, -condition.value))
    return conditions[:MAX_SEGMENT_CONDITIONS]


def _standing(standing: Standing, gain: Shown) -> list[Condition]:
    """What was measured once, against what the gain of this look pays for.

    Where the shop has really changed, the past is worth less than the present; where the gain is
    small, what was known must stay.
    """
    lost, ratio = standing.anchor_loss, standing.latency_ratio
    return [
        _capped("anchor_loss", lost, _allowed_loss(gain.low), _allowed_loss(gain.high)),
        _capped("anchor_loss_to_base", standing.anchor_loss_to_base, BASE_ANCHOR_MARGIN),
        *(_guard(guard, gain) for guard in standing.guards),
        _capped("latency_ratio", ratio, LATENCY_RATIO),
    ]


def _capped(name: str, value: float, allowed: float, ever: float = -math.inf) -> Condition:
    """A condition that holds up to what is allowed; hopeless beyond what may ever be."""
    return Condition(name, value, allowed, value <= allowed, hopeless=value > max(allowed, ever))


def _guard(guard: Guarded, gain: Shown) -> Condition:
    """What is lost at another served resolution: as little as may be forgotten, or chance.

    Where windows are too few to tell what is chance, the loss itself decides, at twice of that.
    """
    factor = FEW_WINDOWS_FACTOR if guard.few else 1.0
    allowed, ever = (factor * _allowed_loss(end) for end in (gain.low, gain.high))
    believed = guard.few or guard.surely
    facts: Report = {
        "few": guard.few,
        "blocks": float(guard.blocks),
        "items": float(guard.items),
        "finite": guard.finite,
        "s": guard.seconds,
    }
    return Condition(
        f"guard_{guard.resolution_ms}",
        guard.loss,
        allowed,
        guard.finite and not (believed and guard.loss > allowed),
        facts,
        hopeless=not guard.finite or (believed and guard.loss > max(allowed, ever)),
    )


def _allowed_loss(gain: float) -> float:
    """What may be lost elsewhere for a gain."""
    return max(ANCHOR_MARGIN, ANCHOR_SHARE * gain)
