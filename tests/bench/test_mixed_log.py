"""What the makers of mixed records say must come of them is what the rules say, one by one."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from bench.mixed_log import (
    ARRIVALS,
    CLICK,
    SCHEMA_ID,
    START_MS,
    STEP_MS,
    Cell,
    Clicks,
    Orders,
    clicks_map,
    history,
    orders_map,
)
from bench.mixed_shop import BOOKS, COUNTED, NOT_COUNTED, toml
from bench.mixed_states import States, states_map
from freshet.stream.config import Settings
from freshet.stream.units import DAY_MS
from freshet.stream.verify.recount import Recount
from tests.integration.messy_log import MessyRecord
from tests.stream.events.formats.fake_registry import FakeRegistry, serving

PARTITIONS, RECORDS = 2, 400


def recounted(
    kind: str, settings: Settings, records: Iterable[MessyRecord]
) -> tuple[Counter[str], Counter[Cell]]:
    """Books and days by the rules, over all partitions."""
    recounts = [Recount(kind, settings, "CreateTime") for _ in range(PARTITIONS)]  # type: ignore[arg-type]
    for one in records:
        recounts[one.partition].take(one.key, one.value, one.timestamp_ms, None, one.history, ())
    books, cells = Counter[str](), Counter[Cell]()
    for recount in recounts:
        books.update(recount.books)
        for (day, item_id, channel), amount in recount.cells(DAY_MS).items():
            what, sign = COUNTED.get(channel, (channel, 1))
            if channel not in NOT_COUNTED:
                cells[day, item_id, what] += sign * amount
    return books, cells


def agree(
    found: tuple[Counter[str], Counter[Cell]], books: Counter[str], cells: Counter[Cell]
) -> None:
    assert {name: found[0][name] for name in BOOKS} == {name: books[name] for name in BOOKS}
    assert {at: n for at, n in found[1].items() if n} == {at: n for at, n in cells.items() if n}


def test_orders_and_clicks_come_to_what_was_meant() -> None:
    with serving(FakeRegistry()) as registry:
        registry.add(SCHEMA_ID, "AVRO", json.dumps(CLICK))
        said = {
            "kafka": {"registry": {"url": registry.url}},
            "events": {"orders": orders_map(), "clicks": clicks_map()},
            "windows": {"history_before": START_MS},
        }
        settings = Settings.model_validate(said)
        for kind, topic in (("orders", Orders), ("clicks", Clicks)):
            made = topic(random.Random(3), kind, PARTITIONS)
            records = [made.record(n, START_MS + n * STEP_MS) for n in range(RECORDS)]
            agree(recounted(kind, settings, records), made.expected.books, made.expected.cells)
            assert all(made.expected.books[name] for name in ("duplicate", "late_dropped"))


@pytest.mark.parametrize("arrival", ARRIVALS)
def test_history_comes_to_what_was_meant(arrival: str) -> None:
    said = {"events": {"orders": orders_map()}, "windows": {"history_before": START_MS}}
    orders = Orders(random.Random(5), "orders", PARTITIONS)
    lines, expected = history(orders, 0, 300, arrival)
    records = [
        MessyRecord("orders", n % PARTITIONS, line, START_MS, history=b"old:%d" % n)
        for n, line in enumerate(lines)
    ]
    agree(
        recounted("orders", Settings.model_validate(said), records), expected.books, expected.cells
    )
    assert expected.books["lines_dead"] and expected.books["dead_letter"]


def test_states_come_to_what_was_meant() -> None:
    settings = Settings.model_validate({"events": {"orders": states_map()}})
    states, records = States(random.Random(4), "orders", PARTITIONS), list[MessyRecord]()
    while len(records) < 4 * RECORDS:
        records += states.records(len(records), START_MS + len(records) * STEP_MS)
    agree(recounted("orders", settings, records), states.expected.books, states.expected.cells)
    assert all(states.expected.books[name] for name in BOOKS if name != "lines_dead")


def test_a_table_is_written_as_toml() -> None:
    assert toml({"a.b": [1, "x"], "c": {"d": True}}) == '{"a.b" = [1, "x"], "c" = {"d" = true}}'
