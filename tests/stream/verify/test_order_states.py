"""Stored states of orders against those told again: what differs is said."""

from __future__ import annotations

from freshet.stream.units import DAY_MS
from freshet.stream.verify.order_states import StoredOrders, compare_orders
from freshet.stream.verify.orders import Orders, OrderVersion, State
from freshet.stream.verify.report import PartitionReport, Report

HASH = 0x1E36D04C3B08BA43


def test_orders_are_told_by_their_day_and_the_hash_of_their_id() -> None:
    orders = Orders(keep_ms=DAY_MS)
    one = OrderVersion("7", 3, 2 * DAY_MS + 5, {"a": (2_000, 10)})
    orders.change(one, None, patient=False)
    [(place, state)] = orders.states(0).items()
    assert place[0] == 2
    assert state == State(3, 2, {"a": 2_000})
    assert orders.states(4 * DAY_MS - 1).keys() == {place}
    assert orders.states(4 * DAY_MS) == {}


def test_every_order_that_differs_is_reported() -> None:
    report, part = Report(0), PartitionReport("orders", 1, 0, 9)
    same = State(2, 20, {"a": 1_000})
    stored = {(20, 1): same, (20, HASH): State(4, 20, {"b": 500, "a": 1_000}), (20, 3): same}
    told = {(20, 1): same, (20, HASH): State(4, 20, {"a": 1_000}), (21, 4): State(11, 21, {})}
    compare_orders(StoredOrders(9, 0, stored), told, part, report)
    assert part.differences == 3
    assert [one.as_text() for one in report.shown] == [
        "orders:1: the order with the hash 0000000000000003 of day 20 is stored as version 1 of "
        "1000 a, kept from day 20, recounted as None",
        "orders:1: the order with the hash 1e36d04c3b08ba43 of day 20 is stored as version 2 of "
        "1000 a, 500 b, kept from day 20, recounted as version 2 of 1000 a, kept from day 20",
        "orders:1: the order with the hash 0000000000000004 of day 21 is stored as None, "
        "recounted as version 5, given back, of nothing, kept from day 21",
    ]
