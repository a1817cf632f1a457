"""Stops ingest before a bad deploy drains a topic into dead letters; pure, the time is passed
in.
"""

from __future__ import annotations

from collections import deque

WINDOW_S = 10.0
MIN_READ = 1_000


class DeadLetterGuard:
    """Judges each batch, before any of it is published, by the dead letters of the last ten
    seconds.

    A paused ingest reads nothing, so the share of bad records cannot fall by waiting, and going on
    by itself would drain the topic bit by bit while nobody looks. So a person decides: after `lift`
    everything passes until both limits are kept again, and then the guard is back.

    Args:
        per_s: Dead letters a second, averaged over the window, above which ingest pauses.
        share: Share of dead records, once 1,000 were read in the window, from which it pauses.

    >>> guard = DeadLetterGuard(per_s=5_000, share=0.5)
    >>> guard.judge(0.0, read=999, dead=999), guard.judge(1.0, read=1_000, dead=1)
    (None, '1000 of 1999 records were dead letters within 10 s')
    >>> guard.lift()
    >>> guard.judge(2.0, read=100, dead=100)
    """

    def __init__(self, per_s: int, share: float) -> None:
        self._most, self._share = per_s * WINDOW_S, share
        self._batches: deque[tuple[float, int, int]] = deque()
        self._lifted = False

    def judge(self, now_s: float, *, read: int, dead: int) -> str | None:
        """Count a batch; why ingest should pause before it, or None."""
        self._batches.append((now_s, read, dead))
        while self._batches[0][0] <= now_s - WINDOW_S:
            self._batches.popleft()
        reason = self._reason()
        if reason is None:
            self._lifted = False
        return None if self._lifted else reason

    def lift(self) -> None:
        """A person has looked and says go on."""
        self._lifted = True

    def _reason(self) -> str | None:
        read = sum(batch[1] for batch in self._batches)
        dead = sum(batch[2] for batch in self._batches)
        if dead > self._most or (read >= MIN_READ and dead >= self._share * read):
            return f"{dead} of {read} records were dead letters within {WINDOW_S:g} s"
        return None
