"""What a shop's own records cost the decoder: its map, nested records, states; bytes to columns.

Records are in memory and nothing is folded. Run: python -m bench.maps [--against CHECKOUT], where
the other checkout decodes the default fields too, in turns with this one.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import write_result
from freshet.stream.config import EventSettings
from freshet.stream.events.decoder import EventDecoder

EVENTS, SLICE, REPEATS = 20_000, 2_000, 7
START_MS = 1_772_355_600_000
MAPPED = {"event_id": "id", "event_time": "at", "sku": "code", "region": "area"}
MAPPED |= {"quantity": "amount", "unit_price": "price_each", "lines": "rows"}
MAPPED |= {f"lines.{name}": MAPPED[name] for name in ("sku", "quantity", "unit_price")}

Record = dict[str, Any]


def default(number: int, draw: random.Random) -> Record:
    """An order with our own names, one in twenty of several lines."""
    line = {"sku": f"sku-{draw.randrange(10_000):05d}", "quantity": 1 + number % 3}
    line |= {"unit_price": round(draw.uniform(1, 90), 2)}
    lines = {"lines": [line, line | {"sku": "sku-1"}]} if number % 20 == 0 else line
    head = {
        "event_id": f"{number:012d}-{draw.getrandbits(32):08x}",
        "event_time": START_MS + number,
    }
    return head | {"region": draw.choice(("north", "south")), "order_id": f"o{number}"} | lines


def flat(number: int, draw: random.Random) -> Record:
    """The same record with other names of the same length in all."""
    record = default(number, draw)
    renamed = {MAPPED.get(name, name): value for name, value in record.items() if name != "lines"}
    if "lines" in record:
        renamed["rows"] = [
            {MAPPED[name]: value for name, value in line.items()} for line in record["lines"]
        ]
    short = len(json.dumps(record)) - len(json.dumps(renamed))
    return renamed | {"order_id": f"o{number}" + "." * short}


def shopify(number: int, draw: random.Random) -> Record:
    """A webhook of Shopify: whole numbers as ids, prices as text, most of it for nobody here."""
    lines = [
        {
            "id": draw.getrandbits(50),
            "variant_id": draw.getrandbits(40),
            "title": "A thing that is sold in a shop",
            "quantity": 1 + number % 3,
            "current_quantity": 1,
            "sku": f"sku-{draw.randrange(10_000):05d}",
            "price": f"{draw.uniform(1, 90):.2f}",
            "total_discount": "0.00",
            "price_set": {"shop_money": {"amount": "9.99", "currency_code": "USD"}},
            "properties": [],
            "tax_lines": [{"title": "VAT", "price": "1.90", "rate": 0.19}],
        }
        for _ in range(1 + number % 3)
    ]
    address = {"city": "Berlin", "country_code": draw.choice(("DE", "FR")), "zip": "10115"}
    return {
        "id": 5_000_000_000_000 + number,
        "admin_graphql_api_id": f"gid://shopify/Order/{5_000_000_000_000 + number}",
        "created_at": "2026-03-01T10:00:00+01:00",
        "updated_at": "2026-03-01T10:00:00+01:00",
        "currency": "USD",
        "test": False,
        "note_attributes": [{"name": "gift", "value": "no"}],
        "billing_address": address,
        "shipping_address": address,
        "customer": {"id": draw.getrandbits(50), "tags": "", "default_address": address},
        "line_items": lines,
    }


SHOPIFY = {
    "event_id": "id",
    "event_time": "created_at",
    "region": "shipping_address.country_code",
    "lines": "line_items",
    "lines.sku": ["sku", "variant_id"],
    "lines.unit_price": "price",
}
STATE = SHOPIFY | {"order_id": "id", "version": "updated_at", "cancelled": "cancelled_at"}
del STATE["event_id"]
EXPRESSION = SHOPIFY | {"lines": {"jmespath": "line_items[?quantity > `0`]"}}
Case = tuple[str, Callable[[int, random.Random], Record], dict[str, Any]]
CASES: tuple[Case, ...] = (
    ("default fields", default, {}),
    ("flat map, equal bytes", flat, {"fields": MAPPED}),
    ("Shopify, nested", shopify, {"fields": SHOPIFY, "skip_when": {"test": True}}),
    ("Shopify, states", shopify, {"fields": STATE, "mode": "state"}),
    ("Shopify, lines by JMESPath", shopify, {"fields": EXPRESSION}),
)


def decoding(values: Sequence[bytes], orders: dict[str, Any]) -> Callable[[], None]:
    """Decodes all values, as many at a time as ingest polls."""
    decoder = EventDecoder("orders", EventSettings(orders=orders))
    stamps = np.full(SLICE, START_MS)

    def work() -> None:
        for start in range(0, len(values), SLICE):
            found = decoder.decode(values[start : start + SLICE], [None] * SLICE, stamps)
            assert not found.refusals, found.refusals[0]

    return work


def best_s(work: Callable[[], None]) -> float:
    """CPU seconds of the quickest of several runs."""
    spent = []
    for _ in range(REPEATS):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def measure(name: str, make: Callable[[int, random.Random], Record], orders: dict[str, Any]) -> Any:
    """One row."""
    draw = random.Random(1)
    values = [json.dumps(make(number, draw)).encode() for number in range(EVENTS)]
    size = sum(map(len, values))
    spent_s = best_s(decoding(values, orders))
    return {
        "name": name,
        "bytes_an_event": round(size / EVENTS),
        "cpu_us_an_event": round(1e6 * spent_s / EVENTS, 2),
        "events_a_cpu_second": round(EVENTS / spent_s),
        "mb_a_cpu_second": round(size / spent_s / 1e6, 1),
    }


OTHER = """
import json, random, sys, time
sys.path.insert(0, sys.argv[1])
from freshet.stream.config import EventSettings
from freshet.stream.events.decoder import EventDecoder
values = [line.encode() for line in sys.stdin.read().splitlines()]
best = 9.0
for _ in range(int(sys.argv[2])):
    decoder, started = EventDecoder("orders", EventSettings()), time.process_time()
    for start in range(0, len(values), 2_000):
        part = values[start : start + 2_000]
        decoder.decode(part, [None] * len(part))
    best = min(best, time.process_time() - started)
print(best)
"""


def default_of(checkout: Path) -> float:
    """Microseconds that another checkout's decoder takes an event of default fields."""
    draw = random.Random(1)
    values = "\n".join(json.dumps(default(number, draw)) for number in range(EVENTS))
    command = [sys.executable, "-P", "-c", OTHER, str(checkout / "build/links"), str(REPEATS)]
    said = subprocess.run(command, input=values, text=True, capture_output=True, check=True, env={})
    return round(1e6 * float(said.stdout) / EVENTS, 2)


def main() -> None:
    """Measure, print and write bench/results/maps.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout whose links are made")
    against: Path | None = parser.parse_args().against
    numbers: dict[str, Any] = {"events": EVENTS, "rows": []}
    for case in CASES:
        numbers["rows"].append(measure(*case))
        print(json.dumps(numbers["rows"][-1]))
    if against is not None:
        turns = [(default_of(Path.cwd()), default_of(against)) for _ in range(5)]
        numbers["default_us_here_and_there"] = [min(times) for times in zip(*turns, strict=True)]
        print(numbers["default_us_here_and_there"])
    print(write_result("maps", numbers, ["msgspec", "numpy", "xxhash", "jmespath"]))


if __name__ == "__main__":
    main()
