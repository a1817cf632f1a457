"""What one record may say at most, by hand: a time, a number, a length past its bound is dead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from freshet.stream.clock import latest_ms
from freshet.stream.codec import decode
from freshet.stream.errors import EventError
from freshet.stream.schemas import (
    Alert,
    CatalogEntry,
    DriftAlert,
    InventoryLevel,
    ModelEvent,
    Promotion,
    Record,
    RetrainRequest,
    WindowsAdvanced,
)

LATEST_MS = 1_800_000_000_000
TEN_YEARS_MS = 3_660 * 86_400_000
YEAR_9999_MS = 253_402_300_799_999

RETRAIN = {"request_id": "r", "requested_at_ms": 1, "reason": "manual"}
EVENT = {"kind": "promoted", "version": "v", "at_ms": 1}
STOCK = {"sku": "a", "on_hand": 1, "as_of": 1}
SALE = {"promotion_id": "p", "starts_at": 1, "ends_at": 2, "discount": 0.1}
ENTRY = {"sku": "a"}
NOTICE = {"topic": "t", "partition": 0, "epoch": 0, "offset": 0, "frontier_ms": 0}
DRIFT = {
    "alert_id": "a",
    "segment": "s",
    "state": "drift",
    "kind": "level",
    "detector": "cusum",
    "detected_at_ms": 1,
    "onset_ms": 1,
    "size": 1.0,
    "weights_version": "v",
    "description": "",
    "action": "",
}
ALERT_DATA = {
    "state": "firing",
    "severity": "info",
    "title": "",
    "description": "",
    "starts_at_ms": 1,
    "updated_at_ms": 1,
}
ALERT = {"id": "i", "source": "s", "type": "t", "subject": "x", "time": "now", "data": ALERT_DATA}


def read(kind: type[Record], fields: dict[str, Any], latest_ms: int = LATEST_MS) -> Record:
    return decode(kind, json.dumps(fields).encode(), latest_ms=latest_ms)


def alert_updated_at(time_ms: int) -> dict[str, Any]:
    return ALERT | {"data": ALERT_DATA | {"updated_at_ms": time_ms}}


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        (RetrainRequest, RETRAIN, "requested_at_ms"),
        (ModelEvent, EVENT, "at_ms"),
        (InventoryLevel, STOCK, "as_of"),
        (DriftAlert, DRIFT, "detected_at_ms"),
        (DriftAlert, DRIFT, "onset_ms"),
    ],
)
@pytest.mark.parametrize("wrong_ms", [LATEST_MS + 1, LATEST_MS * 1_000, 10**30, -1, 2**63])
def test_what_happened_lies_between_1970_and_the_clock(
    kind: type[Record], fields: dict[str, Any], name: str, wrong_ms: int
) -> None:
    for good_ms in (0, LATEST_MS):
        read(kind, fields | {name: good_ms})
    with pytest.raises(EventError):
        read(kind, fields | {name: wrong_ms})


def test_times_inside_the_data_of_an_alert_are_held_against_the_clock_too() -> None:
    read(Alert, alert_updated_at(LATEST_MS))
    with pytest.raises(EventError, match="updated_at_ms of this AlertData"):
        read(Alert, alert_updated_at(LATEST_MS + 1))


@pytest.mark.parametrize(
    ("kind", "fields", "name"),
    [
        (Promotion, SALE, "starts_at"),
        (Promotion, SALE, "ends_at"),
        (CatalogEntry, ENTRY, "launched_at"),
    ],
)
def test_what_is_planned_lies_ten_years_ahead_at_most(
    kind: type[Record], fields: dict[str, Any], name: str
) -> None:
    read(kind, fields | {name: LATEST_MS + TEN_YEARS_MS})
    for wrong in (LATEST_MS + TEN_YEARS_MS + 1, "9999-01-01T00:00:00Z", -1):
        with pytest.raises(EventError):
            read(kind, fields | {name: wrong})


def test_times_as_text_are_held_to_the_same_bounds() -> None:
    # 1,800,000,000 s after 1970 is 2027-01-15T08:00:00Z.
    read(InventoryLevel, STOCK | {"as_of": "2027-01-15T08:00:00Z"})
    with pytest.raises(EventError, match="as_of of this InventoryLevel"):
        read(InventoryLevel, STOCK | {"as_of": "2027-01-15T08:00:01Z"})


def test_a_clock_near_the_year_9999_bounds_nothing_further() -> None:
    read(Promotion, SALE | {"ends_at": YEAR_9999_MS}, latest_ms=YEAR_9999_MS - 1)
    with pytest.raises(EventError):
        read(Promotion, SALE | {"ends_at": YEAR_9999_MS + 1}, latest_ms=YEAR_9999_MS - 1)


@pytest.mark.parametrize(
    ("kind", "fields", "at_bound", "past_it"),
    [
        (RetrainRequest, RETRAIN, {"request_id": "x" * 1_024}, {"request_id": "x" * 1_025}),
        (RetrainRequest, RETRAIN, {"segments": ["s"] * 10_000}, {"segments": ["s"] * 10_001}),
        (RetrainRequest, RETRAIN, {"alert_ids": ["x" * 1_024]}, {"alert_ids": ["x" * 1_025]}),
        (ModelEvent, EVENT, {"reason": "x" * 16_384}, {"reason": "x" * 16_385}),
        (CatalogEntry, ENTRY, {"title": "x" * 16_384}, {"title": "x" * 16_385}),
        (
            CatalogEntry,
            ENTRY,
            {"attributes": {str(n): "" for n in range(256)}},
            {"attributes": {str(n): "" for n in range(257)}},
        ),
        (WindowsAdvanced, NOTICE, {"offset": 2**63 - 1}, {"offset": 2**63}),
        (WindowsAdvanced, NOTICE, {"partition": 0}, {"partition": -1}),
        (InventoryLevel, STOCK, {"on_hand": 1e15}, {"on_hand": 1e16}),
        (InventoryLevel, STOCK, {"as_of": 1}, {"as_of": "1" * 65}),
    ],
)
def test_texts_lists_and_numbers_have_a_bound(
    kind: type[Record], fields: dict[str, Any], at_bound: dict[str, Any], past_it: dict[str, Any]
) -> None:
    read(kind, fields | at_bound)
    with pytest.raises(EventError):
        read(kind, fields | past_it)


def test_the_json_schemas_say_the_same_bounds() -> None:
    schema = json.loads(
        (Path(__file__).parents[2] / "docs/schemas/retrain.json").read_text("utf-8")
    )
    fields = schema["$defs"]["RetrainRequest"]["properties"]
    assert fields["request_id"]["maxLength"] == 1_024
    assert fields["requested_at_ms"]["maximum"] == YEAR_9999_MS
    assert (fields["segments"]["maxItems"], fields["segments"]["items"]["maxLength"]) == (
        10_000,
        1_024,
    )


class FixedClock:
    """A clock that shows one time."""

    def __init__(self, now_ms: int, speed: float) -> None:
        self._now_ms, self.speed = now_ms, speed

    def now_ms(self) -> int:
        return self._now_ms


@pytest.mark.parametrize(
    ("speed", "ahead_ms"),
    [
        (1.0, 3_600_000 + 30_000),
        (900.0, 3_600_000 + 27_000_000),
        # Held: history is on its way, and the clock is moved after it.
        (0.0, 10 * 366 * 86_400_000),
    ],
)
def test_what_happened_lies_an_hour_and_half_a_minute_past_the_clock_at_most(
    speed: float, ahead_ms: int
) -> None:
    assert latest_ms(FixedClock(1_000, speed)) == 1_000 + ahead_ms
