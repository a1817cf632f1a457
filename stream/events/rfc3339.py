"""RFC 3339 times as text to epoch milliseconds, a column at a time; pure numpy.

Only the plain forms are read here, such as `2026-01-31T09:30:00Z` or
`2026-01-31T10:30:00.125+01:00`; whoever calls asks `freshet.stream.codec.time_ms` about each other
one. Dimensions: N texts, L letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from freshet.stream.arrays import Bools, Bytes, Ints

NOT_PLAIN: Final = -1
_MARKS: Final = {4: "-", 7: "-", 10: "T", 13: ":", 16: ":"}
_SECONDS_END: Final = 19
_ZONE_LETTERS: Final = len("+00:00")


def plain_times_ms(texts: Sequence[str]) -> Ints:
    """Epoch milliseconds of each text, cut off below a millisecond; NOT_PLAIN where that is for
    somebody else to say.

    >>> plain_times_ms(["1970-01-01T01:00:01.5+01:00", "1970-01-01T00:00:02Z", "soon"]).tolist()
    [1500, 2000, -1]
    """
    times_ms = np.full(len(texts), NOT_PLAIN, np.int64)
    joined = "".join(texts)
    if not joined.isascii():
        return times_ms
    letters = np.frombuffer(joined.encode(), np.uint8)
    size_N = np.fromiter(map(len, texts), np.int64, len(texts))
    start_N = np.cumsum(size_N) - size_N
    for size in set(size_N.tolist()):
        rows = np.flatnonzero(size_N == size)
        letter_NL = letters[start_N[rows, None] + np.arange(size)]
        for zone in (1, _ZONE_LETTERS):
            if size >= _SECONDS_END + zone:
                chosen = (letter_NL[:, -1] == ord("Z")) == (zone == 1)
                times_ms[rows[chosen]] = _of_one_form(letter_NL[chosen], zone)
    return times_ms


def _of_one_form(letter_NL: Bytes, zone_letters: int) -> Ints:
    """Texts of one length, that end in so many letters of zone."""
    end = letter_NL.shape[1] - zone_letters
    digit_NL = letter_NL - np.uint8(ord("0"))
    good = np.ones(len(letter_NL), np.bool_)
    for place, mark in _MARKS.items():
        good &= letter_NL[:, place] == ord(mark)
    for first in (0, 2, 5, 8, 11, 14, 17):
        good &= (digit_NL[:, first : first + 2] < 10).all(axis=1)
    second_N, in_range = _seconds(digit_NL)
    millisecond_N, fraction_good = _fraction(letter_NL, digit_NL, end)
    offset_N, zone_good = _offset_seconds(letter_NL, digit_NL, end)
    times_ms = (second_N - offset_N) * 1_000 + millisecond_N
    return np.where(
        good & in_range & fraction_good & zone_good & (times_ms >= 0), times_ms, NOT_PLAIN
    )


def _two(digit_NL: Bytes, first: int) -> Ints:
    return digit_NL[:, first].astype(np.int64) * 10 + digit_NL[:, first + 1]


def _seconds(digit_NL: Bytes) -> tuple[Ints, Bools]:
    """Seconds since the epoch by a calendar without zone, and whether each part is within its
    range.
    """
    year, month, day = (
        _two(digit_NL, 0) * 100 + _two(digit_NL, 2),
        _two(digit_NL, 5),
        _two(digit_NL, 8),
    )
    hour, minute, second = _two(digit_NL, 11), _two(digit_NL, 14), _two(digit_NL, 17)
    months = (year - 1_970) * 12 + month - 1
    first_day, next_first_day = (
        at.astype("datetime64[M]").astype("datetime64[D]") for at in (months, months + 1)
    )
    num_days = (next_first_day - first_day).astype(np.int64)
    good = (month >= 1) & (month <= 12) & (day >= 1) & (day <= num_days) & (year >= 1_970)
    good &= (hour < 24) & (minute < 60) & (second < 60)
    days = first_day.astype(np.int64) + day - 1
    return ((days * 24 + hour) * 60 + minute) * 60 + second, good


def _fraction(letter_NL: Bytes, digit_NL: Bytes, end: int) -> tuple[Ints, Bools]:
    """Milliseconds of what stands between the seconds and the zone, and whether it is a fraction or
    nothing.
    """
    millisecond_N = np.zeros(len(letter_NL), np.int64)
    if end == _SECONDS_END:
        return millisecond_N, np.ones(len(letter_NL), np.bool_)
    digits = digit_NL[:, _SECONDS_END + 1 : end]
    for place, weight in enumerate((100, 10, 1)[: digits.shape[1]]):
        millisecond_N += digits[:, place].astype(np.int64) * weight
    is_fraction = (letter_NL[:, _SECONDS_END] == ord(".")) & (digits < 10).all(axis=1)
    return millisecond_N, is_fraction & (digits.shape[1] > 0)


def _offset_seconds(letter_NL: Bytes, digit_NL: Bytes, end: int) -> tuple[Ints, Bools]:
    """Seconds that local time is ahead of UTC, and whether the zone is well written."""
    if letter_NL.shape[1] == end + 1:
        return np.zeros(len(letter_NL), np.int64), np.ones(len(letter_NL), np.bool_)
    sign, colon = letter_NL[:, end], letter_NL[:, end + 3]
    hour, minute = _two(digit_NL, end + 1), _two(digit_NL, end + 4)
    digits = np.concatenate(
        (digit_NL[:, end + 1 : end + 3], digit_NL[:, end + 4 : end + 6]), axis=1
    )
    good = (
        ((sign == ord("+")) | (sign == ord("-"))) & (colon == ord(":")) & (digits < 10).all(axis=1)
    )
    good &= (hour < 24) & (minute < 60)
    return np.where(sign == ord("-"), -1, 1) * (hour * 60 + minute) * 60, good
