"""When two events say the same: by hand, pair by pair."""

from __future__ import annotations

import json

import numpy as np
import pytest

from freshet.stream.config import EventSettings
from freshet.stream.events.columns import Decoded
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.fold.content import ContentDigests

LINE = {"sku": "a", "quantity": 2, "unit_price": 9.99}
OTHER = {"sku": "b", "quantity": -1, "unit_price": 5}
ORDER = {"event_id": "e", "event_time": 1_000, "region": "n", "lines": [LINE, OTHER]}
CLICK = {"event_id": "e", "event_time": 1_000, "region": "n", "sku": "a", "kind": "view"}


def digests(kind: str, *events: dict[str, object]) -> list[int]:
    values = [json.dumps(event).encode() for event in events]
    decoded = EventDecoder(kind, EventSettings()).decode(values, [None] * len(values))  # type: ignore[arg-type]
    assert len(decoded.index) == len(events)
    return ContentDigests().of(decoded).tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"event_time": 1_001},
        {"region": "m"},
        {"lines": [LINE]},
        {"lines": [LINE, OTHER, OTHER]},
        {"lines": [LINE, LINE]},
        {"lines": [LINE | {"quantity": 2.001}, OTHER]},
        {"lines": [LINE | {"unit_price": 9.9901}, OTHER]},
        {"lines": [LINE | {"sku": "b"}, OTHER | {"sku": "a"}]},
        {"lines": [LINE | {"quantity": -1}, OTHER | {"quantity": 2}]},
    ],
)
def test_an_order_that_says_otherwise_has_another_digest(change: dict[str, object]) -> None:
    first, second = digests("orders", ORDER, ORDER | change)
    assert first != second


def test_the_order_of_lines_and_what_rounding_takes_away_say_nothing() -> None:
    rounded = LINE | {"quantity": 2.0001, "unit_price": 9.990001}
    same = digests("orders", ORDER, ORDER | {"lines": [OTHER, rounded]}, ORDER | {"event_id": "f"})
    assert len(set(same)) == 1


@pytest.mark.parametrize("change", [{"event_time": 1_001}, {"sku": "b"}, {"kind": "cart"}])
def test_a_click_that_says_otherwise_has_another_digest(change: dict[str, object]) -> None:
    first, again, second = digests("clicks", CLICK, CLICK, CLICK | change)
    assert first == again != second


def test_one_hundred_thousand_events_nearly_all_differ() -> None:
    times_ms = np.arange(100_000, dtype=np.int64)
    places = np.arange(100_000)
    floats = np.empty(0)
    ones = np.ones(100_000, np.int64)
    names, hashes = np.zeros(100_000, np.int64), np.zeros(100_000, np.uint64)
    decoded = Decoded(
        num_records=100_000,
        index=places,
        event_hash=hashes,
        event_time_ms=times_ms,
        line_record=places,
        line_name=names,
        quantity=floats,
        unit_price=floats,
        channel=ones,
        refusals=[],
        item_ids=["a"],
    )
    # Of 2^32 digests, 100,000 drawn at random share one with another about once.
    assert len(np.unique(ContentDigests().of(decoded))) > 99_990


def test_a_table_that_grows_and_another_table_give_the_same_names_the_same_digests() -> None:
    decoder, digester = EventDecoder("clicks", EventSettings()), ContentDigests()

    def said(*skus: str) -> list[int]:
        values = [json.dumps(CLICK | {"sku": sku}).encode() for sku in skus]
        return digester.of(decoder.decode(values, [None] * len(values))).tolist()

    (a,) = said("a")
    b, again = said("b", "a")
    assert again == a != b
    decoder = EventDecoder("clicks", EventSettings())
    assert said("b", "a") == [b, a]
