"""Records in our own fields among those that a map is for, in any format of the topic."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from freshet.stream.config import Settings
from freshet.stream.events.formats.decoding import FormatDecoder
from freshet.stream.verify.event import BadRecordError, SkippedRecordError, read_event

OWN = [("freshet-fields", b"own")]
MAPPED: dict[str, Any] = {
    "series_by": ["sku"],
    "time_unit": "s",
    "orders": {
        "fields": {
            "event_id": "id",
            "event_time": "at",
            "sku": "product.code",
            "quantity": "n",
            "unit_price": {"path": "cents", "scale": 0.01},
        },
        "keep_when": {"type": "sale"},
    },
}
LIVE = {
    "id": 7,
    "at": 1_700_000_000,
    "product": {"code": "a"},
    "n": 2,
    "cents": 150,
    "type": "sale",
}
OLD = {"event_id": "8", "event_time": 1_600_000_000_000, "sku": "b", "quantity": 3, "unit_price": 2}


def settings_of(**orders: Any) -> Settings:
    events = {**MAPPED, "orders": {**MAPPED["orders"], **orders}}
    return Settings.model_validate({"events": events})


def test_a_record_says_by_its_header_that_no_map_is_for_it() -> None:
    settings = settings_of()
    records = [LIVE, OLD, OLD | {"event_id": "9"}, LIVE | {"id": 10}, OLD, LIVE]
    own = {1: OWN, 2: OWN, 5: OWN}
    values = [json.dumps(record).encode() for record in records]
    decoded, _ = FormatDecoder("orders", settings).decode(values, [None] * 6, headers=own)
    assert decoded.index.tolist() == [0, 1, 2, 3]
    assert decoded.event_time_ms.tolist() == [
        *(1_700_000_000_000, 1_600_000_000_000),
        *(1_600_000_000_000, 1_700_000_000_000),
    ]
    assert decoded.line_item == ["a", "b", "b", "a"]
    assert decoded.quantity.tolist() == [2, 3, 3, 2]
    assert decoded.unit_price.tolist() == [1.5, 2, 2, 1.5]
    # What is ours without saying so is not of type sale, and a shop's record is none of ours.
    assert [one.index for one in decoded.skipped] == [4]
    assert [one.index for one in decoded.refusals] == [5]
    assert len({id(decoded.item_ids)}) == 1


def test_the_recount_reads_them_alike() -> None:
    settings = settings_of()
    event = read_event("orders", None, json.dumps(OLD).encode(), settings, 0, OWN)
    assert (event.event_id, event.event_time_ms) == ("8", 1_600_000_000_000)
    assert [(line.item_id, line.said) for line in event.lines] == [("b", (3_000, 20_000))]
    with pytest.raises(SkippedRecordError):
        read_event("orders", None, json.dumps(OLD).encode(), settings)
    with pytest.raises(BadRecordError):
        read_event("orders", None, json.dumps(LIVE).encode(), settings, 0, OWN)


def test_they_are_plain_json_on_a_topic_of_another_envelope() -> None:
    settings = settings_of(envelope="cloudevents")
    live = {"specversion": "1.0", "id": "x", "source": "s", "type": "t", "data": LIVE}
    values = [json.dumps(record).encode() for record in (OLD, live, OLD)]
    headers = {0: OWN, 2: [("trace", b"1")]}
    decoded, _ = FormatDecoder("orders", settings).decode(
        values, [None] * 3, np.zeros(3, np.int64), headers
    )
    assert decoded.line_item == ["b", "a"] and [bad.index for bad in decoded.refusals] == [2]
