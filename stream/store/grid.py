"""Which bucket a time falls into, and when one begins; days are the shop's own. Pure.

A day begins at local midnight of `calendar.time_zone`, so the days on which clocks change have 23
or 25 hours. Its bucket number is the local date as days since 1970-01-01; a bucket of any other
width is `start_ms // width`. A day that a zone skipped (Apia, 2011-12-30) is empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC as UTC_ZONE
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from freshet.stream.arrays import Ints
from freshet.stream.config import UTC
from freshet.stream.units import DAY_MS

_EPOCH_DAY = datetime(1970, 1, 1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC_ZONE)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_DAY, _LAST_DAY = -700_000, 2_932_895
_MAX_TABLE_DAYS = 1_000


@dataclass(frozen=True, slots=True)
class Grid:
    """Buckets of one width.

    >>> berlin = Grid(86_400_000, "Europe/Berlin")
    >>> # 2026-03-29T00:00 in Berlin, when clocks go forward.
    >>> spring = berlin.bucket(1_774_738_800_000)
    >>> (berlin.end_ms(spring) - berlin.start_ms(spring)) // 3_600_000
    23
    """

    resolution_ms: int
    time_zone: str = UTC

    @property
    def even(self) -> bool:
        """Whether all buckets are equally wide and numbered by `start_ms // resolution_ms`."""
        return self.resolution_ms != DAY_MS or self.time_zone == UTC

    def bucket(self, time_ms: int) -> int:
        """The number of the bucket that holds a time."""
        if self.even:
            return time_ms // self.resolution_ms
        # The local date is that of UTC, or the next, or the one before.
        day = time_ms // DAY_MS + 1
        while _midnight_ms(self.time_zone, day) > time_ms:
            day -= 1
        return day

    def start_ms(self, bucket: int) -> int:
        """When a bucket begins, inclusive."""
        return bucket * self.resolution_ms if self.even else _midnight_ms(self.time_zone, bucket)

    def end_ms(self, bucket: int) -> int:
        """When a bucket ends, exclusive."""
        return self.start_ms(bucket + 1)

    def buckets(self, times_ms: Ints) -> Ints:
        """The number of the bucket of each time."""
        if self.even or not len(times_ms):
            return times_ms // self.resolution_ms
        first, last = int(times_ms.min()) // DAY_MS, int(times_ms.max()) // DAY_MS
        if last - first > _MAX_TABLE_DAYS:
            whole, place = np.unique(times_ms, return_inverse=True)
            return np.array([self.bucket(at) for at in whole.tolist()], np.int64)[place]
        starts = self.starts_ms(range(first, last + 2))
        return np.searchsorted(starts, times_ms, side="right") + (first - 1)

    def starts_ms(self, buckets: Iterable[int]) -> Ints:
        """When each of these buckets begins."""
        return np.array([self.start_ms(bucket) for bucket in buckets], np.int64)

    def span_edges(self, first: int, steps: int) -> Ints:
        """Start of each of `steps` buckets from `first` on, and the end of the last."""
        if self.even:
            return np.arange(first, first + steps + 1, dtype=np.int64) * self.resolution_ms
        return self.starts_ms(range(first, first + steps + 1))

    def shown_ms(self, times_ms: Ints) -> Ints:
        """What the shop's clock shows at these times, as milliseconds since 1970 on that clock.

        >>> # Noon in UTC, in summer.
        >>> noon = np.array([200 * DAY_MS + DAY_MS // 2])
        >>> (Grid(DAY_MS, "Europe/Berlin").shown_ms(noon) - noon) // 3_600_000
        array([1])
        """
        if self.time_zone == UTC:
            return times_ms
        zone = ZoneInfo(self.time_zone)
        ahead_ms = [_ahead_ms(zone, at_ms) for at_ms in times_ms.tolist()]
        return times_ms + np.array(ahead_ms, np.int64)

    def first_retained(self, watermark_ms: int, count: int) -> int:
        """The oldest bucket whose end plus `count` widths is after the watermark.

        >>> Grid(1_000).first_retained(10_000, 3)
        7
        """
        return self.bucket(watermark_ms - count * self.resolution_ms)

    def expiry_ms(self, bucket: int, count: int) -> int:
        """The watermark at which a bucket of which `count` are kept leaves."""
        return self.end_ms(bucket) + count * self.resolution_ms


def _ahead_ms(zone: ZoneInfo, time_ms: int) -> int:
    """How far a zone's clock is ahead of UTC at a time."""
    ahead = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(zone).utcoffset()
    assert ahead is not None
    return ahead // _MILLISECOND


@lru_cache(maxsize=20_000)
def _midnight_ms(time_zone: str, day: int) -> int:
    """When a local day begins; where there is no midnight, the moment at which clocks skip it."""
    if not _FIRST_DAY <= day <= _LAST_DAY:
        return day * DAY_MS
    midnight = _EPOCH_DAY + timedelta(days=day)
    offset = ZoneInfo(time_zone).utcoffset(midnight.replace(tzinfo=ZoneInfo(time_zone)))
    assert offset is not None
    return day * DAY_MS - offset // _MILLISECOND
