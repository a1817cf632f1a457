"""Decides, for each segment in alarm, how it is served: by what would have been best lately.

Every candidate is forecast as of the newest cutoffs since the onset, for a sample of the segment's
items, and held against the buckets that are final. A context of a past cutoff is the one of then,
so an owner that begins anew finds what the one before it found; only which adjustment serves it
reads from the newest decision (`resume`).

Dimensions: X sampled items, H steps, Q quantile levels, B buckets since the onset, P phases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import xxhash
from torch import Tensor

from freshet.model.expectation import short_season
from freshet.model.forecaster import BatchForecaster
from freshet.model.quantiles.marginal import MARGINAL_POINTS, quantile_weights
from freshet.online.adjust.beginning import Beginning, by_phase, profile_moved, shifted_moved
from freshet.online.adjust.choice import CANDIDATES, NEWEST_BUCKETS, Candidate, Trial, choose
from freshet.online.adjust.decision import ALL
from freshet.online.drift.score import mean_pinball
from freshet.online.forecast.context import Contexts
from freshet.online.weights.loaded import LoadedWeights, Serving
from freshet.stream.arrays import Floats, Ints, Singles
from freshet.stream.schemas import AdjustmentDecision, DriftAlert, SegmentAdjustment
from freshet.stream.telemetry import get_logger

SAMPLE = 64  # items of a segment that are tried, and forecast without adjustments besides
MAX_SEGMENTS = 16  # served differently at a time, those of the oldest alarms first
MAX_TOLD = 1_024  # segments of one decision
MAX_STEPS = 24  # ahead that a candidate is tried by
LAST_FINAL = 1  # buckets before a cutoff whose orders may still come

log = get_logger(__name__)


@dataclass(slots=True)
class _Tried:
    """A segment in alarm: what was expected of it at the onset, and what was tried since.

    Attributes:
        rows: The sample.
        begins: The bucket of the onset.
        expected_H: Units of the sample in the steps from the onset on, as forecast then.
        forecasts: By cutoff bucket, of each candidate: [X, H, Q].
    """

    rows: tuple[int, ...]
    begins: int
    version: str
    expected_H: Floats
    forecasts: dict[int, dict[Candidate, Singles]] = field(default_factory=dict)

    def expected(self, steps: int, period: int) -> Floats:
        """Units that were expected of the steps from the onset on, at the onset."""
        return self.expected_H[_places(steps, len(self.expected_H), period)]


class Adjuster:
    """The adjustments of one resolution.

    Args:
        segments: The segment of each of some items.
    """

    def __init__(self, segments: Callable[[Sequence[str]], list[str]]) -> None:
        self._segments = segments
        self._onsets: dict[str, dict[str, int]] = {}
        self._tried: dict[str, _Tried] = {}
        self._serving: dict[str, Candidate] = {}

    # What is known --------------------------------------------------------------------------------

    def take(self, alert: DriftAlert) -> None:
        """An alarm begins or ends. One of a feed that stopped is none of ours."""
        of_segment = self._onsets.setdefault(alert.segment, {})
        if alert.state == "drift" and alert.kind != "data":
            of_segment[alert.kind] = alert.onset_ms
        else:
            of_segment.pop(alert.kind, None)
        if not of_segment:
            del self._onsets[alert.segment]

    def resume(self, decision: AdjustmentDecision) -> None:
        """How segments were served by the newest decision."""
        self._serving = {one.segment: one.how for one in decision.segments}

    @property
    def idle(self) -> bool:
        """Whether no alarm holds, and nothing is served differently."""
        return not self._onsets and not self._serving

    def items(self, item_ids: Sequence[str]) -> set[str]:
        """Those of a shop's items that are to be tried."""
        groups = self._groups(item_ids).values()
        return {item_ids[row] for rows in groups for row in sampled(rows, item_ids)}

    def _key(self, segment: str) -> str:
        """The segment by whose alarm one is served: the whole shop's for those without one."""
        return ALL if ALL in self._onsets and segment not in self._onsets else segment

    # Decide ---------------------------------------------------------------------------------------

    def decide(
        self,
        contexts: Contexts,
        serving: Serving,
        cutoff_ms: int,
        alive: Callable[[], None] = lambda: None,
        newest_ms: Callable[[], int] = lambda: 0,
    ) -> AdjustmentDecision:
        """How each segment in alarm is served from the newest cutoff on.

        Args:
            contexts: Of the resolution, and of the items that are tried; they cover the cutoff.
            serving: Who serves whom: a segment that another version serves is tried anew. The
                alarm of the whole shop is answered by what the default would have said.
            cutoff_ms: As of which is tried.
            alive: Called between two forecasts; whatever it raises ends the decision.
            newest_ms: The cutoff that has come meanwhile, which the contexts cover then.
        """
        groups = self._groups(contexts.item_ids)
        self._tried = {segment: one for segment, one in self._tried.items() if segment in groups}
        trials_of: dict[str, list[Trial]] = {}
        for segment, rows in groups.items():
            weights = serving.of(segment)
            tried = self._begun(contexts, weights, segment, rows)
            now = contexts.grid.bucket(cutoff_ms)
            trials_of[segment] = self._trials(contexts, weights.forecaster, tried, now, alive)
        # What was sold while it was tried is known now.
        cutoff_ms = max(newest_ms(), cutoff_ms)
        found = [self._chosen(contexts, *each, cutoff_ms) for each in trials_of.items()]
        self._tell(found)
        # Whoever is in alarm and not tried is served as it is, not by the alarm of the whole shop.
        untried = sorted(set(self._onsets) - set(groups))[: MAX_TOLD - len(found)]
        found += [SegmentAdjustment(segment=segment, how="as_it_is") for segment in untried]
        self._serving = {one.segment: one.how for one in found}
        return AdjustmentDecision(
            resolution_ms=contexts.reader.resolution_ms,
            as_of_ms=cutoff_ms,
            weights_version=serving.default.version,
            segments=found,
        )

    def _chosen(
        self, contexts: Contexts, segment: str, trials: Sequence[Trial], cutoff_ms: int
    ) -> SegmentAdjustment:
        tried = self._tried[segment]
        name = choose(trials, self._serving.get(segment, "as_it_is"))
        beginning = _beginnings(contexts, tried, contexts.grid.bucket(cutoff_ms))[name]
        sample = [contexts.item_ids[row] for row in tried.rows]
        return _told(segment, name, beginning, sample, trials)

    def _tell(self, found: Sequence[SegmentAdjustment]) -> None:
        for one in found:
            before = self._serving.get(one.segment, "as_it_is")
            if one.how != before:
                gain = _gain(one)
                log.info(
                    "served_differently",
                    segment=one.segment,
                    before=before,
                    now=one.how,
                    since_ms=one.begins_at_ms,
                    buckets=one.buckets,
                    gain=gain,
                )
        for segment in set(self._serving) - {one.segment for one in found}:
            if self._serving[segment] != "as_it_is":
                log.info("served_as_before", segment=segment, reason="the alarm is over")

    def _groups(self, item_ids: Sequence[str]) -> dict[str, list[int]]:
        """Rows of each segment in alarm, of as many as are served differently at a time."""
        if not self._onsets:
            return {}
        oldest = sorted(self._onsets, key=lambda segment: (self._onset_ms(segment), segment))
        groups: dict[str, list[int]] = {segment: [] for segment in oldest[:MAX_SEGMENTS]}
        for row, segment in enumerate(self._segments(item_ids)):
            key = self._key(segment)
            if key in groups:
                groups[key].append(row)
        return {segment: rows for segment, rows in groups.items() if rows}

    def _onset_ms(self, segment: str) -> int:
        return min(self._onsets[segment].values())

    def _begun(
        self,
        contexts: Contexts,
        weights: LoadedWeights,
        segment: str,
        rows: Sequence[int],
    ) -> _Tried:
        """What was tried of a segment; anew where its onset, its items or the weights changed."""
        begins = contexts.grid.bucket(self._onset_ms(segment))
        sample = sampled(rows, contexts.item_ids)
        known = self._tried.get(segment)
        if known is not None and (known.rows, known.begins, known.version) == (
            sample,
            begins,
            weights.version,
        ):
            return known
        onset_ms = contexts.grid.start_ms(begins)
        quantiles_XHQ = weights.forecaster.forecast(contexts.batch(sample, onset_ms))
        expected_H = _expected(quantiles_XHQ, weights.forecaster.quantile_levels)
        self._tried[segment] = _Tried(sample, begins, weights.version, expected_H)
        return self._tried[segment]

    def _trials(
        self,
        contexts: Contexts,
        forecaster: BatchForecaster,
        tried: _Tried,
        now: int,
        alive: Callable[[], None],
    ) -> list[Trial]:
        """What each candidate would have lost on the newest final buckets."""
        final = now - LAST_FINAL
        first = max(tried.begins + 1, final - NEWEST_BUCKETS)
        if final <= first:
            return []
        for cutoff in range(first, final):
            if cutoff not in tried.forecasts:
                tried.forecasts[cutoff] = _forecasts(contexts, forecaster, tried, cutoff)
                alive()
        tried.forecasts = {at: one for at, one in tried.forecasts.items() if at >= first}
        final_ms = contexts.grid.start_ms(final)
        units_XB = contexts.target(tried.rows, final_ms, final - first)
        levels_Q = np.array(forecaster.quantile_levels)
        return [
            Trial(
                contexts.grid.start_ms(bucket),
                _lost(tried, units_XB[:, bucket - first], bucket, first, levels_Q),
            )
            for bucket in range(first, final)
        ]


def sampled(rows: Sequence[int], item_ids: Sequence[str]) -> tuple[int, ...]:
    """At most SAMPLE rows, the same ones whoever looks: those of the least hashes."""
    by_hash = sorted(rows, key=lambda row: xxhash.xxh3_64_intdigest(item_ids[row].encode()))
    return tuple(sorted(by_hash[:SAMPLE]))


def _expected(quantiles_XHQ: Tensor, quantile_levels: Sequence[float]) -> Floats:
    """Units that all rows together are expected to sell at each step: [H]."""
    probability_N = (torch.arange(MARGINAL_POINTS) + 0.5) / MARGINAL_POINTS
    weights_QN = quantile_weights(quantile_levels, probability_N)
    values_XHN = quantiles_XHQ.float().cpu() @ weights_QN
    return np.asarray(values_XHN.mean(-1).double().sum(0).numpy())


def _forecasts(
    contexts: Contexts, forecaster: BatchForecaster, tried: _Tried, cutoff: int
) -> dict[Candidate, Singles]:
    """What each candidate would have said at a cutoff, by what was known then."""
    beginnings = _beginnings(contexts, tried, cutoff)
    X = len(tried.rows)
    of_rows = [beginnings[name] for name in CANDIDATES for _ in range(X)]
    rows = list(tried.rows) * len(CANDIDATES)
    batch = contexts.batch(rows, contexts.grid.start_ms(cutoff), of_rows)
    quantiles_NHQ = forecaster.forecast(batch)[:, :MAX_STEPS].float().cpu().numpy()
    parts = np.split(quantiles_NHQ, len(CANDIDATES))
    return dict(zip(CANDIDATES, parts, strict=True))


def _beginnings(
    contexts: Contexts, tried: _Tried, cutoff: int
) -> Mapping[Candidate, Beginning | None]:
    """What each candidate takes the past for at a cutoff, by what was sold since the onset."""
    onset_ms = contexts.grid.start_ms(tried.begins)
    bucket_B = np.arange(tried.begins, cutoff)
    units_XB = contexts.target(tried.rows, contexts.grid.start_ms(cutoff), len(bucket_B))
    period = short_season(contexts.reader.resolution_ms)
    # What nobody could buy is not expected either.
    buyable_B = np.isfinite(units_XB).mean(0)
    sold_P = by_phase(bucket_B, np.nansum(units_XB, 0), period)
    came_P = by_phase(bucket_B, buyable_B, period)
    expected_P = by_phase(bucket_B, buyable_B * tried.expected(len(bucket_B), period), period)
    cycle_P = tried.begins + np.arange(period)
    usual_P = by_phase(cycle_P, tried.expected(period, period), period)
    return {
        "as_it_is": None,
        "hidden": Beginning(onset_ms),
        "profile": Beginning(onset_ms, profile_moved(sold_P, expected_P)),
        "shifted": Beginning(onset_ms, shifted_moved(sold_P, came_P, usual_P)),
    }


def _places(steps: int, horizon: int, period: int) -> Ints:
    """Which step of a forecast says what is expected of each step: beyond it, its last cycle.

    >>> _places(6, 4, 2).tolist()
    [0, 1, 2, 3, 2, 3]
    """
    step_B = np.arange(steps)
    cycle = min(period, horizon)
    return np.where(step_B < horizon, step_B, horizon - cycle + (step_B - horizon) % cycle)


def _lost(
    tried: _Tried, units_X: Floats, bucket: int, first: int, levels_Q: Floats
) -> dict[Candidate, float]:
    """What each candidate lost on one bucket, over all cutoffs that were tried before it."""
    seen_X = np.isfinite(units_X)
    losses: dict[Candidate, float] = {}
    for name in CANDIDATES:
        loss = 0.0
        for cutoff in range(max(first, bucket - MAX_STEPS + 1), bucket + 1):
            quantiles_XHQ = tried.forecasts[cutoff][name]
            if bucket - cutoff < quantiles_XHQ.shape[1]:
                quantiles_XQ = quantiles_XHQ[seen_X, bucket - cutoff].astype(np.float64)
                loss += float(mean_pinball(units_X[seen_X], quantiles_XQ, levels_Q).sum())
        losses[name] = loss
    return losses


def _told(
    segment: str,
    name: Candidate,
    beginning: Beginning | None,
    sample: list[str],
    trials: Sequence[Trial],
) -> SegmentAdjustment:
    losses: dict[str, float] = {
        candidate: round(sum(trial.losses[candidate] for trial in trials), 3)
        for candidate in CANDIDATES
    }
    return SegmentAdjustment(
        segment=segment,
        how=name,
        begins_at_ms=None if beginning is None else beginning.begins_ms,
        moved=[] if beginning is None else list(beginning.moved_P),
        sample=sample,
        buckets=len(trials),
        losses=losses if trials else {},
    )


def _gain(one: SegmentAdjustment) -> float | None:
    """The share of the loss that it would have saved on the trials."""
    as_it_is = one.losses.get("as_it_is")
    return round(1.0 - one.losses[one.how] / as_it_is, 3) if as_it_is else None
