"""Records that a person sends again: their header, and which of them were judged before.

A record with the header `freshet-redrive: topic-partition-offset` (the place of the original) skips
the check for lateness, leaves the frontier alone, and is a duplicate when a record with the same
header was judged before in this partition, however long ago; its event id makes it a duplicate as
anyone's does. It is folded into the resolutions that still retain its bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools

REDRIVE_HEADER: Final = "freshet-redrive"
MAX_NAME_BYTES: Final = 300

Headers = Sequence[tuple[str, str | bytes | None]]
NO_HEADERS: Final[Mapping[int, Headers]] = {}
"""Of records none of which has any."""


def redrive_name(headers: Headers) -> bytes | None:
    """What a record's redrive header says, a long one by its hash; None without one.

    Of several the last one counts.

    >>> redrive_name([("trace", b"1"), ("freshet-redrive", b"orders-3-17")])
    b'orders-3-17'
    """
    for header, value in reversed(headers):
        if header == REDRIVE_HEADER and value:
            name = value.encode() if isinstance(value, str) else value
            too_long = len(name) > MAX_NAME_BYTES
            return hashlib.sha256(name).hexdigest().encode() if too_long else name
    return None


def repeats(
    names: Sequence[bytes | None], future: Bools, known: AbstractSet[bytes]
) -> tuple[Bools, list[bytes]]:
    """Which records repeat a header judged before, and the headers judged for the first time.

    Args:
        names: Each record's, in log order; None for those that are not redriven.
        future: Records that are dead letters: their headers may come again.
        known: Headers judged before the batch.

    >>> repeats([b"a", None, b"a", b"b"], np.zeros(4, bool), {b"b"})[0].tolist()
    [False, False, True, True]
    """
    repeat = np.zeros(len(names), np.bool_)
    fresh: dict[bytes, None] = {}
    for n, name in enumerate(names):
        if name is None or future[n]:
            continue
        repeat[n] = name in known or name in fresh
        if not repeat[n]:
            fresh[name] = None
    return repeat, list(fresh)
