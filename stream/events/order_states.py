"""What a decoded order must still be where records say what orders *are*, before it is judged.

Its key is its id, so that all versions of an order come on one partition, in order; it was not made
after it changed; and its lines together fit what is stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import xxhash

from freshet.stream.events.columns import Decoded, StateColumns, without
from freshet.stream.events.limits import Refusal

MAX_SUM: Final = 2.0**61
"""Of an order's thousandths, and of these times ten-thousandths of money."""
_SHOWN_BYTES: Final = 60
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")  # It is no text, and has no bytes.


def settle(
    decoded: Decoded, keys: Sequence[bytes | None], *, any_key: bool, max_future_ms: int
) -> Decoded:
    """A batch without the orders that cannot be used, and without lines of nothing.

    Args:
        decoded: The good records of a batch.
        keys: Of all records of it.
        any_key: Whether keys may be anything.
        max_future_ms: How far a clock may be ahead of another.
    """
    decoded = _without_empty_lines(decoded)
    refused = [*_made_later(decoded, max_future_ms), *_too_large(decoded)]
    if not any_key:
        refused += _other_keys(decoded, keys)
    if not refused:
        return decoded
    # The first thing wrong with a record stands.
    first = {refusal.index: refusal for refusal in reversed(refused)}
    everything = [*decoded.refusals, *first.values()]
    return without(decoded, sorted(everything, key=lambda refusal: refusal.index))


def _states(decoded: Decoded) -> StateColumns:
    assert decoded.states is not None, "the records are not states"
    return decoded.states


def _without_empty_lines(decoded: Decoded) -> Decoded:
    """A line of quantity 0 was taken out of its order."""
    some = np.rint(decoded.quantity * 1_000) > 0
    if some.all():
        return decoded
    return replace(
        decoded,
        line_record=decoded.line_record[some],
        line_name=decoded.line_name[some],
        quantity=decoded.quantity[some],
        unit_price=decoded.unit_price[some],
    )


def _made_later(decoded: Decoded, max_future_ms: int) -> Iterator[Refusal]:
    later_ms = _states(decoded).created_ms - decoded.event_time_ms
    for n in np.flatnonzero(later_ms > max_future_ms).tolist():
        text = (
            f"the order was made (event_time) {later_ms[n]} ms after it changed (changed_at), "
            f"expected at most {max_future_ms}"
        )
        yield Refusal(int(decoded.index[n]), "InvalidTime", text)


def _too_large(decoded: Decoded) -> Iterator[Refusal]:
    num = len(decoded.index)
    quantity = decoded.quantity * 1_000
    worth = quantity * decoded.unit_price * 10_000
    sums = [np.bincount(decoded.line_record, each, num) for each in (quantity, worth)]
    for n in np.flatnonzero(np.maximum(*sums) >= MAX_SUM).tolist():
        text = "the lines of the order are together more than can be stored"
        yield Refusal(int(decoded.index[n]), "OutOfRange", text)


def _other_keys(decoded: Decoded, keys: Sequence[bytes | None]) -> Iterator[Refusal]:
    expected = _states(decoded).order_hash
    index = decoded.index.tolist()
    own = [keys[n] or b"" for n in index]
    digests = b"".join(map(xxhash.xxh3_64_digest, own))
    other = np.frombuffer(digests, ">u8").astype(np.uint64) != expected
    for n in np.flatnonzero(other).tolist():
        key = keys[index[n]]
        said = _said(key)
        if said is None or xxhash.xxh3_64_intdigest(said.encode()) != int(expected[n]):
            shown = "no key" if key is None else f"the key {key[:_SHOWN_BYTES]!r}"
            text = (
                f"the record has {shown}, expected its order_id: the versions of an order come in "
                "order on one partition only where they have one key; key the topic by order_id, "
                'or set events.orders.key = "any" if they share a partition all the same'
            )
            yield Refusal(index[n], "KeyMismatch", text)


def _said(key: bytes | None) -> str | None:
    """The one value of a key that is JSON, as text: a text, a number, or an object of one of them.

    >>> _said(b'{"id": 7}'), _said(b'{"schema": {}, "payload": {"id": "a"}}'), _said(b"[7]")
    ('7', 'a', None)
    """
    try:
        value: Any = json.loads(key or b"")
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict) and value.keys() == {"schema", "payload"}:
        value = value["payload"]
    if isinstance(value, dict) and len(value) == 1:
        value = next(iter(value.values()))
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    said = str(value)
    return None if _HALF_PAIR.search(said) else said
