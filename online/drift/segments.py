"""All segments of a shop at once: a bucket's pooled numbers in, alarms that begin or end out.

Dimensions: S segments in a bucket, N segments known, T buckets that are remembered.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from freshet.online.drift.alarms import Alarm, Held, alarm_id
from freshet.online.drift.kinds import Evidence, chances
from freshet.online.drift.plain import State, put_back, state_of, widen
from freshet.online.drift.pooled import Pooled
from freshet.online.drift.scan import LENGTHS, LEVEL_VARIANCE, SPREAD_VARIANCE
from freshet.online.drift.streams import Streams
from freshet.online.drift.words import SILENT_BUCKETS
from freshet.stream.arrays import Bools, Floats, Ints
from freshet.stream.config import DriftSettings
from freshet.stream.schemas import DriftKind
from freshet.stream.units import HOUR_MS

# Two buckets in which nothing sold though 9 units were forecast: Poisson sales do so in 1 of
# 8,000 cases, a feed that has stopped always.
SILENT_UNITS = 9.0
# A level wanders by about this share of a doubling from hour to hour, so an hour with many sales
# tells less of it than its counts alone would.
HOURLY_WANDER = 0.12
LEAST_WEIGHT = 0.1
# Rise scores of a bucket add up to something like a gamma variable of this shape: that of made-up
# shops, of real and of simulated ones passes heights no more often than a level does then.
RISE_SHAPE = 16.0
# Buckets that are remembered: a day tells a level from a moved profile.
REMEMBERED = 30
# The profile of the day is that of the last two weeks.
PROFILE_MEMORY = 14.0
# An alarm of another kind begins within the first when it has become so likely.
SURE = 0.9
JUDGED_FOR = 24  # buckets

Times = tuple[int, int]
"""When a bucket begins, and what the shop's clock shows then, in milliseconds since 1970."""

Change = tuple[str, Alarm, bool]
"""Whose alarm, which, and whether it begins or ends."""


class Segments:
    """Level and spread of segments, and the alarms that hold.

    Args:
        settings: Bounds on what is an alarm.
        names: Segments that are known from the beginning; others are added as they come.
        noisier: How much more than of a segment is expected of their variance at first.
    """

    def __init__(
        self, settings: DriftSettings, names: Sequence[str] = (), noisier: float = 1.0
    ) -> None:
        self.settings = settings
        self.noisier = noisier
        self.names = list(names)
        self.held: dict[int, Held] = {}
        self._rows = {name: row for row, name in enumerate(names)}
        self._arrays = _Arrays(len(names), noisier)

    @property
    def active(self) -> dict[str, dict[DriftKind, Alarm]]:
        """The alarms that hold, by segment."""
        return {self.names[row]: held.alarms for row, held in self.held.items() if held.alarms}

    def tensions(self) -> dict[str, float]:
        """How near each segment is to an alarm: 0 calm to 1 in alarm."""
        tension_N = np.minimum(self._arrays.tension_N, 1.0)
        tension_N[[row for row, held in self.held.items() if held.alarms]] = 1.0
        return dict(zip(self.names, tension_N.tolist(), strict=True))

    def usual_level(self, shown_ms: int) -> dict[str, float]:
        """What each segment's pooled level usually is when the shop's clock shows this."""
        expected_N = self._arrays.level.usual.expected(shown_ms)
        return dict(zip(self.names, expected_N.tolist(), strict=True))

    def update(
        self, times: Times, names: Sequence[str], pooled: Pooled, height: float
    ) -> list[Change]:
        """Take one bucket of some segments; returns the alarms that begin or end with it."""
        seen = self._arrays
        rows_S = self._places(names)
        calm_N = np.ones(len(self.names), bool)
        calm_N[list(self.held)] = False
        objecting_N = seen.take(times, rows_S, pooled, height, calm_N, self.settings)
        changes = []
        concerned = set(np.flatnonzero(objecting_N).tolist()) | set(self.held)
        heard = set(rows_S[pooled.heard_S].tolist()) if concerned else set()
        for row in sorted(concerned & heard):
            changes += self._concern(row, objects=bool(objecting_N[row]))
        return changes

    def adopt(self, segment: str, alarm: Alarm) -> None:
        """An alarm from before a restart; it ends when its segment is quiet."""
        (row,) = self._places([segment])
        self.held.setdefault(int(row), Held()).begin(alarm)

    def loosen(self, names: Collection[str]) -> None:
        """Other weights serve some segments: biases stay roughly, alarms hold until those were
        quiet.
        """
        rows = np.array([self._rows[name] for name in names if name in self._rows], np.int64)
        self._arrays.loosen(rows)
        for row in rows.tolist():
            if row in self.held:
                self.held[row].quiet_buckets = self.held[row].drifting_buckets = 0

    def state(self) -> State:
        """All of it as a plain value."""
        return {"names": list(self.names), "held": _copied(self.held)} | state_of(self._arrays)

    def restore(self, state: State) -> None:
        """Go on from a state."""
        state = dict(state)
        self.names, self.held = list(state.pop("names")), _copied(state.pop("held"))
        self._rows = {name: row for row, name in enumerate(self.names)}
        self._arrays = _Arrays(len(self.names), self.noisier)
        put_back(self._arrays, state)

    def _places(self, names: Sequence[str]) -> Ints:
        """The row of each segment; unknown ones get one."""
        if list(names) == self.names:
            return np.arange(len(self.names))
        new = [name for name in names if name not in self._rows]
        if new:
            self._arrays.widen(len(new))
            for name in new:
                self._rows[name] = len(self.names)
                self.names.append(name)
        return np.array([self._rows[name] for name in names], np.int64)

    def _concern(self, row: int, *, objects: bool) -> list[Change]:
        """One segment that objects, or in which an alarm holds."""
        held = self.held.setdefault(row, Held())
        changes: list[Change] = []
        young = 0 < held.drifting_buckets < JUDGED_FOR and not held.quiet_buckets
        if objects or young:
            alarm = self._explained(row, held, objects=objects)
            if alarm is not None and held.begin(alarm):
                changes.append((self.names[row], alarm, True))
        tension = float(self._arrays.tension_N[row])
        clear_buckets = self.settings.clear_buckets
        if objects:
            self._arrays.restart(row)
        if not held.over(tension, objects=objects, clear_buckets=clear_buckets):
            return changes
        changes += [(self.names[row], alarm, False) for alarm in held.alarms.values()]
        if held.tired:
            self._arrays.forget(row)
        del self.held[row]
        return changes

    def _explained(self, row: int, held: Held, *, objects: bool) -> Alarm | None:
        """The alarm that tells best what is seen; None while a held one may still be that."""
        seen = self._arrays
        onset_ms = min((alarm.onset_ms for alarm in held.alarms.values()), default=None)
        since = seen.buckets_since(row, onset_ms)
        if seen.silent(row):
            kind: DriftKind = "data"
        elif not since:
            return None
        else:
            found = chances(seen.evidence(row, since))
            kind = max(found, key=lambda one: found[one])
            if held.alarms and (found[kind] < SURE or "data" in held.alarms):
                return None
        if onset_ms is None:
            onset_ms = int(seen.bucket_ms_T[seen.last(max(since, 1))[0]])
        size, share = seen.size(row, kind, since)
        detector = "silence" if kind == "data" else "scan"
        name = self.names[row]
        return Alarm(alarm_id(name, onset_ms, kind), kind, onset_ms, size, detector, share)


class _Arrays:
    """What is known of N segments; a plain value."""

    def __init__(self, num_segments: int, noisier: float) -> None:
        self.level = Streams(num_segments, noisier * LEVEL_VARIANCE)
        self.rise = Streams(num_segments, noisier * LEVEL_VARIANCE, RISE_SHAPE)
        self.spread = Streams(num_segments, noisier * SPREAD_VARIANCE)
        self.seen_N = np.zeros(num_segments, np.int64)
        self.tension_N = np.zeros(num_segments)
        # Of the length whose score is the highest.
        self.length_N = np.ones(num_segments, np.int64)
        self.newest = -1
        self.bucket_ms_T = np.full(REMEMBERED, -1, np.int64)
        self.hour_T = np.zeros(REMEMBERED, np.int64)
        self.odd_level_TN = np.zeros((REMEMBERED, num_segments))
        self.weight_TN = np.zeros((REMEMBERED, num_segments))
        self.odd_spread_TN = np.zeros((REMEMBERED, num_segments))
        self.actual_TN = np.zeros((REMEMBERED, num_segments))
        self.expected_TN = np.zeros((REMEMBERED, num_segments))
        self.profile_HN = np.zeros((24, num_segments))

    def take(
        self,
        times: Times,
        rows_S: Ints,
        pooled: Pooled,
        height: float,
        calm_N: Bools,
        settings: DriftSettings,
    ) -> Bools:
        """Add a bucket; returns which segments are past the height."""
        bucket_ms, shown_ms = times
        num = len(self.seen_N)

        def spread_out(value_S: Floats) -> Floats:
            value_N = np.zeros(num)
            value_N[rows_S] = value_S
            return value_N

        heard_N = np.zeros(num, bool)
        heard_N[rows_S] = pooled.heard_S
        calmer_N = spread_out(1.0 / np.sqrt(1.0 + (HOURLY_WANDER * pooled.leverage_S) ** 2))
        level_N = spread_out(pooled.level_S) * calmer_N
        weight_N = np.maximum(spread_out(pooled.leverage_S) * calmer_N, LEAST_WEIGHT)
        spread_N = spread_out(pooled.spread_S)
        odd_level_N, worth_N = self.level.take(shown_ms, level_N, weight_N, heard_N)
        rise_N = spread_out(pooled.rise_S) * calmer_N
        self.rise.take(shown_ms, rise_N, weight_N, heard_N)
        odd_spread_N, _ = self.spread.take(shown_ms, spread_N, np.ones(num), heard_N)
        self.seen_N += heard_N
        actual_N, expected_N = spread_out(pooled.actual_S), spread_out(pooled.expected_S)
        self.newest = (self.newest + 1) % REMEMBERED
        for remembered_TN, value_N in (
            (self.odd_level_TN, odd_level_N),
            (self.weight_TN, worth_N),
            (self.odd_spread_TN, odd_spread_N),
            (self.actual_TN, actual_N),
            (self.expected_TN, expected_N),
        ):
            remembered_TN[self.newest] = value_N
        self.bucket_ms_T[self.newest] = bucket_ms
        self.hour_T[self.newest] = shown_ms // HOUR_MS % 24
        objecting_N = self._score(height) & (self.seen_N >= settings.min_buckets)
        self.level.learn(shown_ms, level_N, heard_N, calm_N, self.tension_N)
        self.rise.learn(shown_ms, rise_N, heard_N, calm_N, self.tension_N)
        self.spread.learn(shown_ms, spread_N, heard_N, calm_N, self.tension_N)
        profile_N = self.profile_HN[shown_ms // HOUR_MS % 24]
        profile_N += np.where(heard_N & calm_N, (actual_N - profile_N) / PROFILE_MEMORY, 0.0)
        return objecting_N

    def _score(self, height: float) -> Bools:
        level_KN = np.maximum(np.abs(self.level.scan.scores()), self.rise.scan.scores())
        spread_KN = self.spread.scan.scores()
        level_N, spread_N = level_KN.max(0), spread_KN.max(0)
        self.tension_N = np.maximum(np.maximum(level_N, spread_N), 0.0) / height
        objecting_N = np.asarray(self.tension_N > 1.0)
        for row in np.flatnonzero(objecting_N):
            score_KN = spread_KN if spread_N[row] > level_N[row] else level_KN
            self.length_N[row] = LENGTHS[int(score_KN[:, row].argmax())]
        return objecting_N

    def buckets_since(self, row: int, onset_ms: int | None) -> int:
        """How many buckets the drift has lasted, as far as they are remembered."""
        if onset_ms is None:
            return int(min(self.length_N[row], REMEMBERED, self.seen_N[row]))
        return int((self.bucket_ms_T >= onset_ms).sum())

    def last(self, num: int) -> Ints:
        """Where the newest buckets are remembered, oldest first."""
        return np.arange(self.newest - num + 1, self.newest + 1) % REMEMBERED

    def silent(self, row: int) -> bool:
        """Nothing sold lately, though sales were forecast."""
        lately_T = self.last(SILENT_BUCKETS)
        sold = self.actual_TN[lately_T, row].sum()
        return bool(not sold and self.expected_TN[lately_T, row].sum() >= SILENT_UNITS)

    def evidence(self, row: int, since: int) -> Evidence:
        """What the newest buckets of a segment show."""
        number = int(np.searchsorted(LENGTHS, min(since, LENGTHS[-1])))
        since_T = self.last(since)
        return Evidence(
            level_T=self.odd_level_TN[since_T, row],
            weight_T=self.weight_TN[since_T, row],
            spread_T=self.odd_spread_TN[since_T, row],
            hour_T=self.hour_T[since_T],
            profile_H=self.profile_HN[:, row],
            level_variance=float(self.level.scan.variance_KN[number, row]),
            spread_variance=float(self.spread.scan.variance_KN[number, row]),
        )

    def size(self, row: int, kind: DriftKind, since: int) -> tuple[float, float | None]:
        """The mean departure in standard deviations of a bucket; for a level, the share sold."""
        since_T = self.last(since)
        streams = self.spread if kind == "spread" else self.level
        odd_TN = self.odd_spread_TN if kind == "spread" else self.odd_level_TN
        odd_T = odd_TN[since_T, row]
        size = float(odd_T.mean() / np.sqrt(streams.scan.variance_KN[0, row]))
        if kind != "level":
            return size, None
        weight_T = self.weight_TN[since_T, row]
        shift = float(odd_T @ weight_T / max(float(weight_T @ weight_T), 1e-12))
        return size, max(1.0 + shift, 0.0)

    def restart(self, row: int) -> None:
        """Begin the sums of a segment anew."""
        for streams in (self.level, self.rise, self.spread):
            streams.scan.restart(np.array([row]))

    def forget(self, row: int) -> None:
        """What held for a week is usual from now on."""
        for streams in (self.level, self.rise, self.spread):
            streams.usual.forget(row)
            streams.scan.forget(row)

    def loosen(self, rows: Ints) -> None:
        """Other weights serve some segments."""
        for streams in (self.level, self.rise, self.spread):
            streams.loosen(rows)

    def widen(self, more: int) -> None:
        """Add segments of which nothing is known."""
        widen(self, more)
        for streams in (self.level, self.rise, self.spread):
            streams.usual.noise_HN[:, -more:] = 1.0
            scan = streams.scan
            scan.variance_KN[:, -more:] = scan.prior_K[:, None]


def _copied(held: dict[int, Held]) -> dict[int, Held]:
    return {
        row: Held(dict(one.alarms), one.quiet_buckets, one.drifting_buckets)
        for row, one in held.items()
    }
