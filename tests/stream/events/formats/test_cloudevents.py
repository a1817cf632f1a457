"""CloudEvents of both modes become their data with the attributes beside it."""

from __future__ import annotations

from typing import Any

import pytest

from freshet.stream.errors import EventError
from freshet.stream.events.formats.cloudevents import opened

ATTRIBUTES = {"specversion": "1.0", "id": "e1", "source": "/shop", "type": "order.placed"}


def test_a_structured_event_and_a_binary_one_read_alike() -> None:
    expected = {"cloudevent": ATTRIBUTES, "sku": "a", "quantity": 2}
    assert opened({**ATTRIBUTES, "data": {"sku": "a", "quantity": 2}}, []) == expected
    headers = [(f"ce_{name}", value.encode()) for name, value in ATTRIBUTES.items()]
    headers.append(("content-type", b"application/json"))
    assert opened({"sku": "a", "quantity": 2}, headers) == expected


def test_data_in_base64_is_read() -> None:
    event = {"specversion": "1.0", "id": "e1", "data_base64": "eyJza3UiOiAiYSJ9"}
    assert opened(event, []) == {"cloudevent": {"specversion": "1.0", "id": "e1"}, "sku": "a"}


def test_a_field_of_the_data_that_has_our_name_stays() -> None:
    assert opened({**ATTRIBUTES, "data": {"cloudevent": 5}}, []) == {"cloudevent": 5}


def test_an_event_without_data_has_its_attributes_alone() -> None:
    assert opened({**ATTRIBUTES, "data": None}, []) == {"cloudevent": ATTRIBUTES}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"sku": "a"}, "specversion"),
        ([ATTRIBUTES], "specversion"),
        ({**ATTRIBUTES, "data": "text"}, "no JSON object"),
        ({**ATTRIBUTES, "data_base64": "%%"}, "data_base64"),
        ({**ATTRIBUTES, "data_base64": 5}, "data_base64"),
        ({**ATTRIBUTES, "data_base64": "eyJ="}, "data_base64"),
    ],
)
def test_what_is_no_cloudevent_of_json_is_refused(record: Any, said: str) -> None:
    with pytest.raises(EventError, match=said):
        opened(record, [])


def test_a_batch_is_refused_by_name() -> None:
    headers: list[tuple[str, bytes | None]] = [
        ("Content-Type", b"application/cloudevents-batch+json; charset=utf-8")
    ]
    with pytest.raises(EventError, match="batch"):
        opened([ATTRIBUTES], headers)
