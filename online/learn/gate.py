"""May a challenger replace the champion? One look at held-out windows, every line of the verdict
recorded.

Dimensions: I items, T hold-out buckets in time order, A anchor windows.

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
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HOUR_MS = 3_600_000
BLOCK_HOURS = (24, 12, 8, 6, 4, 3, 2, 1)
MIN_BLOCKS = 6
MIN_ITEMS = 5
NOMINAL_COVERAGE = 0.8
COVERAGE_BAND = 0.05
OVERALL_MARGIN = 0.01
SEGMENT_MARGIN = 0.05
ANCHOR_MARGIN = 0.05
ANCHOR_SHARE = 0.25
LATENCY_RATIO = 2.0
MAX_SEGMENT_LINES = 20


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
class Line:
    """One condition: what was measured, what it was held against, and whether it holds."""

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
    """Promote or not, and every line that led there."""

    promote: bool
    lines: tuple[Line, ...]
    gain: Gain

    @property
    def reason(self) -> str:
        """The lines that failed, in words; empty for a promotion."""
        failed = [
            f"{x.name} {x.value:.4g} against {x.threshold:.4g}" for x in self.lines if not x.ok
        ]
        return "; ".join(failed)

    def summary(self) -> dict[str, float | str | bool]:
        """The verdict flat, as model events and manifests carry it."""
        flat: dict[str, float | str | bool] = {"verdict": "promote" if self.promote else "reject"}
        for line in self.lines:
            flat[line.name], flat[f"{line.name}.threshold"], flat[f"{line.name}.ok"] = (
                line.value,
                line.threshold,
                line.ok,
            )
        blocks = {
            "gain": self.gain.gain,
            "blocks": float(self.gain.num_blocks),
            "block_ms": float(self.gain.block_ms),
        }
        return {name: _plain(value) for name, value in (flat | blocks).items()}


def judge(trial: Trial, *, margin: float, confidence: float) -> Verdict:
    """The verdict on a challenger.

    Args:
        trial: Both versions on held-out windows.
        margin: Relative gain that must be exceeded.
        confidence: One-sided confidence of that, such as 0.95.
    """
    champion_IT, challenger_IT = _paired(trial)
    gain = _tested(trial, champion_IT, challenger_IT, confidence)
    overall = relative_gain(champion_IT, challenger_IT, trial.resolution_ms, confidence)
    lines = [
        Line("finite", float(trial.finite), 1.0, trial.finite),
        Line("blocks", gain.num_blocks, MIN_BLOCKS, gain.num_blocks >= MIN_BLOCKS),
        Line("items", gain.num_items, MIN_ITEMS, gain.num_items >= MIN_ITEMS),
        Line("gain_low", gain.low, margin, gain.low > margin),
        Line("overall_gain", overall.gain, -OVERALL_MARGIN, overall.gain >= -OVERALL_MARGIN),
        _coverage(trial),
        *_segments(trial, champion_IT, challenger_IT, confidence),
        _anchors(trial, gain),
        _latency(trial),
    ]
    return Verdict(all(line.ok for line in lines), tuple(lines), gain)


def _tested(trial: Trial, champion_IT: Floats, challenger_IT: Floats, confidence: float) -> Gain:
    """The gain that decides: of the affected segment that shows it most clearly, else of all items.

    A challenger need not help every kind of drift (a level shift is mostly seen in the context), so
    each affected segment is a test of its own, at a confidence that keeps the chance of any false
    one (Bonferroni).
    """
    masks = [
        np.array([segment == name for segment in trial.segments]) for name in sorted(trial.affected)
    ]
    masks = [mask for mask in masks if mask.sum() >= MIN_ITEMS] or [
        np.ones(len(trial.segments), bool)
    ]
    each = 1.0 - (1.0 - confidence) / len(masks)
    gains = [
        relative_gain(champion_IT[m], challenger_IT[m], trial.resolution_ms, each) for m in masks
    ]
    return max(gains, key=lambda gain: gain.low)


def relative_gain(
    champion_IT: Floats, challenger_IT: Floats, resolution_ms: int, confidence: float
) -> Gain:
    """One minus the ratio of summed losses, with the lower end of its one-sided interval.

    Cells that are NaN count for nothing. Without losses, blocks or items enough, `low` is minus
    infinity.

    >>> relative_gain(np.full((6, 6), 2.0), np.full((6, 6), 1.0), HOUR_MS, 0.95)
    Gain(gain=0.5, low=0.5, num_blocks=6, block_ms=3600000, num_items=6)
    """
    champion_IT, challenger_IT = np.nan_to_num(champion_IT), np.nan_to_num(challenger_IT)
    total = float(champion_IT.sum())
    length, num_blocks = _blocks(champion_IT.shape[1], resolution_ms)
    num_items = int((champion_IT.sum(1) > 0).sum())
    if total <= 0.0 or num_blocks < 2 or num_items < 2:
        return Gain(0.0, -math.inf, num_blocks, length * resolution_ms, num_items)
    gain = 1.0 - float(challenger_IT.sum()) / total
    influence_IT = (1.0 - gain) * champion_IT - challenger_IT
    # The newest buckets make full blocks; older ones that do not fill one join the first.
    bounds = [0, *(champion_IT.shape[1] - length * back for back in range(num_blocks - 1, 0, -1))]
    by_block = np.add.reduceat(influence_IT, bounds, axis=1)
    sums = [by_block.sum(0), by_block.sum(1)[champion_IT.sum(1) > 0], by_block.ravel()]
    over_time, over_items, over_cells = (_variance(part) for part in sums)
    variance = max(over_time, over_items, over_time + over_items - over_cells)
    weight_I = champion_IT.sum(1)
    freedom = max(1.0, min(num_blocks, total**2 / float((weight_I**2).sum())) - 1.0)
    reach = student_t(confidence, freedom) * math.sqrt(variance) / total
    return Gain(gain, gain - reach, num_blocks, length * resolution_ms, num_items)


def student_t(confidence: float, freedom: float) -> float:
    """The one-sided quantile of Student's t (Cornish-Fisher, Abramowitz & Stegun 26.7.5; error <
    0.002 from 5 on).

    >>> round(student_t(0.95, 5), 2), round(student_t(0.95, 1_000_000), 3)
    (2.01, 1.645)
    """
    z = NormalDist().inv_cdf(confidence)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _variance(sums: Floats) -> float:
    """Of a total, from sums over its parts, whose mean is zero."""
    n = len(sums)
    return n / (n - 1) * float((sums**2).sum())


def _blocks(num_buckets: int, resolution_ms: int) -> tuple[int, int]:
    """Buckets in a block and the number of blocks: days when there are enough, else the longest
    that gives enough.
    """
    for hours in BLOCK_HOURS:
        length = hours * HOUR_MS // resolution_ms
        if length >= 1 and num_buckets // length >= MIN_BLOCKS:
            return length, num_buckets // length
    length = max(1, num_buckets // MIN_BLOCKS)
    return length, num_buckets // length


def _paired(trial: Trial) -> tuple[Floats, Floats]:
    """Losses of both versions, NaN in the same cells: a cell counts where the champion's loss is
    known.
    """
    assert (
        trial.champion_IT.shape
        == trial.challenger_IT.shape
        == (len(trial.segments), trial.champion_IT.shape[1])
    )
    both_IT = np.isfinite(trial.champion_IT) & np.isfinite(trial.challenger_IT)
    return np.where(both_IT, trial.champion_IT, np.nan), np.where(
        both_IT, trial.challenger_IT, np.nan
    )


def _coverage(trial: Trial) -> Line:
    """How far the 80 % interval is from holding 80 %: at most the champion's distance and a
    band.
    """
    distance = abs(trial.challenger_coverage - NOMINAL_COVERAGE)
    allowed = abs(trial.champion_coverage - NOMINAL_COVERAGE) + COVERAGE_BAND
    return Line("coverage_distance", distance, allowed, distance <= allowed)


def _segments(
    trial: Trial, champion_IT: Floats, challenger_IT: Floats, confidence: float
) -> list[Line]:
    """No segment may get worse: by more than the margin, and more than chance explains."""
    lines = []
    for name in sorted(set(trial.segments)):
        rows = np.array([segment == name for segment in trial.segments])
        # Roles exchanged: the lower end of the champion's gain over the challenger.
        harm = relative_gain(
            challenger_IT[rows], champion_IT[rows], trial.resolution_ms, confidence
        )
        worse = harm.gain > SEGMENT_MARGIN and harm.low > 0.0
        lines.append(Line(f"segment_loss:{name}", harm.gain, SEGMENT_MARGIN, not worse))
    return sorted(lines, key=lambda line: (line.ok, -line.value))[:MAX_SEGMENT_LINES]


def _anchors(trial: Trial, gain: Gain) -> Line:
    """What was forgotten of the time before the drift: little, or at most a quarter of what is
    surely gained.
    """
    allowed = max(ANCHOR_MARGIN, ANCHOR_SHARE * gain.low)
    before, after = (
        float(np.nansum(trial.champion_anchor_A)),
        float(np.nansum(trial.challenger_anchor_A)),
    )
    loss = after / before - 1.0 if before > 0 else 0.0
    return Line("anchor_loss", loss, allowed, loss <= allowed)


def _latency(trial: Trial) -> Line:
    ratio = trial.challenger_ms / max(trial.champion_ms, 1e-6)
    return Line("latency_ratio", ratio, LATENCY_RATIO, ratio <= LATENCY_RATIO)


def _plain(value: float | str | bool) -> float | str | bool:
    """JSON has no infinities; six digits are enough for a report."""
    if isinstance(value, bool | str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else str(value)
