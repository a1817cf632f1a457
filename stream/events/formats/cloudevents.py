"""CloudEvents 1.0, structured and binary: the data, with the event's attributes beside it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from freshet.stream.errors import EventError

BESIDE: Final = "cloudevent"
PREFIX: Final = "ce_"
_DATA: Final = ("data", "data_base64")
_BATCH: Final = b"application/cloudevents-batch"


def opened(record: Any, headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    """The event's data with its attributes in an object `cloudevent`; a field of that name stays.

    Args:
        record: The value's JSON, decoded.
        headers: The record's; of a binary event they hold the attributes.

    Raises:
        EventError: It is no CloudEvent of JSON.

    >>> opened({"specversion": "1.0", "id": "7", "data": {"sku": "a"}}, [])
    {'cloudevent': {'specversion': '1.0', 'id': '7'}, 'sku': 'a'}
    >>> opened({"sku": "a"}, [("ce_specversion", b"1.0"), ("ce_id", b"7")])
    {'cloudevent': {'specversion': '1.0', 'id': '7'}, 'sku': 'a'}
    """
    attributes = {
        name.removeprefix(PREFIX): value.decode("utf-8", "replace")
        for name, value in headers
        if name.startswith(PREFIX) and value is not None
    }
    if "specversion" not in attributes:
        attributes, record = _structured(record, headers)
    if record is None:
        record = {}
    if not isinstance(record, dict):
        raise EventError("the data of the CloudEvent is no JSON object")
    return {BESIDE: attributes, **record}


def _structured(
    record: Any, headers: Sequence[tuple[str, bytes | None]]
) -> tuple[dict[str, Any], Any]:
    said = [value or b"" for name, value in headers if name.lower() == "content-type"]
    if said and said[0].startswith(_BATCH):
        raise EventError("a batch of CloudEvents, which is not read; send each by itself")
    if not isinstance(record, dict) or "specversion" not in record:
        raise EventError("no CloudEvent: neither a field nor a header says its specversion")
    attributes = {name: value for name, value in record.items() if name not in _DATA}
    if record.get("data_base64") is None:
        return attributes, record.get("data")
    try:
        data = base64.b64decode(record["data_base64"], validate=True)
        return attributes, msgspec.json.decode(data)
    except (binascii.Error, ValueError, TypeError, msgspec.DecodeError, RecursionError) as error:
        raise EventError(f"data_base64 of the CloudEvent is no JSON: {error}") from None
