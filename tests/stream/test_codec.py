"""Times as events carry them, and records that say when something happened."""

from __future__ import annotations

import pytest

from freshet.stream.codec import MAX_TIME_MS, decode, encode, longest_time, rfc3339, time_ms
from freshet.stream.errors import EventError
from freshet.stream.schemas import InventoryLevel, Promotion

LAST_S = 253_402_300_799


@pytest.mark.parametrize(
    ("value", "unit", "found"),
    [
        (0, "ms", 0),
        (1_999, "us", 1),
        (7, "s", 7_000),
        (LAST_S, "s", LAST_S * 1_000),
        (LAST_S * 1_000 + 999, "ms", LAST_S * 1_000 + 999),
        (LAST_S * 10**6 + 999_000, "us", LAST_S * 1_000 + 999),
        # Whatever is said of whole numbers, a text says its own time.
        ("1970-01-01T00:00:01.999999999Z", "s", 1_999),
        ("1970-01-01T01:00:00.0019+01:00", "us", 1),
        ("9999-12-31T23:59:59.999Z", "ms", LAST_S * 1_000 + 999),
    ],
)
def test_a_time_is_whole_milliseconds_from_1970_to_9999(value, unit, found: int) -> None:
    assert time_ms(value, unit) == found


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (-1, "ms", "time -1 is not within 1970 to 9999 in epoch milliseconds"),
        (LAST_S + 1, "s", f"time {LAST_S + 1} is not within 1970 to 9999 in epoch seconds"),
        (LAST_S * 10**6 + 10**6, "us", "in epoch microseconds"),
        (-(10**20) + 1, "ms", "time -99999999999999999999 is not"),
        (10**20, "ms", "time with more than 20 digits is not"),
        (-(10**20), "ms", "time with more than 20 digits is not"),
        ("1969-12-31T23:59:59.999Z", "s", "time -1 is not within 1970 to 9999 in epoch millis"),
        ("1970-01-01T00:00:00", "ms", "has no offset from UTC"),
        ("x" * 41, "ms", f"'{'x' * 40}' is not an RFC 3339 time"),
        ("1970-02-30T00:00:00Z", "ms", "not an RFC 3339 time"),
    ],
)
def test_what_is_no_such_time_says_what_was_found_and_expected(value, unit, text: str) -> None:
    with pytest.raises(EventError, match=text):
        time_ms(value, unit)


def test_the_last_moment_of_9999_is_the_last_of_each_unit() -> None:
    last_ms = LAST_S * 1_000 + 999
    assert last_ms == MAX_TIME_MS
    assert [longest_time(unit) for unit in ("s", "ms", "us")] == [
        LAST_S,
        last_ms,
        last_ms * 1_000 + 999,
    ]


def test_a_time_is_written_to_the_millisecond_in_utc() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(86_399_999) == "1970-01-01T23:59:59.999Z"


def test_a_record_comes_back_and_what_is_none_says_what_it_should_be() -> None:
    level = InventoryLevel(sku="a", region=None, on_hand=2, as_of=5)
    assert decode(InventoryLevel, encode(level)) == level
    for data in (b"{", b'{"sku": "\xff"}', b"[" * 100_000, b'{"sku": 1}'):
        with pytest.raises(EventError, match=r"^not a InventoryLevel: "):
            decode(InventoryLevel, data)


def test_a_record_may_speak_of_now_and_plan_for_ten_years_and_not_a_moment_longer() -> None:
    now_ms, ten_years_ms = 1_000_000, 3_660 * 86_400_000

    def level(as_of_ms: int) -> bytes:
        return b'{"sku": "a", "on_hand": 1, "as_of": %d}' % as_of_ms

    def sale(ends_ms: int) -> bytes:
        ends = b'"ends_at": %d' % ends_ms
        return b'{"promotion_id": "p", "starts_at": 1, %s, "discount": 0.1, "sku": "a"}' % ends

    assert decode(InventoryLevel, level(now_ms), latest_ms=now_ms).as_of == now_ms
    assert decode(Promotion, sale(now_ms + ten_years_ms), latest_ms=now_ms) is not None
    late = f"as_of of this InventoryLevel is {now_ms + 1}, a time that the clock has not reached"
    with pytest.raises(EventError, match=late):
        decode(InventoryLevel, level(now_ms + 1), latest_ms=now_ms)
    with pytest.raises(EventError, match=r"ends_at of this Promotion .* over ten years ahead"):
        decode(Promotion, sale(now_ms + ten_years_ms + 1), latest_ms=now_ms)
    assert decode(InventoryLevel, level(now_ms + 1)).as_of == now_ms + 1, "without a clock"
