"""Dead letters keep what came, say why, and always fit."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from freshet.stream.config import KafkaSettings
from freshet.stream.events.dead_letter import Source, dead_letter, late_record, limit_of

LIMIT = limit_of(KafkaSettings(max_record_bytes=1_000))


def source(
    value: bytes | None = b"{",
    key: bytes | None = b"k",
    headers: list[tuple[str, bytes | None]] | None = None,
) -> Source:
    return Source("orders", 3, 17, 1_000, key, value, headers or [])


def test_it_keeps_bytes_key_and_headers_and_adds_why() -> None:
    letter = dead_letter(
        source(b"\xff\x00", headers=[("trace", b"1"), ("none", None)]), "decode", "Bad", "é", LIMIT
    )
    assert (letter.topic, letter.key, letter.value) == ("orders.dlq", b"k", b"\xff\x00")
    assert letter.headers == [
        ("trace", b"1"),
        ("none", None),
        ("freshet.error.topic", b"orders"),
        ("freshet.error.partition", b"3"),
        ("freshet.error.offset", b"17"),
        ("freshet.error.timestamp_ms", b"1000"),
        ("freshet.error.stage", b"decode"),
        ("freshet.error.class", b"Bad"),
        ("freshet.error.message", "é".encode()),
    ]


def test_a_null_value_stays_null() -> None:
    assert dead_letter(source(None), "decode", "Bad", "null", LIMIT).value is None


def test_an_oversized_value_is_cut_and_its_size_and_hash_are_kept() -> None:
    value = b"v" * 200_000
    letter = dead_letter(source(value), "decode", "Bad", "too large", LIMIT)
    said = dict(letter.headers)
    assert letter.value is not None and value.startswith(letter.value)
    assert 60_000 < len(letter.value) < LIMIT
    assert said["freshet.error.value_bytes"] == b"200000"
    assert said["freshet.error.value_sha256"] == hashlib.sha256(value).hexdigest().encode()


@given(
    st.integers(0, 200_000),
    st.integers(0, 200_000),
    st.lists(st.integers(0, 90_000), max_size=4),
    st.text(max_size=3_000),
)
def test_whatever_came_it_fits_and_nothing_is_cut_that_would_fit(
    value: int, key: int, headers: list[int], text: str
) -> None:
    came = source(b"v" * value, b"k" * key, [("h", b"x" * size) for size in headers])
    letter = dead_letter(came, "decode", "Bad", text, LIMIT)
    sizes = [len(name) + len(data or b"") + 10 for name, data in letter.headers]
    assert len(letter.key or b"") + len(letter.value or b"") + sum(sizes) <= LIMIT - 1_000
    whole = value + key + sum(size + 11 for size in headers) < LIMIT - 5_000
    cut = any(name.endswith("_bytes") for name, _ in letter.headers)
    assert not (whole and cut)
    assert cut == (
        (letter.value, letter.key) != (came.value, came.key)
        or letter.headers[: len(headers)] != came.headers
    )


def test_a_late_record_keeps_its_bytes_and_says_where_it_came_from() -> None:
    record = late_record(source(b"{}"), "late", LIMIT)
    assert (record.topic, record.value) == ("late", b"{}")
    assert dict(record.headers)["freshet.source.offset"] == b"17"
