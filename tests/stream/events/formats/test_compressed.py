"""Gzip, a byte order mark and foreign bytes are told apart, and only where JSON failed."""

from __future__ import annotations

import gzip

import pytest

from freshet.stream.errors import EventError
from freshet.stream.events.formats.compressed import foreign, second_look, unpacked
from freshet.stream.events.limits import Refusal

BOM = b"\xef\xbb\xbf"


def unread(place: int, error_class: str = "Undecodable") -> Refusal:
    return Refusal(place, error_class, "no JSON")


def test_gzip_and_a_byte_order_mark_are_taken_off() -> None:
    assert unpacked(gzip.compress(b'{"a": 1}'), 100) == b'{"a": 1}'
    assert unpacked(BOM + b'{"a": 1}', 100) == b'{"a": 1}'
    assert unpacked(gzip.compress(BOM + b"{}"), 100) == b"{}"
    assert unpacked(gzip.compress(b'{"a":') + gzip.compress(b" 1}"), 100) == b'{"a": 1}'
    assert unpacked(b'{"a": 1}', 100) is None


def test_a_gzip_that_would_burst_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(EventError, match="more than 1000 bytes"):
        unpacked(gzip.compress(b" " * 1_001), 1_000)
    with pytest.raises(EventError, match="more than 1000 bytes"):
        unpacked(gzip.compress(b" " * 600) + gzip.compress(b" " * 600), 1_000)
    assert unpacked(gzip.compress(b" " * 1_000), 1_000) == b" " * 1_000


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (gzip.compress(b"{}")[:-3], "cut off"),
        (gzip.compress(b"{}") + b"xx", "cannot be read"),
        (b"\x1f\x8bxx", "cannot be read"),
    ],
    ids=["cut", "longer", "no gzip"],
)
def test_a_broken_gzip_is_refused(value: bytes, said: str) -> None:
    with pytest.raises(EventError, match=said):
        unpacked(value, 1_000)


def test_what_foreign_bytes_are_is_said_with_the_way_out() -> None:
    assert foreign(b"\0\0\0\0\x11\x02a", "orders") == (
        "a Schema Registry record (magic byte 0, schema id 17): "
        'set events.orders.format = "avro", or "protobuf"'
    )
    assert foreign(b'\0\0\0\1\0{"a":1}', "clicks") == (
        "a Schema Registry record (magic byte 0, schema id 256): "
        'set events.clicks.format = "json_schema"'
    )
    assert "zstd" in (foreign(b"\x28\xb5\x2f\xfdabc", "orders") or "")
    assert foreign(b"{", "orders") is None
    assert foreign(b"\0", "orders") is None


def test_a_second_look_is_had_at_what_could_not_be_read_alone() -> None:
    values = [BOM + b"{}", b"{", b"\0\0\0\0\x11\x02a", BOM + b"1", None, b"\x1f\x8bxx"]
    refusals = [
        unread(0),
        unread(1),
        unread(2),
        Refusal(3, "InvalidField", "expected an object"),
        Refusal(4, "NullValue", "null"),
        unread(5, "DeepNesting"),
    ]
    look = second_look(values, refusals, "orders", 1_000)
    assert look is not None
    assert look.values == {0: b"{}"}
    assert sorted(look.refusals) == [2, 5]
    assert look.refusals[2].error_class == "Undecodable"
    assert look.refusals[2].message.startswith("a Schema Registry record")


def test_where_the_plain_decoder_was_right_there_is_no_second_look() -> None:
    assert second_look([b"{", b"[1"], [unread(0), unread(1)], "orders", 1_000) is None
