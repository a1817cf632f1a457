"""What goes wrong on the way to a topic: repeats, late and future events, broken bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from freshet.stream.errors import InvalidInputError
from freshet.stream.source.simulator.records import Records
from freshet.stream.source.simulator.seeds import generator
from freshet.stream.units import HOUR_MS, MINUTE_MS

EVENT_TIME = re.compile(rb'"event_time":(\d+)')
NESTING = 1_000
REPEAT_MS = (1_000, 10 * MINUTE_MS)
LATE_MS = (30_000, 14 * MINUTE_MS)
TOO_LATE_MS = (20 * MINUTE_MS, 90 * MINUTE_MS)
FUTURE_MS = (30 * MINUTE_MS, 48 * 60 * MINUTE_MS)


@dataclass(frozen=True, slots=True)
class Faults:
    """Shares of the events, 0 to 1.

    Late ones arrive up to 14 minutes after their time, too late ones 20 to 90 minutes. Repeats,
    future and broken records come on top of the shop's own events, so that they do not change what
    was sold.
    """

    duplicates: float = 0.0
    late: float = 0.0
    too_late: float = 0.0
    future: float = 0.0
    broken: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            share = getattr(self, name)
            if not 0.0 <= share <= 1.0:
                raise InvalidInputError(f"the share of faults {name!r} is {share}; expected 0 to 1")


def add_faults(records: Records, faults: Faults, seed: int, hour_ms: int) -> Records:
    """The hour's orders and clicks, some of them late now, and the repeated and broken ones.

    `records` is changed in place and returned.
    """
    rng = generator(seed, "faults", hour_ms // HOUR_MS)
    # The fifth row decides nothing; it keeps the draws after it, and so the bytes, as they were.
    lateness, repeated, future, broken, _ = rng.random((5, len(records)))
    late = lateness < faults.late
    _delay(records, late, rng, LATE_MS)
    _delay(records, ~late & (lateness < faults.late + faults.too_late), rng, TOO_LATE_MS)
    extra = Records()

    def add_like(i: int, value: bytes | None, after_ms: int = 0) -> None:
        extra.add(records.kinds[i], records.keys[i], value, records.timestamps_ms[i] + after_ms)

    for i in np.flatnonzero(repeated < faults.duplicates).tolist():
        add_like(i, records.values[i], after_ms=int(rng.integers(*REPEAT_MS)))
    for i in np.flatnonzero(future < faults.future).tolist():
        add_like(i, _moved(records.values[i], int(rng.integers(*FUTURE_MS))))
    for i in np.flatnonzero(broken < faults.broken).tolist():
        way = int(rng.integers(len(BREAKS)))
        add_like(i, break_value(records.values[i] or b"", way))
    records.extend(extra)
    return records


def _delay(
    records: Records, who: np.ndarray, rng: np.random.Generator, range_ms: tuple[int, int]
) -> None:
    for i in np.flatnonzero(who).tolist():
        records.timestamps_ms[i] += int(rng.integers(*range_ms))


def _moved(value: bytes | None, ahead_ms: int) -> bytes:
    """The value with an event time that much later."""

    def later(found: re.Match[bytes]) -> bytes:
        return b'"event_time":%d' % (int(found[1]) + ahead_ms)

    return EVENT_TIME.sub(later, value or b"", count=1)


def break_value(value: bytes, way: int) -> bytes | None:
    """A good event's value, broken in one of the ways of `BREAKS`.

    >>> break_value(b'{"event_time":5}', 0)
    b'{"event_'
    """
    name = BREAKS[way]
    if name == "truncated":
        return value[: len(value) // 2]
    if name == "wrong_type":
        return EVENT_TIME.sub(b'"event_time":[true]', value, count=1)
    if name == "not_a_number":
        return EVENT_TIME.sub(b'"event_time":NaN', value, count=1)
    if name == "unknown_kind":
        return value.replace(b'"kind":"', b'"kind":"tele').replace(b'"quantity":', b'"amount":')
    if name == "nested":
        return value[:-1] + b',"note":' + b"[" * NESTING + b"]" * NESTING + b"}"
    if name == "not_text":
        return b"\xff\xfe" + value
    return None


BREAKS = ("truncated", "wrong_type", "not_a_number", "unknown_kind", "nested", "not_text", "null")
