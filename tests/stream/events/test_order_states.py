"""What orders that are states must be besides decoded: keys, times and sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xxhash

from freshet.stream.events.columns import Decoded, StateColumns
from freshet.stream.events.limits import Refusal
from freshet.stream.events.order_states import settle


def hash_of(order_id: str) -> int:
    return xxhash.xxh3_64_intdigest(order_id.encode())


def decoded(
    order_ids: list[str],
    lines: list[tuple[int, float, float]],
    made_later_ms: int = 0,
    **more: Any,
) -> Decoded:
    """Orders at places 1, 2, ...; place 0 is refused; lines are (order, quantity, price)."""
    num = len(order_ids)
    record, quantity, price = np.array(lines, float).reshape(-1, 3).T
    states = StateColumns(
        order_hash=np.array([hash_of(order_id) for order_id in order_ids], np.uint64),
        version=np.ones(num, np.int64),
        created_ms=np.full(num, 100 + made_later_ms),
        cancelled=np.zeros(num, np.bool_),
    )
    return Decoded(
        num_records=num + 1,
        index=np.arange(1, num + 1),
        event_hash=np.zeros(num, np.uint64),
        event_time_ms=np.full(num, 100),
        line_record=record.astype(np.intp),
        line_name=np.arange(len(record)),
        quantity=quantity,
        unit_price=price,
        channel=np.empty(0, np.int64),
        refusals=[Refusal(0, "Undecodable", "not JSON")],
        item_ids=[f"i{n}" for n in range(len(record))],
        states=states,
        **more,
    )


def settled(batch: Decoded, keys: list[bytes | None], *, any_key: bool = False) -> Decoded:
    return settle(batch, [None, *keys], any_key=any_key, max_future_ms=50)


@pytest.mark.parametrize(
    "key",
    [b"7", b'"7"', b"7.0", b'{"id":7}', b'{"order_id": "7"}', b'{"schema":{},"payload":{"id":7}}'],
)
def test_a_key_that_is_the_orders_id_fits_however_it_is_written(key: bytes) -> None:
    assert settled(decoded(["7"], []), [key]).index.tolist() == [1]


@pytest.mark.parametrize(
    "key",
    [
        None,
        b"",
        b"8",
        b"07",
        b'{"id":8}',
        b'{"id":7,"shop":1}',
        b"[7]",
        b"true",
        b"\xff",
        b'"\\ud800"',
    ],
)
def test_a_key_that_is_not_is_refused_with_the_way_out(key: bytes | None) -> None:
    batch = settled(decoded(["7", "9"], [(0, 1, 1), (1, 2, 3)]), [key, b"9"])
    assert batch.index.tolist() == [2]
    assert batch.line_name.tolist() == [1]
    assert [refusal.index for refusal in batch.refusals] == [0, 1]
    assert batch.refusals[1].error_class == "KeyMismatch"
    assert 'events.orders.key = "any"' in batch.refusals[1].message


def test_any_key_may_be_allowed() -> None:
    assert settled(decoded(["7"], []), [None], any_key=True).index.tolist() == [1]


@pytest.mark.parametrize(("later_ms", "good"), [(50, [1]), (51, [])])
def test_an_order_made_after_it_changed_is_refused_beyond_what_clocks_may_differ(
    later_ms: int, good: list[int]
) -> None:
    batch = settled(decoded(["7"], [], made_later_ms=later_ms), [b"7"])
    assert batch.index.tolist() == good
    if not good:
        assert batch.refusals[1].error_class == "InvalidTime"
        assert "51 ms after" in batch.refusals[1].message


@pytest.mark.parametrize(
    ("lines", "good"),
    [
        # 2**61 is 2.3e18: thousandths times ten-thousandths of all lines of an order together.
        ([(0, 1e5, 1e6), (0, 1.3e5, 1e6)], [1]),
        ([(0, 1.2e5, 1e6), (0, 1.2e5, 1e6)], []),
        ([(0, 1e15, 0), (0, 1.3e15, 0)], [1]),
        ([(0, 1e15, 0), (0, 1.4e15, 0)], []),
    ],
)
def test_lines_that_are_together_too_much_are_refused(
    lines: list[tuple[int, float, float]], good: list[int]
) -> None:
    batch = settled(decoded(["7"], lines), [b"7"])
    assert batch.index.tolist() == good


def test_lines_of_nothing_leave_and_their_order_stays() -> None:
    batch = settled(decoded(["7", "9"], [(0, 0, 5), (1, 2, 5), (1, 0.0004, 5)]), [b"7", b"9"])
    assert batch.index.tolist() == [1, 2]
    assert (batch.line_record.tolist(), batch.quantity.tolist()) == ([1], [2.0])
