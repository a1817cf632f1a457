"""RFC 3339 times as text to epoch milliseconds, a column at a time: Arrow's cast, behind a guard.

Only plain forms are read here, such as `2026-01-31T09:30:00Z` or
`2026-01-31T10:30:00.125+01:00`, up to the year 2261; whoever calls asks
`freshet.stream.codec.time_ms` about each other one, which says the same of these, one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from freshet.stream.arrays import Bytes, Ints

NOT_PLAIN: Final = -1
# With nine digits of a fraction and an offset; Arrow holds nanoseconds.
SHORTEST: Final = len("2026-01-31T09:30:00Z")
LONGEST: Final = len("2026-01-31T10:30:00.123456789+01:00")
# A text that is not plain takes its neighbours along, but no more of them than these.
FEW: Final = 128
_NS_A_MS: Final = 1_000_000


def plain_times_ms(texts: Sequence[str]) -> Ints:
    """Epoch milliseconds of each text, cut off below a millisecond.

    NOT_PLAIN stands where that is for somebody else to say.

    >>> plain_times_ms(["1970-01-01T01:00:01.5+01:00", "1970-01-01T00:00:02Z"]).tolist()
    [1500, 2000]
    >>> plain_times_ms(["1970-01-01T00:00:02Z", "soon"]).tolist()
    [-1, -1]
    """
    times_ms = _cast(texts)
    if times_ms is not None:
        return times_ms
    starts = range(0, len(texts), FEW)
    return np.concatenate([_cast_or_not(texts[n : n + FEW]) for n in starts])


def _cast_or_not(texts: Sequence[str]) -> Ints:
    times_ms = _cast(texts)
    return np.full(len(texts), NOT_PLAIN, np.int64) if times_ms is None else times_ms


def _cast(texts: Sequence[str]) -> Ints | None:
    """The times of texts that are all plain; None where one is not."""
    if not texts:
        return np.empty(0, np.int64)
    letters = np.frombuffer("".join(texts).encode(), np.uint8)
    ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
    if not _look_plain(letters, ends):
        return None
    import pyarrow as pa  # Not at start: it takes a third of a second, and most times are numbers.

    # From buffers: pa.array() of a list would import pandas, which takes a second.
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    column = pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(letters))
    try:
        times = column.cast(pa.timestamp("ns", "UTC"))
    except pa.ArrowInvalid:  # No such day, hour or zone, or after 2261.
        return None
    times_ms = np.frombuffer(times.buffers()[1], np.int64, len(texts)) // _NS_A_MS
    return np.where(times_ms >= 0, times_ms, NOT_PLAIN)


def _look_plain(letters: Bytes, ends: Ints) -> bool:
    """Whether Arrow reads these texts as RFC 3339 does, or refuses them.

    Arrow also takes a space for the `T`, a time without seconds and an offset without minutes.
    """
    if len(letters) != ends[-1]:  # Some are not ASCII.
        return False
    sizes = np.diff(ends, prepend=0)
    if sizes.min() < SHORTEST or sizes.max() > LONGEST:
        return False
    starts = ends - sizes
    zoned = (letters[ends - 1] == ord("Z")) | (letters[ends - 3] == ord(":"))
    timed = (letters[starts + 10] == ord("T")) & (letters[starts + 16] == ord(":"))
    return bool((zoned & timed).all())
