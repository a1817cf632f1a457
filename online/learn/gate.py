"""May a challenger replace the champion? One look at held-out windows, every condition recorded.

Dimensions: I items, T hold-out buckets in time order, A anchor windows.

A challenger passes when the lower end of the interval of its gain (`online/learn/gain.py`) lies
above the margin. It is looked at once per challenger; whatever was tried on the way (factors
of interpolation) is chosen on other buckets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from freshet.online.learn.gain import MIN_BLOCKS, Gain, relative_gain
from freshet.stream.arrays import Bools, Floats

Report = dict[str, float | str | bool]
"""What a verdict rests on, flat, as model events and manifests carry it."""

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
        champion_anchor_A, challenger_anchor_A: Losses on windows from before the drift.
        champion_ms, challenger_ms: Time of one forecast of the same batch, measured by turns.
        finite: The challenger's parameters and forecasts are all finite.
        guards: The same at every other resolution that is served.
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
    guards: tuple[GuardTrial, ...] = ()


@dataclass(frozen=True, slots=True)
class GuardTrial:
    """What both versions did on the newest matured windows of another resolution.

    Attributes:
        resolution_ms: Length of a bucket, as forecasts name it.
        champion_IT, challenger_IT: As in a trial; without items where there are no windows.
        finite: The challenger's forecasts are all finite.
        seconds: Wall time that reading and forecasting took.
    """

    resolution_ms: int
    champion_IT: Floats
    challenger_IT: Floats
    finite: bool
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What was measured, what it was held against, whether it holds, and what that rests on."""

    name: str
    value: float
    threshold: float
    ok: bool
    facts: Report = field(default_factory=dict)


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
            flat |= {f"{condition.name}.{fact}": x for fact, x in condition.facts.items()}
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
    shape = len(trial.segments), trial.champion_IT.shape[1]
    assert trial.champion_IT.shape == trial.challenger_IT.shape == shape
    champion_IT, challenger_IT = _paired(trial.champion_IT, trial.challenger_IT)
    trial = replace(trial, champion_IT=champion_IT, challenger_IT=challenger_IT)
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
        *(_guard(guard, gain, confidence) for guard in trial.guards),
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


def _paired(champion_IT: Floats, challenger_IT: Floats) -> tuple[Floats, Floats]:
    """Both with NaN in the same cells: one counts where both losses are known."""
    both_IT = np.isfinite(champion_IT) & np.isfinite(challenger_IT)
    return np.where(both_IT, champion_IT, np.nan), np.where(both_IT, challenger_IT, np.nan)


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
    allowed = _allowed_loss(gain)
    loss = _relative_loss(trial.champion_anchor_A, trial.challenger_anchor_A)
    return Condition("anchor_loss", loss, allowed, loss <= allowed)


def _guard(guard: GuardTrial, gain: Gain, confidence: float) -> Condition:
    """What is lost at another served resolution: as little as may be forgotten, or chance.

    Where windows are too few to tell what is chance, the loss itself decides, at twice of that.
    """
    champion_IT, challenger_IT = _paired(guard.champion_IT, guard.challenger_IT)
    # The champion's gain over the challenger.
    harm = relative_gain(
        challenger_IT, champion_IT, resolution_ms=guard.resolution_ms, confidence=confidence
    )
    few = harm.num_blocks < MIN_BLOCKS or harm.num_items < MIN_ITEMS
    allowed = _allowed_loss(gain) * (FEW_WINDOWS_FACTOR if few else 1.0)
    loss = _relative_loss(champion_IT, challenger_IT)
    worse = loss > allowed and (few or harm.low > 0.0)
    facts: Report = {
        "few": few,
        "blocks": float(harm.num_blocks),
        "items": float(harm.num_items),
        "finite": guard.finite,
        "s": round(guard.seconds, 3),
    }
    ok = guard.finite and not worse
    return Condition(f"guard_{guard.resolution_ms}", loss, allowed, ok, facts)


def _allowed_loss(gain: Gain) -> float:
    """What may be lost elsewhere for a gain."""
    return max(ANCHOR_MARGIN, ANCHOR_SHARE * gain.low)


def _relative_loss(champion: Floats, challenger: Floats) -> float:
    """By how much of the champion's losses the challenger's are more; 0 where there are none."""
    before = float(np.nansum(champion))
    return float(np.nansum(challenger)) / before - 1.0 if before > 0 else 0.0


def _latency(trial: Trial) -> Condition:
    ratio = trial.challenger_ms / max(trial.champion_ms, 1e-6)
    return Condition("latency_ratio", ratio, LATENCY_RATIO, ratio <= LATENCY_RATIO)


def _plain(value: float | str | bool) -> float | str | bool:
    """JSON has no infinities; six digits are enough for a report."""
    if isinstance(value, bool | str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
