"""May a challenger replace the champion? One look at held-out windows, every condition recorded.

Dimensions: I items, T hold-out buckets in time order, A anchor windows, K blocks of buckets.

The test: pinball losses of both versions on the same cells, summed; the relative gain is one minus
their ratio. Losses of neighbouring hours move together, and so do all hours of one item, so the
standard error (of the linearised ratio) is clustered two ways, over blocks of time and over items
(Cameron, Gelbach & Miller 2011), and the degrees of freedom are those of the poorer way, items
counted by their weight (Kish). A challenger passes when the lower end of the one-sided t interval
lies above the margin. It is looked at once per challenger; whatever was tried on the way (factors
of interpolation) is chosen on other buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from freshet.stream.arrays import Bools, Floats
from freshet.stream.units import HOUR_MS

Report = dict[str, float | str | bool]
"""What a verdict rests on, flat, as model events and manifests carry it."""

# A block of time should hold a whole day, whose hours depend on one another; where the hold-out is
# short, the longest that gives blocks enough for a variance between them.
BLOCK_HOURS = (24, 12, 8, 6, 4, 3, 2, 1)
MIN_BLOCKS = 6
MIN_ITEMS = 5
# Of the interval between the 10 % and the 90 % quantile.
NOMINAL_COVERAGE = 0.8
COVERAGE_BAND = 0.05
# The deciding gain may be one segment's. All items together may not pay more than this for it.
OVERALL_MARGIN = 0.01
SEGMENT_MARGIN = 0.05
ANCHOR_MARGIN = 0.05
# Of what is surely gained, so much may be forgotten.
ANCHOR_SHARE = 0.25
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
        champion_anchor_A, challenger_anchor_A: Losses on windows from before the drift.
        champion_ms, challenger_ms: Time of one forecast of the same batch, measured by turns.
        finite: The challenger's parameters and forecasts are all finite.
    """

    champion_IT: Floats
    challenger_IT: Floats
    segments: Sequence[str]
    affected: frozenset[str]
    resolution_ms: int
    champion_coverage: float
    challenger_coverage: float
    champion_anchor_A: Floats
    challenger_anchor_A: Floats
    champion_ms: float
    challenger_ms: float
    finite: bool


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured, what it was held against, and whether it holds."""

    name: str
    value: float
    threshold: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Gain:
    """A relative gain, the lower end of its one-sided interval, and what the interval rests on."""

    gain: float
    low: float
    num_blocks: int
    block_ms: int
    num_items: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Promote or not, and every condition that led there."""

    promote: bool
    conditions: tuple[Condition, ...]
    gain: Gain

    @property
    def reason(self) -> str:
        """The conditions that failed, in words; empty for a promotion."""
        failed = [condition for condition in self.conditions if not condition.ok]
        return "; ".join(f"{x.name} {x.value:.4g} against {x.threshold:.4g}" for x in failed)

    def report(self) -> Report:
        """The verdict flat."""
        flat: Report = {"verdict": "promote" if self.promote else "reject"}
        for condition in self.conditions:
            flat[condition.name] = condition.value
            flat[f"{condition.name}.threshold"] = condition.threshold
            flat[f"{condition.name}.ok"] = condition.ok
        flat["gain"] = self.gain.gain
        flat["blocks"] = float(self.gain.num_blocks)
        flat["block_ms"] = float(self.gain.block_ms)
        return {name: _plain(value) for name, value in flat.items()}


def judge(trial: Trial, *, margin: float, confidence: float) -> Verdict:
    """The verdict on a challenger.

    Args:
        trial: Both versions on held-out windows.
        margin: Relative gain that must be exceeded.
        confidence: One-sided confidence of that, such as 0.95.
    """
    trial = _paired(trial)
    gain = _deciding_gain(trial, confidence)
    everywhere = np.ones(len(trial.segments), bool)
    overall = _gain_of(trial, everywhere, confidence)
    conditions = (
        Condition("finite", float(trial.finite), 1.0, trial.finite),
        Condition("blocks", gain.num_blocks, MIN_BLOCKS, gain.num_blocks >= MIN_BLOCKS),
        Condition("items", gain.num_items, MIN_ITEMS, gain.num_items >= MIN_ITEMS),
        Condition("gain_low", gain.low, margin, gain.low > margin),
        Condition("overall_gain", overall.gain, -OVERALL_MARGIN, overall.gain >= -OVERALL_MARGIN),
        _coverage(trial),
        *_segments(trial, confidence),
        _anchors(trial, gain),
        _latency(trial),
    )
    return Verdict(all(condition.ok for condition in conditions), conditions, gain)


def _deciding_gain(trial: Trial, confidence: float) -> Gain:
    """The gain of the affected segment that shows it most clearly, else of all items.

    A challenger need not help every kind of drift (a level shift is mostly seen in the context), so
    each affected segment is a test of its own, at a confidence that keeps the chance of any false
    one (Bonferroni).
    """
    masks = [_in_segment(trial, name) for name in sorted(trial.affected)]
    masks = [mask_I for mask_I in masks if mask_I.sum() >= MIN_ITEMS]
    # A pooled test would hide a local gain: items that did not change dilute it.
    masks = masks or [np.ones(len(trial.segments), bool)]
    each = 1.0 - (1.0 - confidence) / len(masks)
    gains = [_gain_of(trial, mask_I, each) for mask_I in masks]
    return max(gains, key=lambda gain: gain.low)


def _gain_of(trial: Trial, mask_I: Bools, confidence: float) -> Gain:
    return relative_gain(
        trial.champion_IT[mask_I],
        trial.challenger_IT[mask_I],
        resolution_ms=trial.resolution_ms,
        confidence=confidence,
    )


def _in_segment(trial: Trial, name: str) -> Bools:
    return np.array([segment == name for segment in trial.segments])


def relative_gain(
    champion_IT: Floats, challenger_IT: Floats, *, resolution_ms: int, confidence: float
) -> Gain:
    """One minus the ratio of summed losses, with the lower end of its one-sided interval.

    Cells that are NaN count for nothing. Without losses, blocks or items enough, `low` is minus
    infinity.

    >>> relative_gain(np.full((6, 6), 2.0), np.full((6, 6), 1.0), resolution_ms=HOUR_MS,
    ...     confidence=0.95)
    Gain(gain=0.5, low=0.5, num_blocks=6, block_ms=3600000, num_items=6)
    """
    champion_IT, challenger_IT = np.nan_to_num(champion_IT), np.nan_to_num(challenger_IT)
    weight_I = champion_IT.sum(1)
    total = float(champion_IT.sum())
    block_buckets, num_blocks = _blocks(champion_IT.shape[1], resolution_ms)
    block_ms = block_buckets * resolution_ms
    num_items = int((weight_I > 0).sum())
    if num_blocks < 2 or num_items < 2:
        return Gain(0.0, -math.inf, num_blocks, block_ms, num_items)
    gain = 1.0 - float(challenger_IT.sum()) / total

    # A ratio of sums is not a sum; to first order its error is the sum of these over all cells,
    # divided by the champion's total (the delta method). They sum to zero by construction.
    influence_IT = (1.0 - gain) * champion_IT - challenger_IT
    influence_IK = _summed_by_block(influence_IT, block_buckets, num_blocks)
    over_time = _variance(influence_IK.sum(0))
    over_items = _variance(influence_IK.sum(1)[weight_I > 0])
    over_cells = _variance(influence_IK.ravel())
    # Both ways together count each cell's own noise twice, hence the difference. It may come out
    # below either alone (even below zero) by chance, and is not believed then.
    variance = max(over_time, over_items, over_time + over_items - over_cells)

    # Kish: so many items of equal weight would be as sure as these are; one that sells most of all
    # counts as one, however many others there are.
    effective_items = total**2 / float((weight_I**2).sum())
    freedom = max(1.0, min(num_blocks, effective_items) - 1.0)
    # Student's t: two blocks, or one item that sells nearly all, leave a single degree of freedom.
    reach = float(stdtrit(freedom, confidence)) * math.sqrt(variance) / total
    return Gain(gain, gain - reach, num_blocks, block_ms, num_items)


def _variance(sums: Floats) -> float:
    """Of a total, from sums over its parts, whose mean is zero."""
    n = len(sums)
    return n / (n - 1) * float((sums**2).sum())


def _blocks(num_buckets: int, resolution_ms: int) -> tuple[int, int]:
    """Buckets in a block, and blocks: days when there are enough, else the longest that gives so.

    >>> _blocks(150, HOUR_MS), _blocks(12, HOUR_MS)
    ((24, 6), (2, 6))
    """
    for hours in BLOCK_HOURS:
        length = hours * HOUR_MS // resolution_ms
        if length >= 1 and num_buckets // length >= MIN_BLOCKS:
            return length, num_buckets // length
    length = max(1, num_buckets // MIN_BLOCKS)
    return length, num_buckets // length


def _summed_by_block(values_IT: Floats, block_buckets: int, num_blocks: int) -> Floats:
    """Sums over blocks of buckets, [I, K].

    The newest buckets make full blocks; older ones that do not fill one join the first.
    """
    num_buckets = values_IT.shape[1]
    starts = [num_buckets - block_buckets * back for back in range(num_blocks - 1, 0, -1)]
    return np.add.reduceat(values_IT, [0, *starts], axis=1)


def _paired(trial: Trial) -> Trial:
    """The trial with NaN in the same cells of both: one counts where both losses are known."""
    shape = len(trial.segments), trial.champion_IT.shape[1]
    assert trial.champion_IT.shape == trial.challenger_IT.shape == shape
    both_IT = np.isfinite(trial.champion_IT) & np.isfinite(trial.challenger_IT)
    return replace(
        trial,
        champion_IT=np.where(both_IT, trial.champion_IT, np.nan),
        challenger_IT=np.where(both_IT, trial.challenger_IT, np.nan),
    )


def _coverage(trial: Trial) -> Condition:
    """How far the 80 % interval is from holding 80 %: at most the champion's distance and a band.

    Pinball loss alone can be gained with intervals that are too narrow to plan by.
    """
    distance = abs(trial.challenger_coverage - NOMINAL_COVERAGE)
    allowed = abs(trial.champion_coverage - NOMINAL_COVERAGE) + COVERAGE_BAND
    return Condition("coverage_distance", distance, allowed, distance <= allowed)


def _segments(trial: Trial, confidence: float) -> list[Condition]:
    """No segment may get worse: by more than the margin, and more than chance explains."""
    roles_exchanged = replace(
        trial, champion_IT=trial.challenger_IT, challenger_IT=trial.champion_IT
    )
    conditions = []
    for name in sorted(set(trial.segments)):
        # The champion's gain over the challenger.
        harm = _gain_of(roles_exchanged, _in_segment(trial, name), confidence)
        worse = harm.gain > SEGMENT_MARGIN and harm.low > 0.0
        conditions.append(Condition(f"segment_loss:{name}", harm.gain, SEGMENT_MARGIN, not worse))
    conditions.sort(key=lambda condition: (condition.ok, -condition.value))
    return conditions[:MAX_SEGMENT_CONDITIONS]


def _anchors(trial: Trial, gain: Gain) -> Condition:
    """What was forgotten from before the drift: little, or a quarter of what is surely gained.

    Where the shop has really changed, the past is worth less than the present; where the gain is
    small, what was known must stay.
    """
    allowed = max(ANCHOR_MARGIN, ANCHOR_SHARE * gain.low)
    champion = float(np.nansum(trial.champion_anchor_A))
    challenger = float(np.nansum(trial.challenger_anchor_A))
    loss = challenger / champion - 1.0 if champion > 0 else 0.0
    return Condition("anchor_loss", loss, allowed, loss <= allowed)


def _latency(trial: Trial) -> Condition:
    ratio = trial.challenger_ms / max(trial.champion_ms, 1e-6)
    return Condition("latency_ratio", ratio, LATENCY_RATIO, ratio <= LATENCY_RATIO)


def _plain(value: float | str | bool) -> float | str | bool:
    """JSON has no infinities; six digits are enough for a report."""
    if isinstance(value, bool | str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
