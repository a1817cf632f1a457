"""Which items visitors look at, so that only those are read from Redis at other resolutions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

KEPT_S = 30.0
MAX_ASKED = 512


class Interest:
    """What was asked for lately, at most `MAX_ASKED` of it; the event loop's own.

    Attributes:
        news: Set when something is asked for that was not wanted before.
    """

    def __init__(self) -> None:
        self._asked_s: dict[tuple[int, str], float] = {}
        self.news = asyncio.Event()

    def note(self, resolution_ms: int, item_ids: Iterable[str], now_s: float) -> None:
        """Somebody looks at these items now."""
        for item_id in item_ids:
            asked = (resolution_ms, item_id)
            if self._asked_s.pop(asked, None) is None:
                self.news.set()
            self._asked_s[asked] = now_s
        while len(self._asked_s) > MAX_ASKED:
            del self._asked_s[next(iter(self._asked_s))]

    def wanted(self, now_s: float) -> dict[int, frozenset[str]]:
        """What was asked for within the last `KEPT_S`, by resolution.

        >>> interest = Interest()
        >>> interest.note(60_000, ["a"], now_s=0.0)
        >>> interest.note(60_000, ["b"], now_s=20.0)
        >>> interest.wanted(now_s=29.0) == {60_000: {"a", "b"}}, interest.wanted(now_s=31.0)
        (True, {60000: frozenset({'b'})})
        """
        self.news.clear()
        recent = {asked: at for asked, at in self._asked_s.items() if now_s - at <= KEPT_S}
        self._asked_s = recent
        by_width: dict[int, set[str]] = {}
        for resolution_ms, item_id in recent:
            by_width.setdefault(resolution_ms, set()).add(item_id)
        return {resolution_ms: frozenset(items) for resolution_ms, items in by_width.items()}
