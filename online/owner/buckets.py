"""Which buckets all shards have scored, and their scores: the order of arrival changes nothing.

A bucket is whole when every shard has said that none of its scores follows. A shard whose worker is
behind, or changes, is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from freshet.stream.codec import decode
from freshet.stream.schemas import Score, ShardScored
from freshet.stream.store.grid import Grid
from freshet.stream.telemetry import get_logger

# A shard that has said nothing for ten minutes while another is a day of hours ahead is left out:
# else whoever stands still would keep the whole shop from being watched.
PATIENCE_BUCKETS = 24
PATIENCE_S = 600.0

log = get_logger(__name__)


@dataclass(slots=True)
class _Waiting:
    """Scores of one bucket, as bytes since many wait, and where they began in each partition."""

    values: dict[str, bytes] = field(default_factory=dict)
    firsts: dict[int, int] = field(default_factory=dict)


class ScoredBuckets:
    """Scores of one resolution until their buckets are whole.

    Args:
        grid: The buckets.
        decided_until_ms: Those that end by then were handed over before.
        now_s: A clock that never goes back.
    """

    def __init__(
        self,
        grid: Grid,
        decided_until_ms: int = -1,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.decided_until_ms = decided_until_ms
        self._grid, self._now_s = grid, now_s
        self._marks: dict[int, ShardScored] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._agreed_ms, self._agreed_s = -1, now_s()
        self._left_out = False

    @property
    def begun_ms(self) -> int | None:
        """The shop's first event, as far as anybody knows."""
        begun = [mark.begun_ms for mark in self._marks.values() if mark.begun_ms is not None]
        return min(begun, default=None)

    def mark(self, told: ShardScored) -> None:
        """A shard has been scored so far; who has it next may say less for a while."""
        known = self._marks.get(told.shard)
        if told.resolution_ms == self._grid.resolution_ms and (
            known is None or told.scored_until_ms >= known.scored_until_ms
        ):
            self._marks[told.shard] = told

    def add(self, score: Score, value: bytes, partition: int, offset: int) -> None:
        """A score; of several of one item and bucket the first counts."""
        bucket_ms = score.bucket_start_ms
        if score.resolution_ms != self._grid.resolution_ms or not self._begins(bucket_ms):
            return
        if self._end_ms(bucket_ms) > self.decided_until_ms:
            waiting = self._waiting.setdefault(bucket_ms, _Waiting())
            waiting.values.setdefault(score.item_id, value)
            waiting.firsts.setdefault(partition, offset)

    def until_ms(self) -> int:
        """Buckets that end by then are whole, once all scores from before now have been added."""
        newest = max(
            self._marks.values(),
            key=lambda mark: (mark.scored_until_ms, mark.num_shards),
            default=None,
        )
        if newest is None:
            return -1
        told = {n: mark for n, mark in self._marks.items() if n < newest.num_shards}
        all_told = len(told) == newest.num_shards
        agreed_ms = min(mark.scored_until_ms for mark in told.values()) if all_told else -1
        early_ms = newest.scored_until_ms - PATIENCE_BUCKETS * self._grid.resolution_ms
        if agreed_ms != self._agreed_ms or agreed_ms >= early_ms:
            self._agreed_ms, self._agreed_s, self._left_out = agreed_ms, self._now_s(), False
        if self._now_s() - self._agreed_s < PATIENCE_S:
            return agreed_ms
        if not self._left_out:
            self._left_out = True
            late = sum(mark.scored_until_ms < early_ms for mark in told.values())
            log.warning("drift_without_shards", shards=newest.num_shards - len(told) + late)
        return early_ms

    def take(self, until_ms: int) -> Iterator[tuple[int, list[Score]]]:
        """Hand over each bucket that ends by then, oldest first, and forget it."""
        for bucket_ms in sorted(self._waiting):
            if self._end_ms(bucket_ms) <= until_ms:
                values = self._waiting.pop(bucket_ms).values.values()
                self.decided_until_ms = max(self.decided_until_ms, self._end_ms(bucket_ms))
                yield bucket_ms, [decode(Score, value) for value in values]
        self.decided_until_ms = max(self.decided_until_ms, until_ms)

    def offsets(self, next_offsets: Mapping[int, int]) -> dict[int, int]:
        """By partition: all that waits comes from here on, where others are read so far."""
        needed = dict(next_offsets)
        for waiting in self._waiting.values():
            for partition, offset in waiting.firsts.items():
                needed[partition] = min(offset, needed.get(partition, offset))
        return needed

    def _begins(self, bucket_ms: int) -> bool:
        return self._grid.start_ms(self._grid.bucket(bucket_ms)) == bucket_ms

    def _end_ms(self, bucket_ms: int) -> int:
        return self._grid.end_ms(self._grid.bucket(bucket_ms))
