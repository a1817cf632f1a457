"""What workers say of their rounds: whether the newest is whole, and which cutoffs they skipped."""

from __future__ import annotations

from dataclasses import dataclass, field

from freshet.dashboard.figures import Json
from freshet.stream.schemas import ForecastRound
from freshet.stream.store.grid import Grid
from freshet.stream.units import DAY_MS

MAX_SHARDS = 1_024
MAX_SKIPPED = 4_096


@dataclass(slots=True)
class Rounds:
    """The newest round of each shard at one resolution, and the cutoffs skipped in the past day.

    A cutoff that several shards skipped is one cutoff. Beyond `MAX_SKIPPED` the oldest are
    forgotten.
    """

    grid: Grid
    newest: dict[int, ForecastRound] = field(default_factory=dict)
    _skipped: set[int] = field(default_factory=set)

    def apply(self, done: ForecastRound) -> bool:
        """Take a record in; False where it says nothing new."""
        known = self.newest.get(done.shard)
        if known is not None and not _newer(done, known):
            return False
        if known is None and len(self.newest) >= MAX_SHARDS:
            return False
        self._forget_shards(done.num_shards)
        self.newest[done.shard] = done
        self._note_skipped(done)
        return True

    def _forget_shards(self, num_shards: int) -> None:
        """Shards that the topic no longer has say nothing more."""
        for shard in [shard for shard in self.newest if shard >= num_shards]:
            del self.newest[shard]

    def _note_skipped(self, done: ForecastRound) -> None:
        if done.skipped and done.skipped_from_ms is not None:
            first = self.grid.bucket(done.skipped_from_ms)
            end = min(first + done.skipped, self.grid.bucket(done.cutoff_ms))
            self._skipped.update(range(max(first, end - MAX_SKIPPED), end))
        if len(self._skipped) > MAX_SKIPPED:
            self._skipped = set(sorted(self._skipped)[-MAX_SKIPPED:])

    def told(self) -> Json | None:
        """The newest round and the day before it; None before any."""
        if not self.newest:
            return None
        cutoff_ms = max(done.cutoff_ms for done in self.newest.values())
        latest = [done for done in self.newest.values() if done.cutoff_ms == cutoff_ms]
        since = self.grid.bucket(cutoff_ms - DAY_MS)
        return {
            "cutoff_ms": cutoff_ms,
            "complete": all(done.complete for done in latest),
            "expected": sum(done.expected for done in latest),
            "published": sum(done.published for done in latest),
            "skipped_day": sum(cutoff >= since for cutoff in self._skipped),
        }


def _newer(done: ForecastRound, known: ForecastRound) -> bool:
    """A later cutoff, or the same one with more of it done: one that ended early may go on."""
    if done.cutoff_ms != known.cutoff_ms:
        return done.cutoff_ms > known.cutoff_ms
    return (done.complete, done.published) > (known.complete, known.published)
