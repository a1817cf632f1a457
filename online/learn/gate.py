"""May a challenger replace the champion: yes, no, or not yet? Held-out windows, then days. Pure.

Dimensions: I items, T buckets in time order.

The first look is at the day that begins with the hold-out. Then both versions forecast each day
that becomes final, until the gain is sure, hopeless, or the last look of the plan is over. The test
is of each segment that the drift named and of all these together, or of the whole shop where none
was named: a challenger passes when the lower end of the gain of one of these rows lies above the
margin, at the level that the plan (`online/learn/sequential.py`) has for this look, divided by the
number of rows (Bonferroni). How much days differ is known from days before the trial
(`online/learn/paired.py`).

What was tried on the way (factors of interpolation) is chosen on other buckets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from freshet.online.learn.paired import Estimate
from freshet.online.learn.rows import Before, Rows
from freshet.online.learn.sequential import Plan
from freshet.online.learn.standing import MIN_ITEMS, Guarded, Standing, paired
from freshet.stream.arrays import Floats

Report = dict[str, float | str | bool]
"""What a verdict rests on, flat, as model events and manifests carry it."""
Decision = Literal["promote", "reject", "not yet"]

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
        champion_coverage, challenger_coverage: Share of cells within the 10 % to 90 % interval.
        finite: The challenger's forecasts are all finite.
        standing: What was measured when the challenger was new.
        before: Days before the trial; without them only its own days say how much days differ.
        unseen: Share of the shop's items that the trial has no windows of.
    """

    champion_IT: Floats
    challenger_IT: Floats
    segments: Sequence[str]
    affected: frozenset[str]
    resolution_ms: int
    champion_coverage: float
    challenger_coverage: float
    finite: bool
    standing: Standing
    before: Before | None = None
    unseen: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured, what it was held against, whether it holds, and what that rests on.

    Attributes:
        hopeless: It does not hold, and no later day will change that.
    """

    name: str
    value: float
    threshold: float
    ok: bool
    facts: Report = field(default_factory=dict)
    hopeless: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """The gain that decides: of which row, its interval, and what that rests on."""

    row: int
    name: str
    gain: float
    low: float
    high: float
    num_items: int
    days: float
    freedom: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promote, reject or wait, and every condition that led there."""

    decision: Decision
    conditions: tuple[Condition, ...]
    gain: Shown

    @property
    def promote(self) -> bool:
        """The challenger passes."""
        return self.decision == "promote"

    @property
    def reason(self) -> str:
        """The conditions that failed, in words; empty for a promotion."""
        failed = [condition for condition in self.conditions if not condition.ok]
        return "; ".join(f"{x.name} {x.value:.4g} against {x.threshold:.4g}" for x in failed)

    def report(self) -> Report:
        """The verdict flat."""
        gain = self.gain
        return {
            "verdict": self.decision,
            **flat_report(self.conditions),
            "gain": _plain(gain.gain),
            "gain_high": _plain(gain.high),
            "gain_of": gain.name,
            "days": gain.days,
        }


def flat_report(conditions: Iterable[Condition]) -> Report:
    """Conditions flat."""
    flat: Report = {}
    for condition in conditions:
        flat[condition.name] = condition.value
        flat[f"{condition.name}.threshold"] = condition.threshold
        flat[f"{condition.name}.ok"] = condition.ok
        flat |= {f"{condition.name}.{fact}": x for fact, x in condition.facts.items()}
    return {name: _plain(value) for name, value in flat.items()}


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
    gain = _deciding_gain(rows, found, days, plan.level(look))
    foreseen = _foreseen(rows, found, plan, look)
    spread = rows.without_best(gain.row, champion_IT, challenger_IT)
    finite = trial.finite and trial.standing.finite
    conditions = (
        Condition("finite", float(finite), 1.0, finite, hopeless=not finite),
        Condition("freedom", gain.freedom, MIN_FREEDOM, gain.freedom >= MIN_FREEDOM),
        Condition("items", gain.num_items, MIN_ITEMS, gain.num_items >= MIN_ITEMS),
        Condition("gain_low", gain.low, margin, gain.low > margin, hopeless=foreseen <= margin),
        Condition("gain_without_best_item", spread, 0.0, spread > 0.0 or gain.gain <= 0.0),
        _overall(found),
        _coverage(trial),
        *_segments(rows, found),
        *_standing(trial.standing, gain),
    )
    return Verdict(_decision(conditions, last=look == plan.last), conditions, gain)


def _decision(conditions: Sequence[Condition], *, last: bool) -> Decision:
    if all(condition.ok for condition in conditions):
        return "promote"
    return "reject" if last or any(condition.hopeless for condition in conditions) else "not yet"


def _deciding_gain(rows: Rows, found: Estimate, days: float, level: float) -> Shown:
    """The gain of the tested row that shows it most clearly."""
    low_R = found.low_R(level / len(rows.tested))
    row = max(rows.tested, key=lambda row: (low_R[row], found.gain_R[row]))
    return Shown(
        row=row,
        name=rows.names[row],
        gain=float(found.gain_R[row]),
        low=float(low_R[row]),
        high=float(found.high_R(FUTILE_LEVEL)[row]),
        num_items=int(rows.member_RI[row].sum()),
        days=days,
        freedom=float(found.freedom_R[row]),
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
    return Condition("overall_gain", overall, -OVERALL_MARGIN, overall >= -OVERALL_MARGIN)


def _coverage(trial: Trial) -> Condition:
    """How far the 80 % interval is from holding 80 %: at most the champion's distance and a band.

    Pinball loss alone can be gained with intervals that are too narrow to plan by.
    """
    distance = abs(trial.challenger_coverage - NOMINAL_COVERAGE)
    allowed = abs(trial.champion_coverage - NOMINAL_COVERAGE) + COVERAGE_BAND
    return Condition("coverage_distance", distance, allowed, distance <= allowed)


def _segments(rows: Rows, found: Estimate) -> list[Condition]:
    """No segment may look worse by more than the margin: all of them get one version."""
    surely_R = found.high_R(HARM_LEVEL) < 0.0
    conditions = []
    for row in np.flatnonzero(rows.segments_R):
        loss = -float(found.gain_R[row])
        ok = loss <= SEGMENT_MARGIN
        hopeless = not ok and bool(surely_R[row])
        name = f"segment_loss:{rows.names[row]}"
        conditions.append(Condition(name, loss, SEGMENT_MARGIN, ok, hopeless=hopeless))
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


def _plain(value: float | str | bool) -> float | str | bool:
    """JSON has no infinities; six digits are enough for a report."""
    if isinstance(value, bool | str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
