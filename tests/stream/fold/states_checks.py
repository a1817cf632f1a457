"""What tests of orders that are states share: the rules with dictionaries, and generated logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import Any

import xxhash
from hypothesis import strategies as st

from freshet.stream.config import Settings
from freshet.stream.units import DAY_MS
from tests.stream.fold.windows_checks import (
    MARKS,
    REDRIVES,
    START_MS,
    LogRecord,
    NaiveWindows,
    small_settings,
)

KEEP_MS = 2 * DAY_MS


def state_settings(keep_ms: int = KEEP_MS, **windows: Any) -> Settings:
    """Small windows of orders that are states."""
    settings = small_settings(**windows)
    events = {"orders": {"mode": "state", "keep_ms": keep_ms}}
    return settings.model_copy(update={"events": type(settings.events)(**events)})


class NaiveStates(NaiveWindows):
    """The rules of orders that are states; knows records only as `state_records` makes them."""

    def __init__(self, settings: Settings, timestamp_type: str = "") -> None:
        super().__init__("orders", settings, timestamp_type)
        self.known: dict[tuple[int, int], tuple[int, int, dict[str, int]]] = {}

    def _judge(self, record: LogRecord) -> str:
        try:
            event = json.loads(record.value.decode())
            order_id, version = event["order_id"], event["version"]
            created_ms, changed_ms = event["event_time"], event["changed_at"]
            given_back = bool(event.get("cancelled") or event.get("deleted"))
            # Of one number, what is given back comes after what was there.
            version = 2 * version + given_back
            lines = [] if given_back else event.get("lines", [event])
            items = self._items(event, lines)
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError):
            return "dead_letter"
        if record.key != order_id.encode():
            return "dead_letter"
        before_ms = self.watermark_ms()
        out_of_time = self._out_of_time(record, changed_ms)
        if out_of_time is not None:
            return out_of_time
        patient = record.history is not None
        keep_ms = self.settings.events.orders.keep_ms
        day = created_ms // DAY_MS
        place = day, xxhash.xxh3_64_intdigest(order_id.encode())
        known = self.known.get(place)
        if known is not None and before_ms is not None:
            known = known if (known[1] + 1) * DAY_MS + keep_ms > before_ms else None
        old = before_ms is not None and created_ms + keep_ms < before_ms
        if known is None and old and not patient:
            return "late_dropped"
        quantities = {item: quantity for item, (quantity, _) in items.items()}
        if known is not None and version <= known[0]:
            self.books["conflicting"] += version == known[0] and quantities != known[2]
            return "duplicate"
        if not self._take_in(items):
            return "dead_letter"
        days = [day] if known is None else [day, known[1]]
        if old and patient:
            days.append(before_ms // DAY_MS)
        self.known[place] = (version, max(days), quantities)
        before = {} if known is None else known[2]
        at_ms = created_ms if patient and known is None else changed_ms
        self._count(at_ms, self._changes(before, items), before_ms)
        return "applied"

    def _items(self, event: dict[str, Any], lines: Sequence[Any]) -> dict[str, tuple[int, int]]:
        """Thousandths and their worth by item."""
        items: dict[str, tuple[int, int]] = {}
        for line in lines:
            quantity, price = line["quantity"], line["unit_price"]
            assert 0 <= quantity < 10**12 and 0 <= price < 10**12
            item, _ = self._line(event, line | {"quantity": 1, "unit_price": 1})
            thousandths = round(quantity * 1_000)
            if thousandths:
                known, worth = items.get(item, (0, 0))
                more = thousandths * round(price * 10_000)
                items[item] = (known + thousandths, worth + more)
        return items

    @staticmethod
    def _changes(
        before: dict[str, int], items: dict[str, tuple[int, int]]
    ) -> list[tuple[str, dict[str, int]]]:
        changes = []
        for item in {**before, **items}:
            quantity, worth = items.get(item, (0, 0))
            change = quantity - before.get(item, 0)
            if change > 0:
                revenue = floor(Fraction(change * worth, quantity * 1_000) + Fraction(1, 2))
                added = {"units": change, "revenue": revenue, "orders": int(item not in before)}
                changes.append((item, added))
            elif change < 0:
                changes.append((item, {"returns": -change}))
        return changes

    def kept_orders(self, watermark_ms: int) -> dict[tuple[int, int], Any]:
        keep_ms = self.settings.events.orders.keep_ms
        return {
            place: known
            for place, known in self.known.items()
            if (known[1] + 1) * DAY_MS + keep_ms > watermark_ms
        }


def naive_states(
    settings: Settings, log: Sequence[LogRecord], timestamp_type: str = ""
) -> NaiveStates:
    reference = NaiveStates(settings, timestamp_type)
    for record in log:
        reference.feed(record)
    return reference


def state_record(
    order_id: str,
    version: int,
    changed_ms: int,
    lines: list[dict[str, Any]] | None = None,
    created_ms: int = START_MS,
    **fields: Any,
) -> LogRecord:
    """One version of an order, under its own key, as of when it changed."""
    event = {"order_id": order_id, "version": version, "event_time": created_ms, "region": "n"}
    event |= {"changed_at": changed_ms, "lines": lines or []}
    return LogRecord(json.dumps(event | fields).encode(), changed_ms, order_id.encode())


def line(quantity: float, sku: str = "a", unit_price: float = 1.0) -> dict[str, Any]:
    return {"sku": sku, "quantity": quantity, "unit_price": unit_price}


_LINES = st.lists(
    st.builds(
        line,
        st.sampled_from([0, 1, 2, 3.5, 0.0001, 0.0007]),
        st.sampled_from(["a", "b", "a|b", "c"]),
        st.sampled_from([0, 0.01, 9.99, 12.34565, 15_499_000]),
    ),
    max_size=4,
)
_BROKEN = (
    b"{",
    b'{"order_id": "o1", "version": 1, "lines": []}',
    b'{"order_id": "o1", "version": 1, "event_time": 1700000000000, "changed_at": 1700000000000, '
    b'"region": "n", "lines": [{"sku": "a", "quantity": -1, "unit_price": 1}]}',
    b'{"order_id": "o1", "version": "one", "event_time": 1700000000000, "region": "n"}',
)


@st.composite
def state_records(draw: st.DrawFn, max_size: int = 60) -> list[LogRecord]:
    """A log of few orders, whose time moves on in jumps of up to a day: repeated, out of order,
    late, old, cancelled, deleted, under other keys, broken, sent again, and of a load of history.
    """
    records: list[LogRecord] = []
    now_ms = START_MS
    for _ in range(draw(st.integers(1, max_size))):
        now_ms += draw(st.sampled_from([0, 100, 900, 5_000, 70_000, DAY_MS // 2, DAY_MS]))
        back_ms = draw(st.sampled_from([0, 0, 500, 3_000, 7_000, 8_000, 60_000, -29_000, -40_000]))
        order_id = draw(st.sampled_from(["o1", "o2", "o3"]))
        if records and draw(st.integers(0, 9)) == 0:
            records.append(replace(draw(st.sampled_from(records)), timestamp_ms=now_ms))
            continue
        if draw(st.integers(0, 14)) == 0:
            value = draw(st.sampled_from(_BROKEN))
            records.append(LogRecord(value, now_ms, order_id.encode()))
            continue
        made = draw(st.sampled_from([START_MS, START_MS, START_MS + DAY_MS, now_ms - 10 * DAY_MS]))
        record = state_record(
            order_id,
            draw(st.integers(-1, 6)),
            now_ms - back_ms,
            draw(_LINES),
            created_ms=min(made, now_ms - back_ms),
            **draw(st.sampled_from([{}, {}, {}, {"cancelled": True}, {"deleted": 1}])),
        )
        record = replace(record, timestamp_ms=now_ms)
        if draw(st.integers(0, 14)) == 0:
            record = replace(record, key=draw(st.sampled_from([None, b"o9"])))
        if draw(st.integers(0, 7)) == 0:
            record = replace(record, redrive=draw(st.sampled_from(REDRIVES)))
        if draw(st.integers(0, 5)) == 0:
            record = replace(record, history=draw(MARKS))
        if draw(st.integers(0, 5)) == 0:
            record = replace(record, history=b"2024:%d" % draw(st.integers(0, 20)))
        records.append(record)
    return records
