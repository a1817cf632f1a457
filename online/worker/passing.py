"""One pass of a round over its work: which portion comes next, and what is said once it is out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from freshet.online.worker.marks import LAST, Mark
from freshet.online.worker.rounds import Work, moved_marks, portions
from freshet.stream.schemas import ForecastRound
from freshet.stream.store.grid import Grid


class Pass:
    """What is left of a round, and how far each shard has come with it.

    Args:
        work: The items left.
        marks: Of the shards that the round is about, at its cutoff.
        before: Their marks before the round began; None for a shard that knows none.
        grid: The buckets.
        num_shards: Of all workers together.
    """

    def __init__(
        self,
        work: Work,
        marks: dict[int, Mark],
        before: Mapping[int, Mark | None],
        *,
        grid: Grid,
        num_shards: int,
    ) -> None:
        self.work = work
        self.marks = marks
        self._grid = grid
        self._num_shards = num_shards
        # Rounds that were begun by somebody who is gone, and that nobody ends any more.
        self._given_up = {
            shard: mark
            for shard, mark in before.items()
            if shard in marks and mark is not None and mark.cutoff_ms < marks[shard].cutoff_ms
            if not mark.complete
        }

    def steps(self, size: int) -> Iterator[tuple[range, dict[int, Mark]]]:
        """Portions of at most `size` items, each with the marks that move when it is out.

        The first one moves those of shards without items too; it is empty where no shard has any.
        """
        counts = self.work.counts()
        moved = {
            shard: replace(mark, upto=LAST)
            for shard, mark in self.marks.items()
            if shard not in counts
        }
        for part in portions(len(self.work), size):
            moved |= moved_marks(self.work, part, self.marks)
            yield part, moved
            # The next portion counts on from here.
            self.marks |= moved
            moved = {}
        if moved:
            yield range(0), moved

    def records(
        self, moved: Mapping[int, Mark], issued_at_ms: int, version: str
    ) -> list[ForecastRound]:
        """What is said of the shards whose round ends with a portion, or was given up before."""
        ended = [(shard, mark) for shard, mark in moved.items() if mark.complete]
        given_up = [
            (shard, self._given_up.pop(shard)) for shard in moved if shard in self._given_up
        ]
        return [self._record(*one, issued_at_ms, version) for one in (*given_up, *ended)]

    def _record(self, shard: int, mark: Mark, issued_at_ms: int, version: str) -> ForecastRound:
        grid = self._grid
        first_ms = grid.start_ms(grid.bucket(mark.cutoff_ms) - mark.skipped)
        return ForecastRound(
            shard=shard,
            num_shards=self._num_shards,
            resolution_ms=grid.resolution_ms,
            cutoff_ms=mark.cutoff_ms,
            issued_at_ms=issued_at_ms,
            complete=mark.complete,
            expected=mark.expected,
            published=mark.published,
            weights_version=version,
            skipped=mark.skipped,
            skipped_from_ms=first_ms if mark.skipped else None,
        )
