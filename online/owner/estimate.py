"""What all items do alike, found in the windows of a resolution: a sample of them where many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import redis
import xxhash

from freshet.model.effects.shared import find_shared
from freshet.online.effects.record import record_of
from freshet.online.forecast.context import Contexts
from freshet.stream.arrays import Ints
from freshet.stream.catalog.tables import ShopTables
from freshet.stream.config import ServedResolution, Settings
from freshet.stream.read.progress import ReadRules
from freshet.stream.read.reader import WindowReader
from freshet.stream.schemas import EffectsRecord

MAX_ITEMS = 2_000  # more say nothing new of what they do alike
ROOM = 1.1  # of a sample, since its size is chance
HASHES = 2**64


class Span(NamedTuple):
    """Which buckets are looked at: `steps` before a bucket's end, of the `held` newest ones."""

    as_of_ms: int
    steps: int
    held: int


class Sample:
    """Which items are looked at: those of the least hashes, the same ones whoever looks.

    Args:
        max_items: About so many at most.
    """

    def __init__(self, max_items: int = MAX_ITEMS) -> None:
        self.max_items = max_items
        self.share = 1.0
        self.distinct = 1.0
        """The share of different ones among items as they are counted."""

    def holds(self, item_id: str) -> bool:
        """Whether an item is among them."""
        return _hash(item_id) < self.share * HASHES

    def fit(self, num_items: int) -> None:
        """Take note that there are so many items in all."""
        self.share = min(1.0, ROOM * self.max_items / max(num_items, 1))

    def rows(self, item_ids: list[str]) -> Ints:
        """Rows of the items that are looked at, in the order of their names."""
        chosen = sorted(range(len(item_ids)), key=lambda row: _hash(item_ids[row]))
        chosen = sorted(chosen[: self.max_items], key=lambda row: item_ids[row])
        return np.array(chosen, np.int64)


class Estimator:
    """Reads the windows of one resolution and finds what its items do alike.

    Nothing of the windows is held between two estimates.

    Args:
        client: The Redis that ingest writes.
        settings: All of them.
        shop: Catalogue, promotions and the rest, as far as they are known.
    """

    def __init__(self, client: redis.Redis, settings: Settings, shop: ShopTables) -> None:
        self._client, self._settings, self._shop = client, settings, shop
        self._samples: dict[int, Sample] = {}

    def estimate(
        self,
        served: ServedResolution,
        span: Span,
        *,
        max_items: int,
        side_offsets: Mapping[str, int],
    ) -> EffectsRecord:
        """The effects as of the end of a span; nothing after it is looked at.

        Args:
            served: The resolution.
            span: As of when, and how far back.
            max_items: There are no more items in all.
            side_offsets: How far the shop's tables are told, as `topic:partition`.

        Raises:
            StoreUnavailableError: Redis does not answer.
        """
        contexts = self._read(served, span, max_items)
        rows = self._sample(served).rows(contexts.item_ids)
        window = contexts.windowed(rows, span.as_of_ms)
        country = self._settings.calendar.country or None
        return record_of(
            find_shared(window),
            resolution_ms=served.resolution_ms,
            as_of_ms=span.as_of_ms,
            num_items=len(rows),
            offsets=contexts.reader.offsets() | dict(side_offsets),
            country=country,
        )

    def _sample(self, served: ServedResolution) -> Sample:
        return self._samples.setdefault(served.resolution_ms, Sample())

    def _read(self, served: ServedResolution, span: Span, max_items: int) -> Contexts:
        """The windows of a sample; read once more where that turns out to be far too small."""
        sample = self._sample(served)
        sample.fit(round(max_items * sample.distinct))
        contexts = self._open(served, span, sample)
        found = len(contexts.item_ids) / sample.share
        # An item of several partitions is counted in each of them.
        sample.distinct = min(found / max(max_items, 1), 1.0)
        if sample.share < 1.0 and len(contexts.item_ids) < sample.max_items / 2:
            sample.fit(round(found))
            contexts = self._open(served, span, sample)
        return contexts

    def _open(self, served: ServedResolution, span: Span, sample: Sample) -> Contexts:
        settings = self._settings
        reader = WindowReader(
            self._client,
            settings.redis.generation,
            served.resolution_ms,
            span.held,
            owns=sample.holds,
            rules=ReadRules.of(settings, served.resolution_ms),
        )
        contexts = Contexts(
            reader,
            self._shop,
            context_length=span.steps,
            prediction_length=served.prediction_length,
            country=settings.calendar.country,
        )
        contexts.refresh()
        return contexts


def _hash(item_id: str) -> int:
    return xxhash.xxh3_64_intdigest(item_id.encode(), seed=1)
