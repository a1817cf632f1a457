"""Records that are no plain JSON at first sight: gzip, a byte order mark, and what they are else.

Asked only of records that the plain decoder has refused, so what is plain costs nothing.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from freshet.stream.errors import EventError
from freshet.stream.events.limits import Refusal

UNREAD: Final = frozenset({"Undecodable", "DeepNesting"})
GZIP: Final = b"\x1f\x8b"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OTHERS: Final = (
    (b"Obj\x01", "an Avro file; send each record by itself"),
    (b"\xc3\x01", "Avro's single-object encoding, which is not read"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; only gzip is read"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; only gzip is read"),
    (b"\xff\xfe", "UTF-16; JSON is UTF-8"),
    (b"\xfe\xff", "UTF-16; JSON is UTF-8"),
)


class SecondLook(NamedTuple):
    """What to decode again, and what is now better known to be wrong, by place."""

    values: dict[int, bytes]
    refusals: dict[int, Refusal]


def second_look(
    values: Sequence[bytes | None], refusals: Iterable[Refusal], section: str, max_bytes: int
) -> SecondLook | None:
    """A look at the records that the plain decoder could not read; None where it was right.

    Args:
        values: A slice's values.
        refusals: What was wrong with some of them.
        section: Whose settings they are: orders, clicks, ...
        max_bytes: The largest value, unpacked.
    """
    found = SecondLook({}, {})
    for refusal in refusals:
        value = values[refusal.index]
        if refusal.error_class not in UNREAD or not value:
            continue
        try:
            plain = unpacked(value, max_bytes)
        except EventError as error:
            found.refusals[refusal.index] = Refusal(refusal.index, "Undecodable", error.message)
            continue
        if plain is not None:
            found.values[refusal.index] = plain
            continue
        name = foreign(value, section)
        if name is not None:
            found.refusals[refusal.index] = Refusal(refusal.index, refusal.error_class, name)
    return found if found.values or found.refusals else None


def unpacked(value: bytes, max_bytes: int) -> bytes | None:
    """The value without its gzip and its byte order mark; None where it has neither.

    Raises:
        EventError: The gzip is broken, or holds more than `max_bytes`.

    >>> unpacked(b"\\xef\\xbb\\xbf{}", 100), unpacked(b"{}", 100)
    (b'{}', None)
    """
    plain = gunzipped(value, max_bytes) if value.startswith(GZIP) else value
    plain = plain.removeprefix(BYTE_ORDER_MARK)
    return None if plain is value or plain == value else plain


def gunzipped(value: bytes, max_bytes: int) -> bytes:
    """What a gzip of one or more members holds.

    Raises:
        EventError: It is broken, cut off or followed by something else, or holds more than
            `max_bytes`.
    """
    plain = b""
    while value:
        member = zlib.decompressobj(wbits=31)
        try:
            plain += member.decompress(value, max_bytes + 1 - len(plain))
        except zlib.error as error:
            raise EventError(f"gzip that cannot be read: {error}") from None
        if len(plain) > max_bytes:
            raise EventError(f"gzip that holds more than {max_bytes} bytes")
        if not member.eof:
            raise EventError("gzip that is cut off")
        value = member.unused_data
    return plain


def foreign(value: bytes, section: str) -> str | None:
    """What a value that is no JSON seems to be, with the way out; None where nobody knows.

    >>> foreign(b"\\x00\\x00\\x00\\x00\\x11\\x02a", "orders")[:56]
    'a Schema Registry record (magic byte 0, schema id 17): s'
    """
    if value[0] == 0 and len(value) > 5:
        number = int.from_bytes(value[1:5], "big")
        wanted = "json_schema" if value[5:6] == b"{" else "avro"
        return (
            f"a Schema Registry record (magic byte 0, schema id {number}): "
            f'set events.{section}.format = "{wanted}"'
            + ("" if wanted == "json_schema" else ', or "protobuf"')
        )
    for magic, name in _OTHERS:
        if value.startswith(magic):
            return name
    return None
