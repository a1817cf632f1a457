"""Windows that were folded under other settings are refused by the settings that differ."""

from __future__ import annotations

import pytest

from freshet.stream.config import Settings
from freshet.stream.fold.headers import fingerprint
from freshet.stream.store.redis import _other_settings


def said(then: dict[str, object], now: dict[str, object]) -> str:
    stored, ours = (
        fingerprint("orders", Settings.model_validate({"events": {"orders": one}}))
        for one in (then, now)
    )
    return str(_other_settings("orders", 0, stored, ours, 0))


@pytest.mark.parametrize(
    ("then", "now", "difference"),
    [
        (
            {"fields": {"sku": "id", "region": "land", "quantity": "n"}},
            {"fields": {"sku": "id", "region": "shop.country", "unit_price": "p"}},
            "events.orders.fields.quantity was n, is not set, "
            "events.orders.fields.region was land, is shop.country, "
            "events.orders.fields.unit_price was not set, is p",
        ),
        ({}, {"fields": {"sku": "id"}}, "events.orders.fields.sku was not set, is id"),
        (
            {"fields": {"unit_price": {"path": "p", "scale": 0.01}}},
            {"fields": {"unit_price": {"path": "p", "scale": 0.1}}},
            "events.orders.fields.unit_price.scale was 0.01, is 0.1",
        ),
    ],
)
def test_of_a_map_only_the_fields_that_differ_are_named(
    then: dict[str, object], now: dict[str, object], difference: str
) -> None:
    assert f"were folded under other settings: {difference}; `freshet" in said(then, now)
