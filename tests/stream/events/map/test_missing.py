"""A path that is spelt wrongly, or that no record has, is told with the nearest one seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from freshet.stream.config import EventSettings
from freshet.stream.events.decoder import EventDecoder
from freshet.stream.events.map.missing import NeverSeen
from freshet.stream.ingest.metrics import IngestMetrics
from freshet.stream.ingest.unseen import tell

ORDER = {"id": 1, "created_at": 5, "lines": [{"sku": "a", "quantity": 1, "price": {"net": 2}}]}
FIELDS = {"event_id": "id", "event_time": "created_at", "lines.unit_price": "price.net"}


def decoder(fields: dict[str, Any]) -> EventDecoder:
    return EventDecoder("orders", EventSettings(series_by=("sku",), orders={"fields": fields}))


def feed(one: EventDecoder, records: int, record: dict[str, Any] = ORDER) -> list[NeverSeen]:
    one.decode([json.dumps(record).encode()] * records, [None] * records)
    return list(one.never_seen())


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"event_id": "idd"},
            "the field 'event_id' is missing (events.orders.fields: 'idd'); nearest seen: 'id'",
        ),
        (
            {"lines.unit_price": "price.nett"},
            "the field 'unit_price' is missing (events.orders.fields: 'price.nett'); "
            "nearest seen: 'price.net'",
        ),
        (
            {"lines.unit_price": ["gross", "PRICE"]},
            "the field 'unit_price' is missing (events.orders.fields: 'gross' or 'PRICE')",
        ),
        ({"lines.unit_price": "sum"}, "the field 'unit_price' is missing"),
    ],
)
def test_a_refusal_says_where_the_map_looks_and_what_is_like_it(
    fields: dict[str, Any], text: str
) -> None:
    found = decoder(FIELDS | fields).decode([json.dumps(ORDER).encode()], [None])
    assert found.refusals[0].message.startswith(text)


def test_a_path_that_a_thousand_records_lack_is_told_once() -> None:
    one = decoder(FIELDS | {"sku": "code", "lines.sku": ["skuu", "artnr"], "quantity": "n"})
    assert feed(one, 999) == []
    assert feed(one, 1) == [
        NeverSeen("quantity", "'n'", None),
        NeverSeen("sku", "'code'", None),
        NeverSeen("lines.sku", "'skuu' or 'artnr'", "sku"),
    ]
    assert feed(one, 2_000) == []


def test_a_path_that_one_record_has_is_not_told() -> None:
    one = decoder(FIELDS | {"sku": "code", "lines.sku": ["skuu", "artnr"]})
    feed(one, 1, ORDER | {"code": 1, "lines": [ORDER["lines"][0] | {"artnr": 5}]})  # type: ignore[index]
    assert feed(one, 3_000) == []
    assert feed(decoder({}), 3_000) == [], "our own names may be missing"


def test_ingest_logs_and_counts_it() -> None:
    metrics = IngestMetrics(CollectorRegistry())
    with capture_logs() as logs:
        tell("orders", [NeverSeen("sku", "'cod'", "code")], metrics)
    (line,) = logs
    assert (line["event"], line["field"], line["hint"]) == (
        "path_never_seen",
        "sku",
        "did you mean 'code'?",
    )
    assert metrics.path_never_seen.labels("orders", "sku")._value.get() == 1


def test_an_expression_that_finds_nothing_in_a_thousand_records_is_told_too() -> None:
    one = decoder(FIELDS | {"lines.unit_price": "price.net", "quantity": {"jmespath": "a.b"}})
    assert feed(one, 1_000) == [NeverSeen("quantity", "a.b", None)]
