"""Orders that are states, as the recount tells them again; values by hand."""

from __future__ import annotations

import pytest

from freshet.stream.units import DAY_MS
from freshet.stream.verify.orders import Orders, OrderVersion, key_is

KEEP_MS = 2 * DAY_MS


def version(number: int, order_id: str = "7", created_ms: int = 5, **items: tuple[int, int]):
    """Items are (thousandths, price in ten-thousandths)."""
    worth = {item: (quantity, quantity * price) for item, (quantity, price) in items.items()}
    return OrderVersion(order_id, number, created_ms, worth)


def told(orders: Orders, one: OrderVersion, watermark_ms: int | None = None, **how: bool):
    patient = how.get("patient", False)
    outcome = orders.judge(one, watermark_ms, patient=patient)
    if outcome != "new":
        return outcome
    return orders.change(one, watermark_ms, patient=patient)


def test_what_is_more_is_sold_and_what_is_less_comes_back() -> None:
    orders = Orders(KEEP_MS)
    assert told(orders, version(1, a=(3_000, 20_000))) == {
        "a": {"units": 3_000, "revenue": 60_000, "orders": 1}
    }
    assert told(orders, version(2, a=(4_000, 50_000), b=(1_000, 1))) == {
        "a": {"units": 1_000, "revenue": 50_000},
        "b": {"units": 1_000, "revenue": 1, "orders": 1},
    }
    assert told(orders, version(3, b=(400, 1))) == {"a": {"returns": 4_000}, "b": {"returns": 600}}
    assert told(orders, version(4)) == {"b": {"returns": 400}}
    assert told(orders, version(5, a=(1, 0))) == {"a": {"units": 1, "orders": 1}}


def test_versions_that_are_not_newer_say_so() -> None:
    orders = Orders(KEEP_MS)
    told(orders, version(2, a=(1_000, 1)))
    assert told(orders, version(2, a=(1_000, 9))) == "same"
    assert told(orders, version(2, a=(2_000, 1))) == "conflicting"
    assert told(orders, version(1, a=(2_000, 1))) == "older"
    assert told(orders, version(1, "8", a=(1_000, 1)))["a"]["orders"] == 1


def test_mean_prices_are_rounded_once() -> None:
    orders = Orders(KEEP_MS)
    told(orders, version(1, a=(1_000, 1)))
    mixed = OrderVersion("7", 2, 5, {"a": (3_000, 2_000 * 10_000 + 1_000 * 20_000)})
    assert told(orders, mixed) == {"a": {"units": 2_000, "revenue": 26_667}}


@pytest.mark.parametrize(
    ("watermark_ms", "outcome"),
    [(None, "new"), (5 + KEEP_MS, "new"), (6 + KEEP_MS, "forgotten")],
)
def test_an_unknown_order_is_new_while_it_could_not_have_been_forgotten(
    watermark_ms: int | None, outcome: str
) -> None:
    assert Orders(KEEP_MS).judge(version(1), watermark_ms, patient=False) == outcome
    assert Orders(KEEP_MS).judge(version(1), watermark_ms, patient=True) == "new"


def test_an_order_is_known_until_its_day_has_been_kept() -> None:
    orders = Orders(KEEP_MS)
    told(orders, version(1))
    assert orders.judge(version(1), 3 * DAY_MS - 1, patient=False) == "same"
    assert orders.judge(version(1), 3 * DAY_MS, patient=False) == "forgotten"
    orders.forget(3 * DAY_MS - 1)
    assert orders.judge(version(1), 0, patient=False) == "same"
    orders.forget(3 * DAY_MS)
    assert orders.judge(version(1), 0, patient=False) == "new"


def test_an_old_order_that_was_told_patiently_is_kept_from_then_on() -> None:
    orders = Orders(KEEP_MS)
    told(orders, version(1, a=(1_000, 1)), 10 * DAY_MS, patient=True)
    assert orders.judge(version(1, a=(1_000, 1)), 13 * DAY_MS - 1, patient=False) == "same"
    told(orders, version(2), 13 * DAY_MS - 1)
    assert orders.judge(version(2), 13 * DAY_MS, patient=False) == "forgotten"


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        (b"7", True),
        (b'"7"', True),
        (b"7.0", True),
        (b'{"order_id": "7"}', True),
        (b'{"schema": {}, "payload": {"id": 7}}', True),
        (b"8", False),
        (b"true", False),
        (b"[7]", False),
        (b'{"id": 7, "shop": 1}', False),
        (b"\xff", False),
        (None, False),
    ],
)
def test_keys_that_are_the_orders_id(key: bytes | None, fits: bool) -> None:
    assert key_is("7", key) == fits
