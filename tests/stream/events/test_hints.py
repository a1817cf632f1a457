"""Each reason why a record is lost names the setting that is to be changed."""

from __future__ import annotations

import pytest

from freshet.stream.events.hints import LATE, OLD, hint_of, skip_hint


@pytest.mark.parametrize(
    ("error", "message", "names"),
    [
        ("MissingField", "the field 'region' is missing", "events.orders.fields.region"),
        ("MissingField", "the order has no lines", "events.orders.fields says where"),
        ("InvalidField", "the field 'quantity' is 'x', expected a number", "`number`"),
        ("InvalidField", "the field 'sku' is 'x', which its words lack", "`words`"),
        ("InvalidField", "the field 'lines' is text, expected an array", "orders.fields.lines"),
        ("InvalidField", "the kind of click is 'x', expected one of view", "fields.kind"),
        ("InvalidTime", "'x' has no offset from UTC", "events.time_zone"),
        ("FutureEvent", "", "clock"),
        ("NullValue", "the value is null", 'events.orders.tombstones = "skip"'),
        ("Undecodable", "no JSON", "events.orders.format"),
        ("OutOfRange", "quantity is 0", "scale = 0.01"),
        ("KeyMismatch", "", 'events.orders.key = "any"'),
        ("DictionaryFull", "", "windows.max_items_per_partition"),
        (LATE, "", "windows.allowed_lateness_ms"),
        (OLD, "", 'time = "s"'),
        ("NeverHeardOf", "", "events.orders.fields"),
    ],
)
def test_the_hint_of_an_error_names_the_setting(error: str, message: str, names: str) -> None:
    assert names in hint_of("events.orders", error, message)


@pytest.mark.parametrize("reason", ["keep_when", "skip_when", "tombstone", "truncate"])
def test_the_hint_of_what_is_skipped_names_the_setting(reason: str) -> None:
    assert "events.clicks." in skip_hint("events.clicks", reason)
